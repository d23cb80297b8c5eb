"""What to do with what is said about members, this node included (pure).

Joins the order of claims (`member`), the detector, dissemination and the directory: a record or a
claim comes in, the view changes, and what is new is passed on. A DEAD heard from another is one
more accusation; only the own timer declares a member dead. Signatures have been checked (`notary`)
of whatever `is_news`.

Invariants:
    this node raises its own incarnation and epoch, nobody else's;
    an accusation of a member is never answered with an accusation;
    a removed node is never ALIVE, and accuses nobody.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from random import Random

from gossip.broadcast import Rank
from gossip.budget import Budgets
from gossip.config import GossipConfig
from gossip.directory import Directory
from gossip.events import EpochRaised, Event, MemberChanged, PathChanged, Removed
from gossip.failure import Detector
from gossip.member import MemberTable, Verdict
from gossip.outbox import Outbox
from gossip.removal import Removal
from gossip.spread import Spread
from gossip.stats import Counters
from gossip.timers import Timers
from gossip.trust import Trust
from gossip.wire import NODES, Address, CertificateOffer, Claim, NodeRecord, State

_REMIND_PAUSE_S = 1.0
"""How often one member is told, where it speaks from, what is held against it: whoever speaks in
its name from elsewhere does not keep that from it."""
_EPOCH_PAUSE_S = 30.0
"""How often this node outbids another that uses its id."""
_NEWCOMER_S = 1.0
"""A node that has just found the cluster does not pass on who else is in it: others know it, or
learn it by anti-entropy. When 60 join at once, passing on would be most of the work."""
_INCARNATION_MAX = 2**32 - 2


class Membership:
    """One node's dealings with members."""

    __slots__ = (
        "_config",
        "_counters",
        "_directory",
        "_epoch_raised_at",
        "_events",
        "_hlc",
        "_is_reconnecting",
        "_members",
        "_on_epoch",
        "_on_return",
        "_outbox",
        "_reminded",
        "_retry",
        "_rng",
        "_spread",
        "_timers",
        "_trust",
        "detector",
        "has_left",
        "me",
        "met_at",
        "removal",
        "since",
    )

    def __init__(
        self,
        *,
        me: NodeRecord,
        trust: Trust,
        config: GossipConfig,
        rng: Random,
        timers: Timers,
        members: MemberTable,
        directory: Directory,
        outbox: Outbox,
        spread: Spread,
        counters: Counters,
        events: list[Event],
        hlc: Callable[[float], int],
        on_epoch: Callable[[int, float], None],
        on_return: Callable[[str, float], None],
    ) -> None:
        """`on_return`: is told of members that were dead and are back."""
        self.me = me
        self.has_left = False
        self.since = 0.0
        self.met_at = -math.inf
        """When this node found the cluster."""
        self.detector = Detector(
            node_id=me.node_id,
            config=config,
            rng=rng,
            timers=timers,
            members=members,
            outbox=outbox,
            trust=trust,
            counters=counters,
            on_failure=self._probe_failed,
            on_death=self._suspicion_expired,
            on_path=lambda node_id, is_bad: events.append(PathChanged(node_id, is_bad)),
        )
        self.removal = Removal(
            timers=timers,
            members=members,
            outbox=outbox,
            spread=spread,
            is_manager=lambda: trust.own.is_manager,
            claim=self._claim,
            on_left=self._gone,
        )
        self._trust = trust
        self._config = config
        self._rng = rng
        self._timers = timers
        self._members = members
        self._directory = directory
        self._outbox = outbox
        self._spread = spread
        self._counters = counters
        self._events = events
        self._hlc = hlc
        self._on_epoch = on_epoch
        self._on_return = on_return
        self._reminded = Budgets(rate=1 / _REMIND_PAUSE_S, most=1)
        self._retry: dict[str, tuple[float, float]] = {}
        self._is_reconnecting = False
        """Whether a timer is set to try a dead member."""
        self._epoch_raised_at = -_EPOCH_PAUSE_S

    def start(self, advertise: Address, *, now: float) -> None:
        """Begin to probe and to look for dead members that came back."""
        host, port = advertise
        self.me = self._trust.sign_node(replace(self.me, host=host, port=port, hlc=self._hlc(now)))
        self.since = now
        self.detector.start(now=now)

    def announce(self, *, now: float) -> None:
        """Tell others about this node."""
        self._spread.put(NODES, Rank.SELF, ("node", self.me.node_id), self.me, now=now)

    def is_news(self, said: NodeRecord | Claim) -> bool:
        """Tell whether taking a record or a claim would change anything."""
        if isinstance(said, NodeRecord):
            if said.node_id == self.me.node_id:
                return self._is_rival(said)
            return self._members.judge_record(said) is Verdict.NEW
        if said.subject == self.me.node_id:
            return self._is_about_now(said)
        verdict = self._members.judge(said)
        if verdict in {Verdict.STALE, Verdict.AHEAD}:
            return False
        if said.state is State.LEFT or (said.state is State.DEAD and self._believes(said)):
            return verdict is Verdict.NEW
        return self._counts(said)

    def would_raise(self, record: NodeRecord) -> bool:
        """Tell whether a record that is news brings up a node that is unknown or not up."""
        if record.node_id in self.removal or record.node_id == self.me.node_id:
            return False
        held = self._members.get(record.node_id)
        if held is None:
            return True
        return not held.is_live and (held.state is State.DEAD or record.epoch > held.record.epoch)

    def renew(self, *, now: float) -> None:
        """Sign this node's record anew: its certificate is another."""
        self._refute(self.me.incarnation, now=now)

    def take_record(self, record: NodeRecord, source: Address, *, now: float, relay: bool) -> None:
        """Take a member's own word, which came from `source`."""
        if record.node_id == self.me.node_id:
            self._take_own_record(record, now=now)
            return
        held = self._members.get(record.node_id)
        was_dead = held is not None and held.state is State.DEAD
        match self._members.put_record(record, now=now):
            case Verdict.NEW:
                self.detector.suspicions.clear(record.node_id, now=now)
                self._retry.pop(record.node_id, None)
                if record.node_id in self.removal:
                    self._counters.refused_removed += 1
                    self.removal.expel(record.node_id, now=now)
                    return
                self._changed(record.node_id)
                if was_dead:
                    self._on_return(record.node_id, now)
                if relay and now >= self.met_at + _NEWCOMER_S:
                    self._relay(record, ("node", record.node_id), now=now)
            case Verdict.STALE:
                self.remind(record.node_id, record.epoch, source, now=now)
            case Verdict.KNOWN | Verdict.AHEAD:
                pass

    def take_claim(self, claim: Claim, source: Address, *, now: float, relay: bool) -> Verdict:
        """Take an accusation or a departure. AHEAD: pull the subject's record first."""
        if claim.subject == self.me.node_id:
            self._take_own_claim(claim, source, now=now)
            return Verdict.KNOWN
        verdict = self._members.judge(claim)
        if verdict is Verdict.AHEAD and claim.subject in self.removal:
            return Verdict.KNOWN
        if verdict in {Verdict.STALE, Verdict.AHEAD}:
            return verdict
        if claim.state is State.LEFT or (claim.state is State.DEAD and self._believes(claim)):
            if verdict is Verdict.NEW:
                self._settle(claim, now=now)
                if relay:
                    self._relay(claim, ("node", claim.subject), now=now)
            return verdict
        if self._counts(claim):
            self._accuse(claim, now=now, relay=relay)
        return verdict

    def remind(self, node_id: str, epoch: int, source: Address, *, now: float) -> None:
        """Tell a member that speaks as `epoch` what is held of it.

        So it refutes an accusation or, having lost its disk and its clock, outbids an earlier life.
        The certificate of that life comes along: nothing that it asked for would be answered.
        """
        held = self._members.get(node_id)
        host, port = source
        if held is None or not self._reminded.take(f"{node_id} {host} {port}", now=now):
            return
        if not self._outbox.may_answer(source, now=now):
            return
        if epoch >= held.record.epoch:
            self._outbox.send(source, held.claim or held.record)
            return
        certificate = self._trust.certificate(held.record.fingerprint)
        if certificate is not None:
            self._outbox.send(source, CertificateOffer(certificate.der))
        self._outbox.send(source, held.record)

    def leave(self, *, now: float) -> None:
        """Say that this node leaves; nothing refutes that but a restart."""
        if self.has_left:
            return
        self.has_left = True
        claim = self._claim(State.LEFT, self.me)
        self._spread.put(NODES, Rank.SELF, ("node", self.me.node_id), claim, now=now)
        self._changed(self.me.node_id)

    def forget_old(self, *, now: float) -> None:
        """Forget members that are long gone."""
        then = now - self._config.member_tombstone_s
        for node_id in self._members.forget_before(then):
            self.detector.forget(node_id, now=now)
            self._retry.pop(node_id, None)
            self._directory.member_changed(node_id)

    def _go_on_in_epoch(self, epoch: int, *, now: float) -> None:
        """Begin a newer life of this node, without a restart."""
        hlc = self._hlc(now)
        self.me = self._trust.sign_node(replace(self.me, epoch=epoch, incarnation=0, hlc=hlc))
        self._events.append(EpochRaised(epoch))
        self._on_epoch(epoch, now)
        self.announce(now=now)

    def _take_own_record(self, record: NodeRecord, *, now: float) -> None:
        """Outbid another node, or an earlier life, that speaks in this node's name."""
        if not self._is_rival(record):
            return
        self._counters.identity_conflicts += 1
        if record.epoch == self.me.epoch and record.incarnation < _INCARNATION_MAX:
            self._refute(record.incarnation, now=now)
        elif now >= self._epoch_raised_at + _EPOCH_PAUSE_S and record.epoch < 2**63:
            self._epoch_raised_at = now
            self._go_on_in_epoch(record.epoch + 1, now=now)

    def _take_own_claim(self, claim: Claim, source: Address, *, now: float) -> None:
        if self.has_left or claim.epoch > self.me.epoch:
            return
        if claim.epoch < self.me.epoch:
            self._answer_with_me(source, now=now)
            return
        if claim.state is State.LEFT:
            self.has_left = True
            self._changed(self.me.node_id)
            self._events.append(Removed())
        elif claim.incarnation == self.me.incarnation:
            self._counters.refutations += 1
            self.detector.refuted(now=now)
            self._refute(claim.incarnation, now=now)
        if not self.has_left:  # whoever says so may be nobody's peer: answer it directly
            self._answer_with_me(source, now=now)

    def _answer_with_me(self, source: Address, *, now: float) -> None:
        if self._outbox.may_answer(source, now=now):
            self._outbox.send(source, self.me)

    def _refute(self, incarnation: int, *, now: float) -> None:
        fresh = replace(self.me, incarnation=incarnation + 1, hlc=self._hlc(now))
        self.me = self._trust.sign_node(fresh)
        self.announce(now=now)

    def _believes(self, claim: Claim) -> bool:
        return self._config.believes_deaths and self._is_witness(claim.accuser)

    def _is_witness(self, node_id: str) -> bool:
        """Tell whether a node's accusations count: only those of members that are up do.

        The number of confirmations that a suspicion wants is taken from these as well.
        """
        member = self._members.get(node_id)
        return member is not None and member.is_live

    def _is_rival(self, record: NodeRecord) -> bool:
        """Tell whether another node, or an earlier life, must be outbid."""
        theirs, mine = (record.epoch, record.incarnation), (self.me.epoch, self.me.incarnation)
        return not self.has_left and theirs >= mine and record != self.me

    def _is_about_now(self, claim: Claim) -> bool:
        """Tell whether a claim about this node is about its present life."""
        if self.has_left or claim.epoch != self.me.epoch:
            return False
        return claim.state is State.LEFT or claim.incarnation == self.me.incarnation

    def _counts(self, claim: Claim) -> bool:
        """Tell whether an accusation matters: only a witness's does, and not when it is repeated.

        This node knows its own.
        """
        subject = self._members.get(claim.subject)
        if subject is None or not subject.is_live or claim.accuser == self.me.node_id:
            return False
        return self._is_witness(claim.accuser) and self.detector.suspicions.wants(claim)

    def _accuse(self, claim: Claim, *, now: float, relay: bool) -> None:
        held = self._members.known(claim.subject)
        is_news = self.detector.suspicions.suspect(claim.subject, claim.accuser, now=now)
        if claim.state is State.DEAD and self.detector.suspicions.is_first_echo(claim.subject):
            self.detector.ping_untracked(held)  # perhaps it is refused here as well
        if not is_news:
            return
        if held.state is State.ALIVE:
            self._members.put_claim(claim, now=now, state=State.SUSPECT)
            self._changed(claim.subject)
        if relay:
            self._relay(claim, ("claim", claim.subject, claim.accuser), now=now)

    def _probe_failed(self, node_id: str, now: float) -> None:
        if not self.detector.suspicions.suspect(node_id, self.me.node_id, now=now):
            return
        claim = self._claim(State.SUSPECT, self._members.known(node_id).record)
        if self._members.put_claim(claim, now=now) is Verdict.NEW:
            self._changed(node_id)
        name = ("claim", node_id, self.me.node_id)
        self._spread.put(NODES, Rank.ACCUSATION, name, claim, now=now)

    def _suspicion_expired(self, node_id: str, now: float) -> None:
        held = self._members.get(node_id)
        if held is None or not held.is_live:
            return
        self._counters.deaths += 1
        claim = self._claim(State.DEAD, held.record)
        self._settle(claim, now=now)
        name = ("claim", node_id, self.me.node_id)
        self._spread.put(NODES, Rank.ACCUSATION, name, claim, now=now)

    def _settle(self, claim: Claim, *, now: float) -> None:
        """Take a claim that is final until the member speaks again."""
        self._members.put_claim(claim, now=now)
        self._gone(claim.subject, now)
        if claim.state is State.DEAD and not self._is_reconnecting:
            self._plan_reconnect(now)

    def _gone(self, node_id: str, now: float) -> None:
        self.detector.suspicions.clear(node_id, now=now)
        self._changed(node_id)

    def _claim(self, state: State, record: NodeRecord) -> Claim:
        subject = (record.node_id, record.epoch, record.incarnation)
        return self._trust.sign_claim(Claim(state, *subject, self.me.node_id, self.me.epoch))

    def _relay(self, message: NodeRecord | Claim, name: tuple[str, ...], *, now: float) -> None:
        self._spread.put(NODES, Rank.RELAYED_MEMBERSHIP, name, message, now=now)

    def _changed(self, node_id: str) -> None:
        if node_id == self.me.node_id:
            state = State.LEFT if self.has_left else State.ALIVE
        else:
            member = self._members.known(node_id)
            self._directory.member_changed(node_id)
            was_left, state, member.told = member.told is State.LEFT, member.state, member.state
            if was_left and state is State.LEFT:
                return  # one more life of a removed node
        self._events.append(MemberChanged(node_id, state))

    def _plan_reconnect(self, now: float) -> None:
        self._is_reconnecting = True
        self._timers.at(now + self._config.reconnect_interval_s, self._reconnect)

    def _reconnect(self, now: float) -> None:
        """Try one dead member whose turn has come, as long as there are any."""
        dead = [member for member in self._members.gone() if member.state is State.DEAD]
        if not dead or self.has_left:
            self._is_reconnecting = False
            return
        self._plan_reconnect(now)
        due = [member for member in dead if now >= self._retry.get(member.node_id, (0, 0))[0]]
        if due:
            member = self._rng.choice(due)
            pause = self._retry.get(member.node_id, (0.0, self._config.reconnect_interval_s))[1]
            after = min(2 * pause, self._config.reconnect_max_s)
            self._retry[member.node_id] = (now + pause, after)
            self.detector.ping_untracked(member)
