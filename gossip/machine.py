"""The gossip state machine of one node, without I/O.

It is driven by what arrives (`receive_datagram`, `receive_frame`, `receive_refusal`), by time
(`handle_timer`) and by the node's own wishes (`attach`, `publish`, ...). After any of these the
shell must handle
`events()`, then send `datagrams_to_send()` and `streams_to_send()`, and arm a timer at
`next_timer()`. An `EpochRaised` event must be on disk before anything is sent. Time is passed in,
in seconds of one monotonic clock; the machine never reads a clock.

Invariants:
    bytes that are not a packet of this cluster change no state but a counter;
    same seed, same calls: same packets.

Source: SWIM (Das et al. 2002), Lifeguard (Dadgar et al. 2017), Scuttlebutt (van Renesse et al.
2008), put together as the modules below say.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from random import Random

from gossip import report
from gossip.bootstrap import Bootstrap
from gossip.broadcast import Queues, Rank
from gossip.codec import Codec, SealedCodec
from gossip.config import GossipConfig
from gossip.digest import Summary
from gossip.directory import Directory
from gossip.doubts import Doubts
from gossip.events import (
    Event,
    KeysWanted,
    LogView,
    MemberView,
    RecordsChanged,
    RecordView,
    StoredView,
)
from gossip.hybrid import HybridClock
from gossip.identity import Certificate, Identity
from gossip.inbox import Inbox
from gossip.keyring import GossipKey, Keyring, KeyView
from gossip.ledger import Ledger
from gossip.member import MemberTable
from gossip.membership import Membership
from gossip.notary import Notary
from gossip.outbox import Outbox, StreamPush
from gossip.spread import Spread
from gossip.stats import Counters, GossipStats
from gossip.supply import Supply
from gossip.sync import Syncer
from gossip.timers import Timers
from gossip.trust import Trust
from gossip.wire import (
    NODES,
    Address,
    CertificateOffer,
    Delta,
    DigestEntry,
    InvalidError,
    NodeRecord,
)

_SWEEP_S = 30.0
"""How often what is old is forgotten."""
_KEYS_WANTED_S = 5.0
"""Least time between two wishes for another key ring, however many packets cannot be opened."""


class Machine:
    """One node's gossip."""

    __slots__ = (
        "_bootstrap",
        "_config",
        "_directory",
        "_events",
        "_hybrid",
        "_inbox",
        "_is_started",
        "_keyring",
        "_keys_wanted_at",
        "_ledger",
        "_members",
        "_membership",
        "_outbox",
        "_output",
        "_queues",
        "_spread",
        "_summary",
        "_supply",
        "_sync",
        "_timers",
        "_trust",
        "counters",
    )

    def __init__(
        self,
        *,
        node_id: str,
        epoch: int,
        cluster_id: str,
        data_address: str,
        config: GossipConfig,
        keys: Sequence[GossipKey],
        identity: Identity,
        rng: Random,
        wall_offset_s: float = 0.0,
        codec: Callable[[Keyring], Codec] = SealedCodec,
    ) -> None:
        """`wall_offset_s`: unix time minus the machine's clock, for hybrid logical clocks.

        `codec`: makes the wire form; simulations have another.
        """
        self.counters = Counters()
        self._config = config
        self._hybrid = HybridClock(wall_offset_s)
        self._events: list[Event] = []
        self._is_started = False
        self._keys_wanted_at = float("-inf")
        """When the next `KeysWanted` may be."""
        self._timers = Timers()
        self._keyring = Keyring(cluster_id=cluster_id, node_id=node_id, epoch=epoch, keys=keys)
        wire = codec(self._keyring)
        self._members = MemberTable()
        self._trust = Trust(
            cluster_id=cluster_id,
            identity=identity,
            counters=self.counters,
            clock=self._hybrid,
            account_of=self._members.account,
        )
        self._keyring.home_of = self._members.home_of
        self._directory = Directory(
            node_id=node_id,
            epoch=epoch,
            config=config,
            members=self._members,
            sign=self._trust.sign_update,
        )
        self._queues = Queues()
        self._outbox = Outbox(
            config=config,
            codec=wire,
            members=self._members,
            directory=self._directory,
            queues=self._queues,
            counters=self.counters,
        )
        self._output: tuple[Collection[object], ...] = (
            self._outbox.parcels,
            self._outbox.pushes,
            self._events,
            self._directory.changed,
        )
        self._spread = Spread(
            config=config,
            rng=rng,
            timers=self._timers,
            members=self._members,
            directory=self._directory,
            queues=self._queues,
            outbox=self._outbox,
        )
        self._membership = Membership(
            me=NodeRecord(node_id, epoch, 0, "127.0.0.1", 1, data_address),
            trust=self._trust,
            config=config,
            rng=rng,
            timers=self._timers,
            members=self._members,
            directory=self._directory,
            outbox=self._outbox,
            spread=self._spread,
            counters=self.counters,
            events=self._events,
            hlc=self._hybrid.next,
            on_epoch=self._go_on_in_epoch,
            on_return=lambda node_id, now: self._sync.greet(node_id, now=now),
        )
        self._summary = Summary(
            me=lambda: self._membership.me, members=self._members, directory=self._directory
        )
        self._supply = Supply(
            members=self._members,
            directory=self._directory,
            summary=self._summary,
            trust=self._trust,
            outbox=self._outbox,
            counters=self.counters,
        )
        self._sync = Syncer(
            config=config,
            rng=rng,
            timers=self._timers,
            members=self._members,
            directory=self._directory,
            summary=self._summary,
            supply=self._supply,
            trust=self._trust,
            outbox=self._outbox,
            counters=self.counters,
        )
        self._membership.detector.on_probe = self._sync.ride
        self._ledger = Ledger(
            trust=self._trust,
            directory=self._directory,
            timers=self._timers,
            spread=self._spread,
            sync=self._sync,
            counters=self.counters,
            hlc=self._hybrid.next,
        )
        self._bootstrap = Bootstrap(
            config=config,
            rng=rng,
            timers=self._timers,
            members=self._members,
            membership=self._membership,
            directory=self._directory,
            ledger=self._ledger,
            sync=self._sync,
        )
        self._inbox = Inbox(
            codec=wire,
            members=self._members,
            membership=self._membership,
            trust=self._trust,
            notary=Notary(
                trust=self._trust,
                members=self._members,
                membership=self._membership,
                sync=self._sync,
                outbox=self._outbox,
                counters=self.counters,
                on_company=self._bootstrap.plan_introduction,
            ),
            ledger=self._ledger,
            sync=self._sync,
            outbox=self._outbox,
            counters=self.counters,
            doubts=Doubts(rng=rng, outbox=self._outbox, prove=self._keyring.prove),
            on_newer_key=self._want_keys,
        )

    @property
    def me(self) -> NodeRecord:
        """This node's own record."""
        return self._membership.me

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be disseminated."""
        return self._queues.is_empty

    def start(self, advertise: Address, *, now: float) -> None:
        """Begin, reachable at `advertise`."""
        if self._is_started:
            raise InvalidError("this node is running already")
        self._is_started = True
        self._membership.start(advertise, now=now)
        self._sync.start(NODES, now=now)
        self._bootstrap.start(now=now)
        self._timers.at(now + _SWEEP_S, self._sweep)

    def join(self, addresses: Iterable[Address]) -> None:
        """Look for the cluster at `addresses`, in place of earlier ones."""
        self._bootstrap.join(addresses)

    def meet(self, others: Iterable[tuple[NodeRecord, Certificate]], *, now: float) -> None:
        """Know members from the start, as nodes of a simulated cluster do; nothing is checked.

        Records of this node itself are passed over; no other may be known already.
        """
        strangers = [other for other in others if other[0].node_id != self.me.node_id]
        self._trust.meet(certificate for _, certificate in strangers)
        self._members.meet((record for record, _ in strangers), now=now)
        self._directory.dirty.update(record.node_id for record, _ in strangers)

    def set_keys(self, keys: Sequence[GossipKey]) -> None:
        """Replace the key ring. Raises InvalidError, and keeps the old ring, if it is unusable."""
        before = self._keyring.keys()
        self._keyring.set_keys(keys)
        if self._keyring.keys() != before:
            self._bootstrap.look_again()

    def keys(self) -> list[KeyView]:
        """Return the key ring without secrets, oldest key first."""
        return self._keyring.keys()

    def set_identity(self, identity: Identity, *, now: float) -> None:
        """Go on with a renewed certificate. Raises InvalidError if it is another node's."""
        certificate = identity.certificate
        if certificate.node_id != self.me.node_id:
            raise InvalidError(f"a certificate of node {certificate.node_id}")
        self._trust.set_identity(identity)
        name = ("certificate", certificate.node_id)
        offer = CertificateOffer(certificate.der)
        self._spread.put(NODES, Rank.SELF, name, offer, now=now)
        self._membership.renew(now=now)
        for scope in self._directory.sign_again():
            self._ledger.plan_head(scope, now=now)

    def set_wall_offset(self, wall_offset_s: float) -> None:
        """Take note of unix time minus this machine's clock, which may have changed."""
        self._hybrid.adjust(wall_offset_s)

    def attach(self, scope: str, *, now: float) -> None:
        """Take part in a scope."""
        update = self._directory.attach(scope, hlc=self._hybrid.next(now))
        if update is not None:
            self._sync.start(scope, now=now)
            self._ledger.spread_own(update, now=now)

    def detach(self, scope: str, *, now: float) -> None:
        """Leave a scope; its records are forgotten."""
        update = self._directory.detach(scope, now=now, hlc=self._hybrid.next(now))
        if update is not None:
            self._sync.stop(scope)
            self._spread.forget(scope)
            self._ledger.forget(scope)
            self._ledger.spread_own(update, now=now)

    def publish(self, scope: str, key: str, value: bytes, *, now: float) -> None:
        """Write a record of this node; nothing happens if it says so already.

        Raises InvalidError if the scope is not attached or a limit is passed.
        """
        update = self._directory.publish(scope, key, value, hlc=self._hybrid.next(now))
        if update is not None:
            self._ledger.spread_own(update, now=now)

    def withdraw(self, scope: str, key: str, *, now: float) -> None:
        """Delete a record of this node, if it is there."""
        update = self._directory.withdraw(scope, key, now=now, hlc=self._hybrid.next(now))
        if update is not None:
            self._ledger.spread_own(update, now=now)

    def leave(self, *, now: float) -> None:
        """Say that this node leaves for good."""
        self._membership.leave(now=now)

    def set_removed(self, node_ids: Iterable[str], *, now: float) -> None:
        """Take whom the managers have removed, all of them: they stay out, whatever they say."""
        self._membership.removal.set(node_ids, now=now)

    def receive_datagram(self, data: bytes, source: Address, *, now: float) -> None:
        """Take a datagram from the network."""
        self._inbox.take_untrusted(data, source, now=now)

    def receive_refusal(self, address: Address, *, now: float) -> None:
        """Take the word of the network, which may be forged, that nobody listens at `address`."""
        self._membership.detector.take_refusal(address, now=now)

    def bearer_untrusted(self, der: bytes) -> str | None:
        """Return the node whose certificate a stream has shown; None, and counted, if none is.

        So it is for a node that the managers removed: its certificate is still valid.
        """
        node_id = self._trust.bearer_untrusted(der)
        if node_id is not None and node_id in self._membership.removal:
            self.counters.refused_removed += 1
            return None
        return node_id

    def receive_frame(self, data: bytes, source: Address, *, peer: str | None, now: float) -> bool:
        """Take a frame of a stream; tell whether it was one of this cluster's, and its peer's.

        `peer`: the node whose certificate the stream has shown; None for one without certificates.
        """
        return self._inbox.take_frame_untrusted(data, source, now=now, peer=peer)

    @property
    def has_output(self) -> bool:
        """Whether there are events, datagrams or streams to hand out."""
        return any(self._output)

    def next_timer(self) -> float:
        """Return when `handle_timer` must next be called."""
        return self._timers.due

    def handle_timer(self, *, now: float) -> None:
        """Do what is due at `now`."""
        lag_s = now - self._timers.due
        if lag_s > self._config.probe_interval_s:
            self.counters.stalls += 1
            self._membership.detector.stalled(lag_s, now=now)
        self._timers.fire(now)

    def datagrams_to_send(self) -> list[tuple[bytes, Address]]:
        """Return and forget the (data, destination) pairs to send."""
        return self._outbox.drain()

    def streams_to_send(self) -> list[StreamPush]:
        """Return and forget the streams to open."""
        return self._outbox.drain_pushes()

    def stream_done(self, node_id: str, *, is_sent: bool, now: float) -> None:
        """Take note of what became of a stream."""
        self._supply.stream_done(node_id, is_sent=is_sent, now=now)

    def events(self) -> list[Event]:
        """Return and forget what changed, oldest first."""
        if not self._events and not self._directory.changed:
            return []
        events = [*self._events, *map(RecordsChanged, sorted(self._directory.changed))]
        self._events.clear()
        self._directory.changed.clear()
        return events

    def members(self) -> list[MemberView]:
        """Return what is believed of every member, this node first."""
        return report.members(self._membership, self._members)

    def records(self, scope: str) -> Sequence[RecordView]:
        """Return the visible records of a scope this node is attached to, its own included."""
        return self._directory.records(scope)

    def holds(self, scope: str, owner: str, key: str) -> bool:
        """Tell whether a record is visible here."""
        return self._directory.holds(scope, owner, key)

    def peers(self, scope: str) -> Sequence[str]:
        """Return the other members that are up and attached to a scope."""
        return self._directory.peers(scope)

    def logs(self) -> list[LogView]:
        """Return what is held of every owner's log in every scope."""
        return report.logs(self._directory)

    def stored(self, scope: str) -> list[StoredView]:
        """Return every record held in a scope, hidden and deleted ones included."""
        return report.stored(self._directory, scope)

    def positions(self, scope: str) -> Sequence[DigestEntry]:
        """Return how far each owner's log is known in a scope, hidden ones included."""
        return self._summary.entries(scope)

    def own_deltas(self, scope: str) -> list[Delta]:
        """Return all that this node has written in a scope, as anti-entropy would tell it."""
        (mine,) = (e for e in self._summary.entries(scope) if e.owner == self.me.node_id)
        return self._summary.deltas(scope, mine, None, room=None)

    def stats(self) -> GossipStats:
        """Return the counters."""
        return report.stats(
            self.members(),
            directory=self._directory,
            queues=self._queues,
            detector=self._membership.detector,
            counters=self.counters,
        )

    def _go_on_in_epoch(self, epoch: int, now: float) -> None:
        self._keyring.set_epoch(epoch)
        for update in self._directory.raise_epoch(epoch, hlc=self._hybrid.next(now)):
            self._ledger.spread_own(update, now=now)

    def _want_keys(self, now: float) -> None:
        if now >= self._keys_wanted_at:
            self._keys_wanted_at = now + _KEYS_WANTED_S
            self._events.append(KeysWanted())

    def _sweep(self, now: float) -> None:
        self._timers.at(now + _SWEEP_S, self._sweep)
        for scope in sorted(self._directory.collect(now=now)):
            self._ledger.plan_head(scope, now=now)
        self._directory.hollow_dead(now=now)
        self._membership.forget_old(now=now)
