"""What is said in tables is taken once it is known that its owner said it (pure).

A single record counts by its own signature. A stretch of a log counts as a whole if the owner's
head proves the outcome: one check, however long it is. Where there is no head, or it does not fit
(records newer than it have come already), the stretch's records count one by one, and how far the
log is known waits for the next head.

Owners sign a head as soon as something changed, at most once a second for each log, and spread it
like a record.

Invariants:
    without its owner's signature nothing enters a log, is passed on, or counts as known;
    at rest nothing is signed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from gossip.broadcast import Rank
from gossip.directory import Directory
from gossip.member import Verdict
from gossip.proof import head_of, is_proven, rank
from gossip.spread import Spread
from gossip.stats import Counters
from gossip.sync import Syncer
from gossip.timers import Timers
from gossip.trust import Check, Trust
from gossip.wire import RECORDS_PER_LOG_MAX, Address, Delta, Head, Record, Update

_HEAD_PAUSE_S = 1.0
"""Least time between two heads of one log."""


class Ledger:
    """One node's dealings with signed records and heads."""

    def __init__(
        self,
        *,
        trust: Trust,
        directory: Directory,
        timers: Timers,
        spread: Spread,
        sync: Syncer,
        counters: Counters,
        hlc: Callable[[float], int],
    ) -> None:
        self._trust = trust
        self._directory = directory
        self._timers = timers
        self._spread = spread
        self._sync = sync
        self._counters = counters
        self._hlc = hlc
        self._due: set[str] = set()
        self._signed_at: dict[str, float] = {}

    def spread_own(self, update: Update, *, now: float) -> None:
        """Tell others of a record of this node, and soon of its head."""
        name = (update.scope, update.owner, update.record.key)
        self._spread.put(update.scope, Rank.OWN_RECORD, name, update, now=now)
        self._sync.hurry(update.scope, now=now)
        self.plan_head(update.scope, now=now)

    def plan_head(self, scope: str, *, now: float) -> None:
        """Sign the head of this node's log as soon as that may be, if it has changed by then."""
        if scope not in self._due:
            self._due.add(scope)
            at = max(now, self._signed_at.get(scope, now - _HEAD_PAUSE_S) + _HEAD_PAUSE_S)
            self._timers.at(at, partial(self._sign_head, scope))

    def forget(self, scope: str) -> None:
        """Drop what is remembered of a scope that this node left."""
        self._signed_at.pop(scope, None)

    def take_update(self, update: Update, *, now: float) -> None:
        """Take one record of another, and pass it on if it is new."""
        match self._merge(update, now=now):
            case Verdict.NEW:
                self._counters.updates_new += 1
                self._counters.lag_eager.note(self._trust.age_s(update.record.hlc, now=now))
                name = (update.scope, update.owner, update.record.key)
                self._spread.put(update.scope, Rank.RELAYED_RECORD, name, update, now=now)
            case Verdict.KNOWN | Verdict.STALE:
                self._counters.updates_known += 1
            case Verdict.AHEAD:
                self._counters.updates_refused += 1

    def take_delta(self, delta: Delta, source: Address, *, now: float) -> None:
        """Take a stretch of another's log, or a head alone, which came from `source`."""
        self._counters.deltas_in += 1
        if not self._directory.is_welcome(delta.scope, delta.owner, delta.stamp):
            self._counters.deltas_refused += 1
            return
        is_head_new = self._is_head_new(delta, now=now)
        records = self._outcome(delta) if is_head_new else None
        if records is None:
            if is_head_new and self._directory.table.contradicts(delta):
                self._sync.pull_whole(delta, source, now=now)
                return  # a part of one log and a part of another are none
            updates = (Update(delta.scope, delta.owner, delta.stamp, r) for r in delta.records)
            taken = [u.record for u in updates if self._merge(u, now=now) is Verdict.NEW]
            self._count_repair(delta, taken, now=now)
            return
        verdict = self._directory.take_proven(delta, records)
        self._counters.refused_quota += verdict is Verdict.AHEAD
        if verdict is Verdict.NEW:
            self._counters.snapshots_in += delta.start == 0
            self._count_repair(delta, delta.records, now=now)
            self._sync.hurry(delta.scope, now=now)
        if verdict in {Verdict.NEW, Verdict.KNOWN} and not delta.records:
            self._relay_head(delta, now=now)

    def _count_repair(self, delta: Delta, records: Sequence[Record], *, now: float) -> None:
        """Count what anti-entropy brought; a head alone, or a whole log, tells nothing of lag."""
        self._counters.repairs += bool(records)
        for record in records if delta.start else ():
            self._counters.lag_repaired.note(self._trust.age_s(record.hlc, now=now))

    def _merge(self, update: Update, *, now: float) -> Verdict:
        """Merge one record that its owner signed; AHEAD if it is refused."""
        verdict = self._directory.judge_update(update)
        if verdict is not Verdict.NEW:
            return verdict
        if self._trust.check_update(update, now=now) is not Check.PASSED:
            return Verdict.AHEAD
        verdict = self._directory.take_update(update)
        self._counters.refused_quota += verdict is Verdict.AHEAD
        if verdict is Verdict.NEW:
            self._sync.hurry(update.scope, now=now)
        return verdict

    def _is_head_new(self, delta: Delta, *, now: float) -> bool:
        """Tell whether a delta has its owner's word on the whole log, later than the one held."""
        head = delta.head
        if head is None or (head.maximum, head.gc) != (delta.end, delta.gc):
            return False
        log = self._directory.table.get(delta.scope, delta.owner)
        if log is not None and log.stamp == delta.stamp and not _is_newer(head, log.head):
            return False
        if head.count > RECORDS_PER_LOG_MAX:
            return False
        # Before the outcome is hashed: that takes far longer.
        held = 0 if log is None else len(log.records) + len(log.past)
        return self._trust.check_head(delta, head, held=held, now=now) is Check.PASSED

    def _outcome(self, delta: Delta) -> list[Record] | None:
        """Return what the log is after `delta`, if its head proves it."""
        records = self._directory.table.outcome(delta)
        if records is None or delta.head is None or not is_proven(records, delta.head):
            return None
        return records

    def _relay_head(self, delta: Delta, *, now: float) -> None:
        bare = replace(delta, node=None, claim=None)
        name = ("head", delta.scope, delta.owner)
        self._spread.put(delta.scope, Rank.RELAYED_RECORD, name, bare, now=now)

    def _sign_head(self, scope: str, now: float) -> None:
        self._due.discard(scope)
        owner = self._directory.node_id
        log = self._directory.table.get(scope, owner)
        if log is None or log.proof is not None:
            return
        self._signed_at[scope] = now
        records = log.records.values()
        unsigned = head_of(records, maximum=log.maximum, gc=log.gc, hlc=self._hlc(now))
        head = self._trust.sign_head(scope, owner, log.stamp, unsigned)
        self._directory.set_head(scope, head)
        delta = Delta(scope, owner, log.stamp, log.maximum, log.maximum, log.gc, (), head)
        self._spread.put(scope, Rank.OWN_RECORD, ("head", scope, owner), delta, now=now)


def _is_newer(head: Head, held: Head | None) -> bool:
    if held is None:
        return True
    return rank(head) > rank(held)
