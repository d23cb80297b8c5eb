"""Metrics of the gossip layer (pure)."""

from __future__ import annotations

from collections import Counter

from cluster.api.exposition import Histogram, Kind, Metric
from gossip.keyring import KeyState
from gossip.peer import PeerStats
from gossip.stats import LAG_BOUNDS_S, Counters, Lags


def _counters(stats: PeerStats) -> Counters:
    return stats.machine.counters


def _histogram(lags: Lags) -> Histogram:
    return Histogram(LAG_BOUNDS_S, tuple(lags.counts), lags.total_s)


def _bad_packets(stats: PeerStats) -> dict[str, float]:
    c = _counters(stats)
    return {
        "malformed": c.malformed,
        "unauthentic": c.unauthentic,
        "unknown_key": c.unknown_key,
        "replayed": c.replayed,
        "own": c.own,
        "impostor": c.impostors,
        "stale_life": c.stale_lives,
    }


def _refused(stats: PeerStats) -> dict[str, float]:
    c = _counters(stats)
    return {
        "forged": c.refused_forged,
        "foreign": c.refused_foreign,
        "expired": c.refused_expired,
        "unauthorized": c.refused_unauthorized,
        "quota": c.refused_quota,
        "removed": c.refused_removed,
    }


def _keys(stats: PeerStats) -> dict[str, float]:
    held = Counter(key.state for key in stats.keys)
    return {state.value: held[state] for state in KeyState}


GOSSIP: tuple[Metric[PeerStats], ...] = (
    Metric(
        Kind.GAUGE,
        "hivewire_gossip_members",
        "Members that this node knows of in each state, itself included.",
        lambda s: {
            "alive": s.machine.alive,
            "suspect": s.machine.suspect,
            "dead": s.machine.dead,
            "left": s.machine.left,
        },
        ("state",),
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_gossip_members_relay_only",
        "Members that answer only through others: their address, or the way there, is wrong.",
        lambda s: s.machine.relay_only,
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_gossip_health_score",
        "Lifeguard's score of this node's own health: 0 is healthy, 7 the worst.",
        lambda s: s.machine.health,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_suspicions_total",
        "Suspicions that began here, this node's and others'.",
        lambda s: _counters(s).suspicions,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_suspicions_refused_total",
        "Of these, how many were made short because several nodes saw the member's port refuse.",
        lambda s: _counters(s).suspicions_refused,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_refusals_total",
        "Datagrams of this node that came back because nobody listens where they went.",
        lambda s: _counters(s).refusals,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_deaths_total",
        "Members that this node declared dead when their suspicion ended.",
        lambda s: _counters(s).deaths,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_refutations_total",
        "Times that this node was suspected, and said that it lives.",
        lambda s: _counters(s).refutations,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_identity_conflicts_total",
        "Times that another node spoke in this node's name with something newer.",
        lambda s: _counters(s).identity_conflicts,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_stalls_total",
        "Times that this node's timers were late by more than a probe interval: it slept.",
        lambda s: _counters(s).stalls,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_probes_total",
        "Members probed.",
        lambda s: _counters(s).probes,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_probes_failed_total",
        "Probes that neither the member nor a helper answered.",
        lambda s: _counters(s).probes_failed,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_probes_relayed_total",
        "Probes that only a helper could answer: the direct path is broken.",
        lambda s: _counters(s).probes_relayed,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_packets_received_total",
        "Datagrams received, bad ones included.",
        lambda s: _counters(s).datagrams_in,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_packets_sent_total",
        "Datagrams sent.",
        lambda s: _counters(s).datagrams_out,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_received_bytes_total",
        "Bytes received in datagrams and streams, without the headers of UDP, TCP and IP.",
        lambda s: _counters(s).bytes_in,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_sent_bytes_total",
        "Bytes sent in datagrams and streams, without the headers of UDP, TCP and IP.",
        lambda s: _counters(s).bytes_out,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_packets_bad_total",
        "Packets dropped: malformed, unauthentic (wrong key or cluster), unknown_key (a key that "
        "this node has not), replayed, own (this node's own, come back), impostor (on a stream "
        "of another node than it says), stale_life (from before its sender restarted).",
        _bad_packets,
        ("reason",),
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_signatures_total",
        "Signatures made, signatures and certificates checked, and checks put off because there "
        "were too many at a time (anti-entropy comes back to them).",
        lambda s: {
            "made": _counters(s).signed,
            "checked": _counters(s).checked,
            "put_off": _counters(s).checks_put_off,
        },
        ("operation",),
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_answers_put_off_total",
        "Answers not given because one member or host asked for too much at a time (anti-entropy "
        "comes back to them).",
        lambda s: _counters(s).answers_put_off,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_refused_total",
        "What was said and not believed: forged (its node did not sign it), foreign (a certificate "
        "of another cluster), expired (a certificate that is not valid now), unauthorized (a "
        "departure that no manager signed), quota (more than one node may publish), removed (new "
        "lives, claims and streams of nodes that the managers removed).",
        _refused,
        ("reason",),
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_clocks_ahead_total",
        "Records stamped more than ten seconds ahead of this node's clock: one of the two is "
        "wrong.",
        lambda s: _counters(s).clocks_ahead,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_certificates_total",
        "Records and claims that had to wait for a node's certificate (awaited), and those of them "
        "that were given up (missed).",
        lambda s: {
            "awaited": _counters(s).certificates_awaited,
            "missed": _counters(s).certificates_missed,
        },
        ("result",),
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_socket_errors_total",
        "Datagrams that could not be sent, and errors reported for the socket.",
        lambda s: {"send": s.shell.send_errors, "receive": s.shell.receive_errors},
        ("direction",),
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_gossip_queue_length",
        "Updates that wait to be disseminated.",
        lambda s: s.machine.queued,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_queue_dropped_total",
        "Updates that were dropped because the queue was full; anti-entropy brings them.",
        lambda s: s.machine.queue_dropped,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_oversized_total",
        "Messages that fit no datagram; anti-entropy carries them over a stream.",
        lambda s: _counters(s).oversized,
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_gossip_scopes",
        "Scopes (networks) that this node takes part in.",
        lambda s: s.machine.scopes,
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_gossip_records",
        "Records held, deleted and hidden ones included.",
        lambda s: s.machine.records,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_updates_total",
        "Records that came by dissemination: new, known already, or refused (of an unknown owner, "
        "a scope this node is not in, a full log).",
        lambda s: {
            "new": _counters(s).updates_new,
            "known": _counters(s).updates_known,
            "refused": _counters(s).updates_refused,
        },
        ("result",),
    ),
    Metric(
        Kind.HISTOGRAM,
        "hivewire_gossip_convergence_lag_seconds",
        "Age of new records when they came here: unix time of this node minus the time that the "
        "owner stamped on the record, so clocks that disagree add to it. Path eager: by "
        "dissemination. Path repair: by anti-entropy, in a delta to a log known in part; whole "
        "logs, as a newcomer gets them, are not counted.",
        lambda s: {
            "eager": _histogram(_counters(s).lag_eager),
            "repair": _histogram(_counters(s).lag_repaired),
        },
        ("path",),
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_digest_rounds_total",
        "Anti-entropy exchanges that this node began.",
        lambda s: _counters(s).syncs,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_digest_rounds_repeated_total",
        "Of these, how many because nobody answered the one before.",
        lambda s: _counters(s).syncs_repeated,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_digest_rounds_equal_total",
        "Exchanges that found no difference.",
        lambda s: _counters(s).syncs_equal,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_digest_repairs_total",
        "Deltas that brought something new: what dissemination had missed, or a newcomer lacked.",
        lambda s: _counters(s).repairs,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_deltas_received_total",
        "Stretches of logs received from anti-entropy.",
        lambda s: _counters(s).deltas_in,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_deltas_refused_total",
        "Deltas that did not join on to what is held, or did not fit.",
        lambda s: _counters(s).deltas_refused,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_snapshots_received_total",
        "Whole logs received from anti-entropy.",
        lambda s: _counters(s).snapshots_in,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_streams_total",
        "TLS streams that this node opened (out), and accepted (in).",
        lambda s: {"out": _counters(s).streams_out, "in": s.shell.streams_in},
        ("direction",),
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_streams_failed_total",
        "Streams that came to nothing: failed (not sent whole), refused (too many at a time), "
        "broken (junk, time-out or a failed handshake on an accepted one), "
        "astray (another node than the one meant was there).",
        lambda s: {
            "failed": _counters(s).streams_failed,
            "refused": s.shell.streams_refused,
            "broken": s.shell.streams_broken,
            "astray": s.shell.streams_astray,
        },
        ("reason",),
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_gossip_keys",
        "Keys of the ring by state. Not exactly one primary key: this node cannot speak.",
        _keys,
        ("state",),
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_gossip_primary_key_id",
        "Id of the key that this node seals with; nodes that differ for long are in trouble.",
        lambda s: next((k.key_id for k in s.keys if k.state is KeyState.PRIMARY), -1),
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_gossip_packets_opened_total",
        "Packets opened with each key of the ring, since this node has had it.",
        lambda s: {str(key.key_id): key.opened for key in s.keys},
        ("key",),
    ),
)
