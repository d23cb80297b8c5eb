"""Anti-entropy: two nodes compare what they know of a scope and exchange what differs (pure).

A round begins with a digest, of everything if that is short, else one hash. Where hashes differ,
hashes of 64 buckets follow, then the entries of the buckets that differ, then the records. Every
answer is of a later stage than its question, so no exchange lasts longer than four packets each
way. A round that comes to nothing, because a packet was lost or a member is silent, is soon
repeated with another.

Invariant: records learned here are not disseminated again (a join with 10,000 records makes no
storm).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from random import Random

from gossip.budget import Budget, Budgets
from gossip.config import GossipConfig
from gossip.digest import (
    ALL_BUCKETS,
    BUCKETS,
    HASH_BYTES,
    Lead,
    Summary,
    compare,
    is_live,
)
from gossip.directory import Directory
from gossip.member import MemberTable
from gossip.outbox import Outbox
from gossip.stats import Counters
from gossip.supply import DATAGRAMS_MAX, Gap, Supply
from gossip.timers import Timers
from gossip.trust import Trust
from gossip.wire import (
    NODES,
    Address,
    CertificateOffer,
    Delta,
    Digest,
    DigestEntry,
    NodeRecord,
    Stage,
    Stamp,
    State,
)

_ENTRY_BYTES = 64
"""Rough size of an encoded digest entry."""
_FEW_ENTRIES = 6
"""Up to so many entries are sent at once instead of their hash."""
_WHOLE_PAUSE_S = 20.0
_WHOLE_BURST = 3.0
"""How often one log is asked for anew because a part does not fit: an owner that contradicts itself
may say so in few bytes, and its log may have megabytes."""
_DIGEST_UNITS = 0.2
_OWNERS_PER_UNIT = 256
"""What it takes to answer a digest (`Outbox.may_answer`)."""
_REPEATS_MAX = 3
"""Repetitions of a round without an answer, after 1/2, 1 and 2 shortest intervals."""
_REPEATS_PER_S = 10.0
_REPEATS_BURST = 20.0
"""In all scopes: whoever hears nobody in hundreds of networks hardly sends more than otherwise."""


@dataclass(slots=True)
class _Schedule:
    interval_s: float
    timer: int
    next_at: float
    greeting_until: float = -math.inf
    """Extra rounds for members that came back are under way until then."""
    extra_asked: tuple[str, ...] = ()
    """Whom the latest extra rounds asked."""
    asked: tuple[str, ...] = ()
    """Whom the latest round of any kind asked, and its repetitions."""
    repeat: int = 0
    """The timer of what follows if none of them answers."""


class Syncer:
    """One node's part in anti-entropy."""

    def __init__(
        self,
        *,
        config: GossipConfig,
        rng: Random,
        timers: Timers,
        members: MemberTable,
        directory: Directory,
        summary: Summary,
        supply: Supply,
        trust: Trust,
        outbox: Outbox,
        counters: Counters,
    ) -> None:
        self._bootstrap: tuple[Address, ...] = ()
        self._config = config
        self._slack_s = config.probe_interval_s / 2
        """A round may come so much before or after its time, to share a packet with a probe."""
        self._rng = rng
        self._timers = timers
        self._members = members
        self._directory = directory
        self._summary = summary
        self._supply = supply
        self._trust = trust
        self._outbox = outbox
        self._counters = counters
        self._schedules: dict[str, _Schedule] = {}
        self._repeats = Budget(rate=_REPEATS_PER_S, most=_REPEATS_BURST)
        self._pulled = Budgets(rate=1.0, most=1.0)
        """By address."""
        self._pulled_whole = Budgets(rate=1 / _WHOLE_PAUSE_S, most=_WHOLE_BURST)
        """By scope and owner."""
        self._lost: list[Address] = []
        self._lost_at = -1

    @property
    def bootstrap(self) -> tuple[Address, ...]:
        """Where to look for the cluster."""
        return self._bootstrap

    @bootstrap.setter
    def bootstrap(self, addresses: tuple[Address, ...]) -> None:
        self._bootstrap = addresses
        self._lost_at = -1

    def start(self, scope: str, *, now: float) -> None:
        """Begin rounds in a scope, the first ones soon and with different peers."""
        self._schedules[scope] = _Schedule(self._config.sync_interval_s, 0, now)
        self._arm(scope, now=now)
        self.ask_many(scope, now=now)

    def ask_many(self, scope: str, *, now: float) -> None:
        """Add a few rounds soon: there is much to learn."""
        for pause in (0.0, *self._config.sync_extra_s):
            self._timers.at(now + pause, partial(self._extra_round, scope))

    def stop(self, scope: str) -> None:
        """End rounds in a scope."""
        schedule = self._schedules.pop(scope, None)
        if schedule is not None:
            self._timers.cancel(schedule.timer)
            self._timers.cancel(schedule.repeat)
        self._summary.forget(scope)

    def hurry(self, scope: str, *, now: float) -> None:
        """Take note that something changed in a scope: rounds come at their shortest interval."""
        schedule = self._schedules.get(scope)
        if schedule is None:
            return
        schedule.interval_s = self._config.sync_interval_s
        if schedule.next_at > now + 1.2 * schedule.interval_s:
            self._arm(scope, now=now)

    def greet(self, node_id: str, *, now: float) -> None:
        """Compare soon, with it or others: a member was away, and both may have missed something.

        However many come back together, the extra rounds are those of one.
        """
        for scope in sorted(self._directory.scopes_shared_with(node_id)):
            self.hurry(scope, now=now)
            schedule = self._schedules.get(scope)
            if schedule is not None and now >= schedule.greeting_until:
                schedule.greeting_until = now + self._config.sync_extra_s[-1]
                self.ask_many(scope, now=now)

    def ride(self, node_id: str, now: float) -> None:
        """Bring rounds forward that are due about now: a packet goes to a member anyway."""
        soon = now + self._slack_s
        due = [scope for scope, schedule in self._schedules.items() if schedule.next_at <= soon]
        for scope in due:
            self._round(scope, now, node_id)

    def answered(self, scope: str, node_id: str | None) -> None:
        """Take note that a member has said what it knows of a scope: no round is repeated."""
        schedule = self._schedules.get(scope)
        if schedule is not None and node_id in schedule.asked:
            self._timers.cancel(schedule.repeat)

    def contact(self, address: Address, me: NodeRecord) -> None:
        """Begin an exchange of members with whoever listens at `address`."""
        own = CertificateOffer(self._trust.own.der)
        self._outbox.send(address, own, me, self._opening(NODES))

    def pull(self, address: Address, me: NodeRecord, *, now: float) -> None:
        """As `contact`, at most once a second for one address."""
        host, port = address
        is_due = self._pulled.take(f"{host} {port}", now=now)
        if is_due and self._outbox.may_answer(address, now=now):
            self.contact(address, me)

    def pull_whole(self, delta: Delta, address: Address, *, now: float) -> None:
        """Ask for the whole log that a delta is of, now and then: a part of it does not fit."""
        if self._pulled_whole.take(f"{delta.scope} {delta.owner}", now=now):
            entry = DigestEntry(delta.owner, delta.stamp, 0, 0)
            self._outbox.send(address, Digest(delta.scope, Stage.PULL, 0, b"", (entry,)))

    def try_lost(self, me: NodeRecord) -> bool:
        """Contact a dead member, or a bootstrap address where nobody known lives.

        Tells whether there is one.
        """
        if self._lost_at != self._members.version:
            self._lost_at = self._members.version
            members = self._members.all()
            known = {me.address, *(m.address for m in members if m.is_live)}
            dead = [m.address for m in members if m.state is State.DEAD]
            self._lost = [a for a in (*dead, *self.bootstrap) if a not in known]
        if self._lost:
            self.contact(self._rng.choice(self._lost), me)
        return bool(self._lost)

    def take_digest(
        self, digest: Digest, source: Address, sender: str | None, *, now: float
    ) -> None:
        """Answer a digest."""
        if not self._directory.is_attached(digest.scope):
            return
        if digest.stage is not Stage.COMPARE:  # that may be a round of its own
            self.answered(digest.scope, sender)
        if digest.stage is Stage.EQUAL:
            self._counters.syncs_equal += 1
            self._back_off(digest.scope)
            return
        units = _DIGEST_UNITS
        if len(digest.hashes) != HASH_BYTES:
            units += self._summary.count(digest.scope) / _OWNERS_PER_UNIT
        if not self._outbox.may_answer(source, units, now=now):
            return
        answers, gaps = self._compare(digest)
        if all(answer.stage is Stage.EQUAL for answer in answers):  # it has no more to say
            self.answered(digest.scope, sender)
        self._outbox.send(source, *answers, node_id=sender)
        if gaps:
            self._supply.fill(digest.scope, gaps, source, sender, now=now)

    def _arm(self, scope: str, *, now: float) -> None:
        schedule = self._schedules[scope]
        self._timers.cancel(schedule.timer)
        schedule.next_at = now + schedule.interval_s * self._rng.uniform(0.8, 1.2)
        latest = schedule.next_at + self._slack_s
        schedule.timer = self._timers.at(latest, partial(self._round, scope))

    def _back_off(self, scope: str) -> None:
        schedule = self._schedules.get(scope)
        if schedule is not None:
            longest = self._config.sync_interval_max_s
            schedule.interval_s = min(2 * schedule.interval_s, longest)

    def _round(self, scope: str, now: float, probed: str | None = None) -> None:
        """Ask the member that is probed just now, a random one already, or another at random."""
        self._arm(scope, now=now)
        peers = self._directory.peers(scope)
        if probed is not None and self._directory.attachment(probed, scope) is not None:
            self._ask(scope, probed, now=now)
        elif peers:
            self._ask(scope, self._rng.choice(peers), now=now)

    def _extra_round(self, scope: str, now: float) -> None:
        schedule = self._schedules.get(scope)
        if schedule is None:
            return
        asked = schedule.extra_asked
        peers = [node_id for node_id in self._directory.peers(scope) if node_id not in asked]
        if peers:
            peer = self._rng.choice(peers)
            schedule.extra_asked = (*asked, peer)[-len(self._config.sync_extra_s) :]
            self._ask(scope, peer, now=now)

    def _repeat_round(self, scope: str, repeats: int, now: float) -> None:
        """Ask another member than those that did not answer, if there is another."""
        asked = self._schedules[scope].asked
        peers = self._directory.peers(scope)
        others = [node_id for node_id in peers if node_id not in asked] or peers
        if others and self._repeats.take(1.0, now=now):
            self._counters.syncs_repeated += 1
            self._ask(scope, self._rng.choice(others), now=now, repeats=repeats)

    def _ask(self, scope: str, node_id: str, *, now: float, repeats: int = 0) -> None:
        """Begin a round; it is the so-many-th repetition of one that was not answered."""
        member = self._members.known(node_id)
        schedule = self._schedules[scope]
        self._timers.cancel(schedule.repeat)
        schedule.asked = (*schedule.asked, node_id) if repeats else (node_id,)
        if repeats < _REPEATS_MAX:
            again_at = now + self._config.sync_interval_s / 2 * 2**repeats
            again = partial(self._repeat_round, scope, repeats + 1)
            schedule.repeat = self._timers.at(again_at, again)
        self._counters.syncs += 1
        self._outbox.send(member.address, self._opening(scope), node_id=node_id)

    def _opening(self, scope: str) -> Digest:
        if self._summary.count(scope) <= _FEW_ENTRIES:
            entries = self._summary.entries(scope)
            return Digest(scope, Stage.COMPARE, ALL_BUCKETS, b"", entries)
        return Digest(scope, Stage.COMPARE, 0, self._summary.total(scope))

    def _compare(self, digest: Digest) -> tuple[list[Digest], list[Gap]]:
        """Return the digests that answer, and what the peer lacks."""
        if digest.hashes:
            return [self._compare_hashes(digest)], []
        return self._compare_entries(digest)

    def _compare_hashes(self, digest: Digest) -> Digest:
        scope = digest.scope
        if len(digest.hashes) == HASH_BYTES:
            if digest.hashes == self._summary.total(scope):
                return Digest(scope, Stage.EQUAL)
            if self._summary.count(scope) * _ENTRY_BYTES <= self._outbox.room:
                entries = self._summary.entries(scope)
                return Digest(scope, Stage.COMPARE, ALL_BUCKETS, b"", entries)
            hashes = (bucket.to_bytes(HASH_BYTES, "big") for bucket in self._summary.hashes(scope))
            return Digest(scope, Stage.COMPARE, 0, b"".join(hashes))
        mine = self._summary.hashes(scope)
        data = digest.hashes.ljust(BUCKETS * HASH_BYTES, b"\0")
        theirs = [
            int.from_bytes(data[at * HASH_BYTES : (at + 1) * HASH_BYTES], "big")
            for at in range(BUCKETS)
        ]
        return self._some_entries(scope, [n for n in range(BUCKETS) if mine[n] != theirs[n]])

    def _some_entries(self, scope: str, buckets: list[int]) -> Digest:
        """Return the entries of `buckets`, as many as fit; a later round brings the rest."""
        if not buckets:
            return Digest(scope, Stage.EQUAL)
        self._rng.shuffle(buckets)
        held = self._summary.entries_by_bucket(scope, sum(1 << bucket for bucket in buckets))
        mask = 0
        entries: list[DigestEntry] = []
        for bucket in buckets:
            more = held.get(bucket, [])
            if mask and (len(entries) + len(more)) * _ENTRY_BYTES > self._outbox.room:
                break
            mask |= 1 << bucket
            entries += more
        return Digest(scope, Stage.COMPARE, mask, b"", tuple(entries))

    def _compare_entries(self, digest: Digest) -> tuple[list[Digest], list[Gap]]:
        scope = digest.scope
        theirs = {entry.owner: entry for entry in digest.entries}
        gaps: list[Gap] = []
        pull: list[DigestEntry] = []
        mine = {entry.owner: entry for entry in self._summary.entries(scope, digest.mask)}
        for owner in theirs:
            entry = self._summary.entry(scope, owner)
            if entry is not None:
                mine[owner] = entry
        for owner, entry in mine.items():
            other = theirs.get(owner)
            lead = Lead.MINE if other is None else compare(scope, entry, other)
            if Lead.MINE in lead and self._is_told(scope, entry, other):
                gaps.append((entry, other))
            if Lead.THEIRS in lead:
                pull.append(entry)
        for owner, other in theirs.items():
            if owner not in mine and (scope != NODES or is_live(other)):
                pull.append(DigestEntry(owner, Stamp(0, 0), 0, 0))
        if digest.stage is Stage.PULL:
            return [], gaps
        if pull or gaps:
            return list(self._pulls(scope, pull)), gaps
        return [Digest(scope, Stage.EQUAL)], []

    def _is_told(self, scope: str, mine: DigestEntry, other: DigestEntry | None) -> bool:
        """Tell whether a peer is to hear of an owner: not of the dead it does not know."""
        if scope == NODES and other is not None:
            return True
        return self._summary.counts(scope, mine)

    def _pulls(self, scope: str, pull: list[DigestEntry]) -> Iterable[Digest]:
        most = self._outbox.room // _ENTRY_BYTES
        for at in range(0, min(len(pull), most * DATAGRAMS_MAX), most):
            yield Digest(scope, Stage.PULL, 0, b"", tuple(pull[at : at + most]))
