"""Who answers and who does not: SWIM's probes and suspicions with Lifeguard's three parts (pure).

One member is probed each interval: directly, and through helpers when it does not answer soon. A
probe that fails starts a suspicion; the suspicion ends in death unless the member refutes it, the
sooner the more others confirm it. (SWIM, Das et al. 2002; Lifeguard, Dadgar et al. 2017: health
scales interval and timeout, suspicions shrink with confirmations. The third part, telling a suspect
in every packet, is in `outbox`.)

Invariants:
    at most one probe of our own is outstanding;
    a suspicion lasts at least alpha * max(1, log10 n) intervals from its start on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

from gossip.config import GossipConfig
from gossip.member import Member, MemberTable
from gossip.outbox import Outbox
from gossip.stats import Counters
from gossip.timers import Timers
from gossip.wire import Ack, Address, Message, Nack, NackReason, Ping, PingRequest

_RELAYS_MAX = 256
"""Probes made for others at one time; more are not answered."""
_SMOOTHING = 0.125
"""Weight of a new round-trip sample (RFC 6298)."""


@dataclass(slots=True)
class _Probe:
    target: str
    sequence: int
    sent_at: float
    timer: int
    helpers: set[str] = field(default_factory=set[str])
    nacks: set[str] = field(default_factory=set[str])
    is_answered: bool = False


@dataclass(slots=True)
class _Suspicion:
    accusers: set[str]
    started_at: float
    timer: int
    confirmations_wanted: int
    shortest_s: float
    longest_s: float

    @property
    def ends_at(self) -> float:
        return self.started_at + self.lasts_s

    @property
    def lasts_s(self) -> float:
        wanted, found = self.confirmations_wanted, len(self.accusers) - 1
        if wanted < 1:
            return self.shortest_s
        share = math.log(found + 1) / math.log(wanted + 1)
        shrunk = self.longest_s - (self.longest_s - self.shortest_s) * share
        return max(self.shortest_s, shrunk)


class Detector:
    """Probes members and times suspicions; what follows from either is the caller's."""

    def __init__(
        self,
        *,
        config: GossipConfig,
        rng: Random,
        timers: Timers,
        members: MemberTable,
        outbox: Outbox,
        counters: Counters,
        on_failure: Callable[[str, float], None],
        on_death: Callable[[str, float], None],
    ) -> None:
        self.health = 0
        """Lifeguard's score of this node's own health: 0 is healthy."""
        self._config = config
        self._rng = rng
        self._timers = timers
        self._members = members
        self._outbox = outbox
        self._counters = counters
        self._on_failure = on_failure
        self._on_death = on_death
        self._probe: _Probe | None = None
        self._turn: list[str] = []
        self._sequence = rng.getrandbits(32)
        self._relays: dict[int, tuple[int, Address]] = {}
        self._suspicions: dict[str, _Suspicion] = {}
        self._round_trips: dict[str, float] = {}

    def start(self, *, now: float) -> None:
        """Begin to probe."""
        pause = self._rng.uniform(0, self._config.probe_interval_s)
        self._timers.at(now + pause, self._next_probe)

    def stalled(self, lag_s: float, *, now: float) -> None:
        """Take note that this node slept: what it missed says nothing about others."""
        if not self._config.forgives_stalls:
            return
        self._worsen()
        if self._probe is not None:
            self._timers.cancel(self._probe.timer)
            self._probe.is_answered = True
        for node_id, suspicion in self._suspicions.items():
            suspicion.started_at += lag_s
            self._arm(node_id, suspicion, now=now)

    def refuted(self) -> None:
        """Take note that this node had to refute a suspicion: perhaps it is slow itself."""
        self._worsen()

    def suspect(self, node_id: str, accuser: str, *, now: float) -> bool:
        """Start or confirm a suspicion; tell whether the accuser adds anything that matters."""
        if not self.wants(node_id, accuser):
            return False
        held = self._suspicions.get(node_id)
        if held is None:
            self._start_suspicion(node_id, accuser, now=now)
            return True
        held.accusers.add(accuser)
        self._arm(node_id, held, now=now)
        return True

    def wants(self, node_id: str, accuser: str) -> bool:
        """Tell whether the word of `accuser` would add anything that matters."""
        held = self._suspicions.get(node_id)
        if held is None:
            return True
        if not self._config.shrinks_suspicions or accuser in held.accusers:
            return False
        return len(held.accusers) <= held.confirmations_wanted

    def clear(self, node_id: str) -> None:
        """End a suspicion, if there is one."""
        held = self._suspicions.pop(node_id, None)
        if held is not None:
            self._timers.cancel(held.timer)

    def forget(self, node_id: str) -> None:
        """Drop what is remembered of a member that is gone."""
        self.clear(node_id)
        self._round_trips.pop(node_id, None)

    def round_trip_s(self, node_id: str) -> float | None:
        """Return the smoothed round trip of direct probes, if any was answered."""
        return self._round_trips.get(node_id)

    def deadline(self, node_id: str) -> float | None:
        """Return when a suspect is declared dead unless it refutes, as things stand."""
        held = self._suspicions.get(node_id)
        return None if held is None else held.ends_at

    def take_ack(self, ack: Ack, sender: str | None, *, now: float) -> None:
        """Take an answer, to a probe of our own or to one made for another."""
        relay = self._relays.pop(ack.sequence, None)
        if relay is not None:
            sequence, requester = relay
            self._outbox.send(requester, Ack(sequence, ack.incarnation))
            return
        probe = self._probe
        if probe is None or probe.sequence != ack.sequence or probe.is_answered:
            return
        probe.is_answered = True
        self._timers.cancel(probe.timer)
        self.health = max(0, self.health - 1)
        if sender == probe.target:
            sample = now - probe.sent_at
            old = self._round_trips.get(probe.target, sample)
            self._round_trips[probe.target] = old + _SMOOTHING * (sample - old)
        else:
            self._counters.probes_relayed += 1

    def take_nack(self, nack: Nack, sender: str | None) -> None:
        """Take a helper's word that it works but the target did not answer it."""
        probe = self._probe
        if probe is not None and probe.sequence == nack.sequence and sender is not None:
            probe.nacks.add(sender)

    def take_request(self, request: PingRequest, requester: Address, *, now: float) -> None:
        """Probe for another."""
        if len(self._relays) >= _RELAYS_MAX:
            return
        sequence = self._next_sequence()
        self._relays[sequence] = (request.sequence, requester)
        ping = Ping(sequence, request.target)
        self._outbox.send((request.host, request.port), ping, node_id=request.target)
        wait = self._config.probe_timeout_s * self._config.nack_share
        self._timers.at(now + wait, partial(self._give_up_relay, sequence))

    def ping_untracked(self, member: Member, *also: Message) -> None:
        """Ping a member without waiting for the answer."""
        ping = Ping(self._next_sequence(), member.node_id)
        self._outbox.send(member.record.address, ping, *also, node_id=member.node_id)

    def _next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def _worsen(self, by: int = 1) -> None:
        if not self._config.scales_with_health:
            return
        self.health = min(self._config.health_max, self.health + by)

    def _next_probe(self, now: float) -> None:
        self._judge(now)
        self._timers.at(now + self._config.probe_interval_s * (self.health + 1), self._next_probe)
        target = self._next_target()
        if target is None:
            return
        sequence = self._next_sequence()
        wait = self._timeout(target.node_id) * (self.health + 1)
        timer = self._timers.at(now + wait, self._ask_helpers)
        self._probe = _Probe(target.node_id, sequence, now, timer)
        self._counters.probes += 1
        ping = Ping(sequence, target.node_id)
        self._outbox.send(target.record.address, ping, node_id=target.node_id)

    def _judge(self, now: float) -> None:
        probe, self._probe = self._probe, None
        if probe is None or probe.is_answered:
            return
        self._timers.cancel(probe.timer)
        self._counters.probes_failed += 1
        if not probe.helpers or not probe.helpers <= probe.nacks:
            self._worsen(max(1, len(probe.helpers - probe.nacks)))
        member = self._members.get(probe.target)
        if member is not None and member.is_live:
            self._on_failure(probe.target, now)

    def _next_target(self) -> Member | None:
        """Return the next member in a random order that is drawn anew when it is used up."""
        for _ in range(2):
            while self._turn:
                member = self._members.get(self._turn.pop())
                if member is not None and member.is_live:
                    return member
            self._turn = list(self._members.live())
            self._rng.shuffle(self._turn)
        return None

    def _timeout(self, target: str) -> float:
        """Return how long to wait for a direct ack."""
        config = self._config
        known = self._round_trips.get(target)
        if known is None:
            return config.probe_timeout_s
        return min(config.probe_timeout_s, max(config.probe_timeout_min_s, 4 * known))

    def _ask_helpers(self, _now: float) -> None:
        probe = self._probe
        target = None if probe is None else self._members.get(probe.target)
        if probe is None or target is None:
            return
        others = [node_id for node_id in self._members.live() if node_id != probe.target]
        count = min(self._config.indirect_probes, len(others))
        host, port = target.record.address
        request = PingRequest(probe.sequence, probe.target, host, port)
        for node_id in self._rng.sample(others, count):
            helper = self._members.known(node_id)
            probe.helpers.add(node_id)
            self._outbox.send(helper.record.address, request, node_id=node_id)

    def _give_up_relay(self, sequence: int, _now: float) -> None:
        relay = self._relays.pop(sequence, None)
        if relay is not None and self._config.scales_with_health:
            asked, requester = relay
            self._outbox.send(requester, Nack(asked, NackReason.TIMEOUT))

    def _start_suspicion(self, node_id: str, accuser: str, *, now: float) -> None:
        config = self._config
        nodes = len(self._members.live()) + 1  # dead members confirm nothing
        scale = max(1.0, math.log10(nodes)) * config.probe_interval_s
        shortest = max(config.suspicion_floor_s, config.suspicion_multiplier * scale)
        longest = shortest * config.suspicion_max_multiplier
        wanted = max(0, min(config.suspicion_multiplier - 2, nodes - 2))
        if not config.shrinks_suspicions:
            longest, wanted = shortest, 0
        held = _Suspicion({accuser}, now, 0, wanted, shortest, longest)
        self._suspicions[node_id] = held
        self._counters.suspicions += 1
        self._arm(node_id, held, now=now)

    def _arm(self, node_id: str, suspicion: _Suspicion, *, now: float) -> None:
        self._timers.cancel(suspicion.timer)
        ends_at = max(now, suspicion.ends_at)
        suspicion.timer = self._timers.at(ends_at, partial(self._expire, node_id))

    def _expire(self, node_id: str, now: float) -> None:
        del self._suspicions[node_id]
        self._on_death(node_id, now)
