"""Counters of the gossip layer, and the frozen picture of them that `stats()` returns (pure)."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

LAG_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the buckets of `Lags`; one more is for what took longer."""


@dataclass(slots=True)
class Lags:
    """How long after they were written records came here, by their owners' clocks."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(LAG_BOUNDS_S) + 1))
    total_s: float = 0.0

    def note(self, lag_s: float) -> None:
        """Count one record; clocks that disagree make no lag negative."""
        lag_s = max(0.0, lag_s)
        self.counts[bisect_left(LAG_BOUNDS_S, lag_s)] += 1
        self.total_s += lag_s


@dataclass(slots=True)
class Counters:
    """What one machine has counted since it was made."""

    datagrams_in: int = 0
    datagrams_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    malformed: int = 0
    unauthentic: int = 0
    unknown_key: int = 0
    replayed: int = 0
    own: int = 0
    impostors: int = 0
    """Frames sealed in another name than that of the certificate which their stream has shown."""
    stale_lives: int = 0
    """Packets from an epoch older than the one known of their sender."""
    probes: int = 0
    probes_failed: int = 0
    probes_relayed: int = 0
    """Probes that only a helper's ack satisfied."""
    refusals: int = 0
    """Datagrams that came back because nobody listens where they went."""
    suspicions: int = 0
    suspicions_refused: int = 0
    """Suspicions that refusals seen by several nodes made short."""
    deaths: int = 0
    refutations: int = 0
    identity_conflicts: int = 0
    """Times another node spoke in this node's name with a newer epoch or incarnation."""
    stalls: int = 0
    """Times the timers were served later than a probe interval: this node slept."""
    updates_new: int = 0
    updates_known: int = 0
    updates_refused: int = 0
    """Updates of unknown owners, scopes not attached to, or logs that are full."""
    oversized: int = 0
    """Messages that fit no datagram; anti-entropy carries them over a stream."""
    signed: int = 0
    """Signatures made."""
    checked: int = 0
    """Signatures and certificates checked."""
    checks_put_off: int = 0
    """Checks not made because there were too many; anti-entropy comes back to them."""
    answers_put_off: int = 0
    """Answers not given because too much was asked; as `checks_put_off`."""
    refused_forged: int = 0
    """Records and claims that their node did not sign."""
    refused_foreign: int = 0
    """Certificates that are not of this cluster."""
    refused_expired: int = 0
    """Certificates that are not valid now."""
    refused_unauthorized: int = 0
    """Departures of others that no manager signed."""
    refused_quota: int = 0
    """Records over the limits of a log."""
    refused_removed: int = 0
    """New lives, claims and streams of nodes that the managers removed."""
    clocks_ahead: int = 0
    """Records stamped more than ten seconds ahead of this node's clock: one of the two is wrong."""
    certificates_awaited: int = 0
    """Records and claims held until a certificate comes."""
    certificates_missed: int = 0
    """Those that were given up."""
    lag_eager: Lags = field(default_factory=Lags)
    """Of new records that came by dissemination."""
    lag_repaired: Lags = field(default_factory=Lags)
    """Of records in deltas that repaired a log; not of whole logs, which are old by nature."""
    syncs: int = 0
    syncs_repeated: int = 0
    """Of these, because nobody answered the one before."""
    syncs_equal: int = 0
    deltas_in: int = 0
    repairs: int = 0
    """Deltas that brought something new: what dissemination had missed, or a newcomer lacked."""
    deltas_refused: int = 0
    snapshots_in: int = 0
    streams_out: int = 0
    streams_failed: int = 0


@dataclass(frozen=True, slots=True)
class GossipStats:
    """One machine at one moment."""

    alive: int
    """Members in each state, this node included."""
    suspect: int
    dead: int
    left: int
    relay_only: int
    """Members that only helpers reach: look at their addresses and at the way there."""
    scopes: int
    """Scopes attached to."""
    records: int
    """Records held, tombstones included."""
    queued: int
    """Messages waiting to be disseminated."""
    queue_dropped: int
    health: int
    """Local health score: 0 is healthy."""
    counters: Counters
    """A copy."""


@dataclass(slots=True)
class ShellCounters:
    """What the sockets have counted."""

    send_errors: int = 0
    receive_errors: int = 0
    streams_in: int = 0
    streams_refused: int = 0
    """Connections closed at once because too many were open."""
    streams_broken: int = 0
    """Connections that ended in junk, a time-out or a failed handshake."""
    streams_astray: int = 0
    """Streams at whose other end was another node than the one they were for."""
