"""Who answers and who does not: SWIM's probes, with Lifeguard's local health (pure).

One member is probed each interval: directly, and through helpers when it does not answer soon or
its host says that nobody listens there. The direct way, an ack shows that somebody at the member's
address had the number in the ping; what helpers pass on is the member's own signature. A probe that
fails starts a suspicion, which ends in death unless the member refutes it (`suspicion`).

A refused packet of any kind starts a check at once: a probe beside the interval's. Two helpers that
were refused as well make it certain enough for a short suspicion, never for death. So that a
refusal comes soon, each node also sends an empty packet to its successor by id every
`watch_interval_s`.

Invariants:
    at most one probe of an interval is outstanding, and one check of a member in an interval;
    refusals leave this node's health as it is, and are never told to others as proof.

Source: SWIM (Das et al. 2002); Lifeguard (Dadgar et al. 2017): health scales interval and timeout.
Its other parts are in `suspicion`, and in `outbox`, which tells a suspect in every packet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

from gossip.config import GossipConfig
from gossip.hearing import Hearing
from gossip.helper import Helper
from gossip.member import Member, MemberTable
from gossip.outbox import Outbox
from gossip.paths import Paths
from gossip.stats import Counters
from gossip.suspicion import Suspicions
from gossip.timers import Timers
from gossip.trust import Check, Trust
from gossip.wire import (
    Ack,
    Address,
    Challenge,
    Message,
    Nack,
    NackReason,
    NodeRecord,
    Ping,
    PingRequest,
    Response,
)

_CHECKS_MAX = 64
"""Checks outstanding; a refusal beyond them waits for the interval's probe."""
_REFUSALS_WANTED = 2
"""Helpers that were refused as well; all of them where there are fewer."""
_NONCE_BITS = 64
"""So many that a liar cannot have the answers signed beforehand, while the member lives."""


@dataclass(slots=True)
class _Probe:
    target: str
    sequence: int
    sent_at: float
    timer: int = 0
    helpers: dict[int, str] = field(default_factory=dict[int, str])
    """By what each has the target sign: none knows the others' numbers, and could answer in their
    name, nor the ping's sequence."""
    are_asked: bool = False
    nacks: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    """Helpers that say that nobody listens there."""
    is_refused: bool = False
    """This node's own packets are."""
    is_answered: bool = False
    is_direct: bool = False
    """The target's own ack came."""
    has_failed: bool = False

    @property
    def is_over(self) -> bool:
        return self.is_answered or self.has_failed

    @property
    def is_corroborated(self) -> bool:
        if not self.helpers:
            return self.is_refused
        return len(self.refused) >= min(_REFUSALS_WANTED, len(self.helpers))


class Detector:
    """Probes members; what follows from a failure or a death is the caller's."""

    __slots__ = (
        "_checks",
        "_config",
        "_counters",
        "_helper",
        "_me",
        "_members",
        "_on_failure",
        "_outbox",
        "_probe",
        "_refuted_at",
        "_rng",
        "_timers",
        "_trust",
        "_turn",
        "_ward",
        "_ward_of",
        "health",
        "hearing",
        "on_probe",
        "paths",
        "suspicions",
    )

    def __init__(
        self,
        *,
        node_id: str,
        config: GossipConfig,
        rng: Random,
        timers: Timers,
        members: MemberTable,
        outbox: Outbox,
        trust: Trust,
        counters: Counters,
        on_failure: Callable[[str, float], None],
        on_death: Callable[[str, float], None],
        on_path: Callable[[str, bool], None],
    ) -> None:
        """`on_path`: a member became, or is no longer, reachable through helpers only."""
        self.on_probe: Callable[[str, float], None] = lambda _node_id, _now: None
        """Called when a member is probed: what else is to be said to it shares the packet.

        Not when only helpers reached it last: it would lose what it is told, five times in a row.
        """
        self.health = 0
        """Lifeguard's score of this node's own health: 0 is healthy."""
        self.hearing = Hearing(deaf_after_s=config.deaf_after_s)
        self.suspicions = Suspicions(
            config=config,
            timers=timers,
            members=members,
            counters=counters,
            hearing=self.hearing,
            on_death=on_death,
        )
        self.paths = Paths(config=config, on_change=on_path)
        self._me = node_id
        self._refuted_at = -config.probe_interval_s
        self._config = config
        self._rng = rng
        self._timers = timers
        self._members = members
        self._outbox = outbox
        self._trust = trust
        self._counters = counters
        self._on_failure = on_failure
        self._helper = Helper(config=config, timers=timers, members=members, outbox=outbox)
        self._probe: _Probe | None = None
        self._checks: dict[str, _Probe] = {}
        self._turn: list[str] = []
        self._ward: str | None = None
        """The successor by id, as of `_ward_of`."""
        self._ward_of = -1
        """The version of the members."""

    def start(self, *, now: float) -> None:
        """Begin to probe."""
        first = now + self._rng.uniform(0, self._config.probe_interval_s)
        self._timers.at(first, self._next_probe)
        if self._config.watch_interval_s is not None:
            self._timers.at(first, self._watch)  # a healthy node wakes once for both

    def stalled(self, lag_s: float, *, now: float) -> None:
        """Take note that this node slept: what it missed says nothing about others."""
        if not self._config.forgives_stalls:
            return
        self.hearing.slept(lag_s)
        self._worsen()
        for probe in self._outstanding():
            self._timers.cancel(probe.timer)
        self._probe = None
        self._checks.clear()
        self.suspicions.postpone(lag_s, now=now)

    def refuted(self, *, now: float) -> None:
        """Take note that this node had to refute a suspicion: perhaps it is slow itself.

        Once for each probe is enough: a liar that accuses it all the time would make it probe ever
        more slowly, while an answer makes up for one.
        """
        if now >= self._refuted_at + self._config.probe_interval_s * (self.health + 1):
            self._refuted_at = now
            self._worsen()

    def forget(self, node_id: str, *, now: float) -> None:
        """Drop what is remembered of a member that is gone."""
        self.suspicions.forget(node_id, now=now)
        self.paths.forget(node_id)

    def take_ack(self, ack: Ack, sender: str | None, *, now: float) -> None:
        """Take a member's answer to a ping."""
        probe = self._by_sequence(ack.sequence)
        if probe is None or probe.has_failed or sender != probe.target:
            return
        if not probe.is_direct:
            probe.is_direct = True
            self.paths.measured(probe.target, now - probe.sent_at)
        self._answered(probe)

    def take_response(self, response: Response, *, now: float) -> None:
        """Take a member's signature, to a probe of our own or to one made for another."""
        if self._helper.take_response(response):
            return
        probe = self._by_nonce(response.sequence)
        if probe is None or probe.is_over:
            return
        member = self._members.get(probe.target)
        if member is None or member.record.epoch != response.epoch:
            return
        if self._trust.check_response(response, probe.target, now=now) is Check.PASSED:
            self._counters.probes_relayed += 1
            self._answered(probe)

    def take_nack(self, nack: Nack, sender: str | None, *, now: float) -> None:
        """Take a helper's word that it works but the target did not answer it."""
        probe = self._by_nonce(nack.sequence)
        if probe is None or sender is None or probe.helpers[nack.sequence] != sender:
            return
        probe.nacks |= {sender}
        if nack.reason is NackReason.REFUSED:
            probe.refused |= {sender}
            self._settle_refused(probe, now=now)

    def take_request(self, request: PingRequest, requester: Address, *, now: float) -> None:
        """Probe for another."""
        self._helper.take_request(request, requester, self._next_sequence(), now=now)

    def take_refusal(self, address: Address, *, now: float) -> None:
        """Take the word of a host, or of a forger, that nobody listens at `address`."""
        self._counters.refusals += 1
        self._helper.take_refusal(address)
        for node_id in self._members.live_at(address):
            self._refused(node_id, now=now)

    def challenge(self, target: NodeRecord, *also: Message, is_helped: bool) -> int:
        """Have a node sign a number, and tell it something; return the number.

        `is_helped`: others are to ask it, too.
        """
        nonce = self._rng.getrandbits(_NONCE_BITS)
        node_id = target.node_id
        challenge = Challenge(nonce, node_id, nonce)
        self._outbox.send(target.address, *also, challenge, node_id=node_id)
        for helper in self._some_but(node_id) if is_helped else ():
            self._request(helper, target, nonce)
        return nonce

    def ping_untracked(self, member: Member, *also: Message) -> None:
        """Ping a member without waiting for the answer."""
        ping = Ping(self._next_sequence(), member.node_id)
        self._outbox.send(member.address, ping, *also, node_id=member.node_id)

    def _outstanding(self) -> list[_Probe]:
        probes = list(self._checks.values())
        return probes if self._probe is None else [self._probe, *probes]

    def _by_sequence(self, sequence: int) -> _Probe | None:
        probe = self._probe
        if probe is not None and probe.sequence == sequence:
            return probe
        return next((p for p in self._checks.values() if p.sequence == sequence), None)

    def _by_nonce(self, nonce: int) -> _Probe | None:
        return next((p for p in self._outstanding() if nonce in p.helpers), None)

    def _answered(self, probe: _Probe) -> None:
        if probe.is_answered:
            return
        probe.is_answered = True
        if probe is self._probe:
            self._timers.cancel(probe.timer)
            self.health = max(0, self.health - 1)

    def _next_sequence(self) -> int:
        """Return a number that cannot be guessed: an ack that was forged would keep the dead up."""
        return self._rng.getrandbits(32)

    def _worsen(self) -> None:
        if self._config.scales_with_health:
            self.health = min(self._config.health_max, self.health + 1)

    def _next_probe(self, now: float) -> None:
        self._judge(now)
        self._timers.at(now + self._interval_s(), self._next_probe)
        target = self._next_target()
        if target is None:
            return
        probe = self._probe = self._begin(target, now=now)
        wait_s = self.paths.timeout_s(target.node_id) * (self.health + 1)
        probe.timer = self._timers.at(now + wait_s, partial(self._ask_helpers, probe))
        self._counters.probes += 1
        if not self.paths.was_relayed(target.node_id):
            self.on_probe(target.node_id, now)

    def _interval_s(self) -> float:
        return self._config.probe_interval_s * (self.health + 1)

    def _begin(self, target: Member, *, now: float) -> _Probe:
        probe = _Probe(target.node_id, self._next_sequence(), now)
        ping = Ping(probe.sequence, target.node_id)
        self._outbox.send(target.address, ping, node_id=target.node_id)
        return probe

    def _judge(self, now: float) -> None:
        probe, self._probe = self._probe, None
        if probe is None:
            return
        self._timers.cancel(probe.timer)
        if probe.is_answered:
            if self.paths.answered(probe.target, is_direct=probe.is_direct):
                self._turn.append(probe.target)  # once more: was it only a lost packet?
            return
        self._counters.probes_failed += 1
        if probe.has_failed:
            return
        if not probe.helpers or not probe.nacks.issuperset(probe.helpers.values()):
            self._worsen()
        self._fail(probe, now=now)

    def _fail(self, probe: _Probe, *, now: float) -> None:
        probe.has_failed = True
        self._timers.cancel(probe.timer)
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

    def _ask_helpers(self, probe: _Probe, _now: float) -> None:
        target = self._members.get(probe.target)
        if target is None or probe.are_asked:
            return
        probe.are_asked = True
        for helper in self._some_but(probe.target):
            nonce = self._rng.getrandbits(_NONCE_BITS)
            probe.helpers[nonce] = helper
            self._request(helper, target.record, nonce)

    def _some_but(self, target: str) -> list[str]:
        """Return members that may help with another."""
        others = [node_id for node_id in self._members.live() if node_id != target]
        return self._rng.sample(others, min(self._config.indirect_probes, len(others)))

    def _request(self, helper: str, target: NodeRecord, nonce: int) -> None:
        """Ask a member to have a node sign a number."""
        request = PingRequest(nonce, target.node_id, *target.address)
        self._outbox.send(self._members.known(helper).address, request, node_id=helper)

    def _refused(self, node_id: str, *, now: float) -> None:
        probe = self._probe
        if probe is None or probe.target != node_id or probe.is_answered:
            probe = self._checks.get(node_id) or self._check(node_id, now=now)
        if probe is None or probe.is_over or probe.is_refused:
            return
        probe.is_refused = True
        self._ask_helpers(probe, now)
        self._settle_refused(probe, now=now)

    def _check(self, node_id: str, *, now: float) -> _Probe | None:
        """Probe a member out of turn, if a refusal of it says anything new."""
        if len(self._checks) >= _CHECKS_MAX or self.paths.is_relay_only(node_id):
            return None
        if not self.suspicions.may_shorten(node_id, now=now):
            return None
        check = self._checks[node_id] = self._begin(self._members.known(node_id), now=now)
        check.timer = self._timers.at(now + self._interval_s(), partial(self._end_check, check))
        return check

    def _end_check(self, check: _Probe, now: float) -> None:
        del self._checks[check.target]
        if not check.is_over:
            self._fail(check, now=now)

    def _settle_refused(self, probe: _Probe, *, now: float) -> None:
        if probe.is_over or not probe.is_corroborated:
            return
        is_check = probe is not self._probe
        probe.has_failed = True
        if not is_check:
            self._timers.cancel(probe.timer)
        member = self._members.get(probe.target)
        if member is not None and member.is_live:
            self._on_failure(probe.target, now)
            self.suspicions.shorten(probe.target, now=now)

    def _watch(self, now: float) -> None:
        """Send the successor by id an empty packet: a refusal is all that may come back."""
        interval_s = self._config.watch_interval_s
        if interval_s is None:
            return
        self._timers.at(now + interval_s, self._watch)
        if self._ward_of != self._members.version:
            self._ward_of = self._members.version
            live = self._members.live()
            after = [node_id for node_id in live if node_id > self._me]
            self._ward = min(after or live, default=None)
        if self._ward is not None:
            address = self._members.known(self._ward).address
            self._outbox.send(address, node_id=self._ward)
