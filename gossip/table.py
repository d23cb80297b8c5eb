"""Logs of records, one per (scope, owner), and the rule that merges them (pure).

An owner appends to its own log; everyone else merges what arrives, in any order and any number of
times. A log lives under a stamp (owner's epoch, version of its attachment): a newer stamp replaces
the whole log, an older one is ignored, so leaving and coming back is ordered without anyone making
tombstones for another. (After chitchat and Scuttlebutt.)

Signatures are not this module's: what is put here has been checked (`ledger`).

A head speaks of one moment of a log, and whoever writes all the time is never at rest. So a log
remembers what was replaced since its head: it can be told as its head proves it, the rest of it
after that; and a head that comes when newer records are here already still proves what it speaks
of.

Invariants:
    a log's stamp never decreases, nor its (maximum, gc) under one stamp;
    what a head has proven, no single record changes: only a later head does;
    every version up to `maximum` is known, or was replaced by one that is or will be known;
    a key that was deleted is not back unless its owner wrote it again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gossip.member import Verdict
from gossip.proof import rank
from gossip.wire import (
    LOG_BYTES_MAX,
    NODES,
    RECORDS_PER_LOG_MAX,
    SCOPES_PER_OWNER_MAX,
    Delta,
    Head,
    InvalidError,
    Record,
    Stamp,
    Update,
)

_RECORD_OVERHEAD_BYTES = 90
"""Version, clock and signature."""
_PAST_MAX = 1024
"""Replaced records remembered; when there are more, the next head is waited for."""
_AHEAD_MAX = 1024
"""Versions remembered beyond a gap; when there are more, anti-entropy closes the gap anyway."""


@dataclass(slots=True)
class Log:
    """One owner's records in one scope, as far as they are known here."""

    stamp: Stamp
    live_max: int = RECORDS_PER_LOG_MAX
    """How many records may be no tombstones."""
    maximum: int = 0
    """All versions up to here are covered."""
    gc: int = 0
    """The owner has forgotten its tombstones up to here."""
    is_hollow: bool = False
    """The records were let go; only a snapshot of at least `maximum` fills the log again."""
    records: dict[str, Record] = field(default_factory=dict[str, Record])
    ahead: set[int] = field(default_factory=set[int])
    """Known versions above `maximum`."""
    size_bytes: int = 0
    live: int = 0
    head: Head | None = None
    """The owner's newest word on the whole log; it may be older than the log."""
    past: deque[Record] = field(default_factory=lambda: deque[Record](maxlen=_PAST_MAX))
    """What was replaced or forgotten since the head, and is part of what it speaks of, or of what
    a later one does."""

    @property
    def position(self) -> tuple[int, int]:
        """How far the log is known, as digests tell it: (maximum, gc)."""
        return (0, 0) if self.is_hollow else (self.maximum, self.gc)

    def after(self, version: int) -> list[Record]:
        """Return the records above `version`, by version."""
        found = [record for record in self.records.values() if record.version > version]
        return sorted(found, key=lambda record: record.version)

    def has_room(self, record: Record) -> bool:
        """Tell whether `record` fits within the limits."""
        old = self.records.get(record.key)
        size = self.size_bytes + _size(record) - (0 if old is None else _size(old))
        count = len(self.records) + (old is None)
        live = self.live + _is_live(record) - _is_live(old)
        return count <= RECORDS_PER_LOG_MAX and size <= LOG_BYTES_MAX and live <= self.live_max

    def has_room_for(self, records: Sequence[Record]) -> bool:
        """Tell whether `records`, in place of all that is held, are within the limits."""
        return (
            len(records) <= RECORDS_PER_LOG_MAX
            and sum(map(_size, records)) <= LOG_BYTES_MAX
            and sum(map(_is_live, records)) <= self.live_max
        )

    @property
    def proof(self) -> Head | None:
        """The head that proves the log as it is, if it is known."""
        head = self.head
        is_current = head is not None and (head.maximum, head.gc) == (self.maximum, self.gc)
        return head if is_current else None

    def settles(self, version: int) -> bool:
        """Tell whether a head has proven what the log is up to a version, which it includes."""
        return version <= self.maximum and self.proof is not None

    def at(self, version: int, gc: int, more: Iterable[Record] = ()) -> list[Record]:
        """Return what the log held, with `more`, when its maximum was `version`.

        Something may be missing if that was long ago.
        """
        found: dict[str, Record] = {}
        for record in (*self.past, *self.records.values(), *more):
            held = found.get(record.key)
            if record.version <= version and (held is None or held.version < record.version):
                found[record.key] = record
        return [r for r in found.values() if r.value is not None or r.version > gc]

    def at_head(self) -> list[Record] | None:
        """Return what the head speaks of; None if there is no head or that is forgotten."""
        if self.head is None:
            return None
        found = self.at(self.head.maximum, self.head.gc)
        return found if len(found) == self.head.count else None

    def set_head(self, head: Head) -> None:
        """Keep a newer head, of which it is known that it speaks of this log."""
        self.head = head
        kept = [record for record in self.past if record.version > head.maximum]
        self.past.clear()
        self.past.extend(kept)

    def set(self, record: Record) -> None:
        """Store `record` in place of what its key held."""
        self.remove(record.key)
        self.records[record.key] = record
        self.size_bytes += _size(record)
        self.live += _is_live(record)

    def remove(self, key: str) -> None:
        """Forget a key, if it is there."""
        old = self.records.pop(key, None)
        if old is not None:
            self.past.append(old)
            self.size_bytes -= _size(old)
            self.live -= _is_live(old)

    def clear(self) -> None:
        """Forget all records, but not how far they were known."""
        self.records, self.size_bytes, self.live = {}, 0, 0

    def cover(self, version: int) -> None:
        """Note that all versions up to `version` are known, and what that makes contiguous."""
        self.maximum = max(self.maximum, version)
        while self.maximum + 1 in self.ahead:
            self.maximum += 1
        if self.ahead:
            self.ahead = {v for v in self.ahead if v > self.maximum}

    def note(self, version: int) -> None:
        """Note that one version is known."""
        if version == self.maximum + 1:
            self.cover(version)
        elif version > self.maximum and len(self.ahead) < _AHEAD_MAX:
            self.ahead.add(version)

    def collect(self, gc: int) -> None:
        """Forget the tombstones up to `gc`."""
        if gc <= self.gc:
            return
        self.gc = gc
        for record in list(self.records.values()):
            if record.value is None and record.version <= gc:
                self.remove(record.key)


class Table:
    """All logs of the scopes this node takes part in, its own among them."""

    def __init__(self) -> None:
        self._scopes: dict[str, dict[str, Log]] = {}

    def get(self, scope: str, owner: str) -> Log | None:
        """Return a log, or None."""
        return self._scopes.get(scope, {}).get(owner)

    def logs(self, scope: str) -> dict[str, Log]:
        """Return the logs of a scope by owner; do not change the dictionary."""
        return self._scopes.get(scope, {})

    def scopes(self) -> Iterable[str]:
        """Return the scopes that hold logs."""
        return list(self._scopes)

    def append(
        self, scope: str, owner: str, stamp: Stamp, key: str, value: bytes | None, *, hlc: int
    ) -> Record:
        """Write the next record of one's own log.

        Raises InvalidError, and changes nothing, if the log is full or lives under a newer stamp.
        """
        log = self._open(scope, owner, stamp)
        if log is None:
            raise InvalidError(f"scope {scope}: stamp {stamp} is not the newest")
        record = Record(key, log.maximum + 1, hlc, value)
        if not log.has_room(record):
            raise InvalidError(f"scope {scope}: too many records or bytes; withdraw some first")
        log.set(record)
        log.cover(record.version)
        return record

    def judge(self, update: Update) -> Verdict:
        """Tell what one record would change: NEW if anything, be it only that it is known."""
        log = self.get(update.scope, update.owner)
        if log is None or log.stamp < update.stamp:
            return Verdict.NEW
        if log.stamp > update.stamp:
            return Verdict.STALE
        if log.is_hollow:
            return Verdict.AHEAD
        record, held = update.record, log.records.get(update.record.key)
        if log.settles(record.version):
            return Verdict.KNOWN
        if held is not None and held.version < record.version:
            return Verdict.NEW
        is_covered = record.version <= log.maximum or record.version in log.ahead
        return Verdict.KNOWN if is_covered else Verdict.NEW

    def put(self, update: Update) -> Verdict:
        """Merge one record of another owner. AHEAD means refused: a snapshot or room is needed."""
        log = self._open(update.scope, update.owner, update.stamp)
        if log is None:
            return Verdict.STALE
        if log.is_hollow:
            return Verdict.AHEAD
        return _merge(log, update.record)

    def outcome(self, delta: Delta) -> list[Record] | None:
        """Return all records that a log would hold at `delta.end` if nothing is missing.

        None if a newer log is held.
        """
        log = self.get(delta.scope, delta.owner)
        if log is not None and log.stamp > delta.stamp:
            return None
        if delta.start == 0 or log is None or log.stamp != delta.stamp:
            log = Log(delta.stamp)
        return log.at(delta.end, delta.gc, delta.records)

    def contradicts(self, delta: Delta) -> bool:
        """Tell whether a delta that its head does not prove should have been enough.

        Nothing before it is missing here and nothing after it is known, so either its owner wrote
        two logs for one version, or whoever told it left something out.
        """
        log = self.get(delta.scope, delta.owner)
        if log is None or log.stamp != delta.stamp or log.is_hollow:
            return False
        newest = max((record.version for record in log.records.values()), default=0)
        return 0 < delta.start <= log.maximum and newest <= delta.end

    def put_proven(self, delta: Delta, records: Sequence[Record]) -> Verdict:
        """Merge a log's `outcome` of which it is proven that nothing is missing.

        AHEAD means that it is over the limits.
        """
        log = self._open(delta.scope, delta.owner, delta.stamp)
        if log is None or not _reaches(delta, log):
            return Verdict.STALE
        if not log.has_room_for(records):
            return Verdict.AHEAD
        before = log.records
        kept = [record for record in log.records.values() if record.version > delta.end]
        log.clear()
        for record in records:
            log.set(record)
        log.is_hollow = False
        log.cover(delta.end)
        log.gc = delta.gc
        if delta.head is not None:
            log.set_head(delta.head)
        for record in kept:
            if log.has_room(record):
                log.set(record)
        return Verdict.KNOWN if _says_the_same(before, log.records) else Verdict.NEW

    def drop(self, scope: str, owner: str) -> bool:
        """Forget a log; tell whether there was one."""
        return self._scopes.get(scope, {}).pop(owner, None) is not None

    def drop_scope(self, scope: str) -> None:
        """Forget all logs of a scope."""
        self._scopes.pop(scope, None)

    def hollow(self, scope: str, owner: str) -> None:
        """Let go of a log's records but not of how far it was known."""
        log = self.get(scope, owner)
        if log is not None:
            log.clear()
            log.ahead, log.is_hollow, log.head = set(), True, None
            log.past.clear()

    def _open(self, scope: str, owner: str, stamp: Stamp) -> Log | None:
        """Return the log that lives under `stamp`, new if need be; None if a newer one does."""
        logs = self._scopes.setdefault(scope, {})
        log = logs.get(owner)
        if log is None or log.stamp < stamp:
            limit = SCOPES_PER_OWNER_MAX if scope == NODES else RECORDS_PER_LOG_MAX
            log = logs[owner] = Log(stamp, limit)
        return log if log.stamp == stamp else None


def _reaches(delta: Delta, log: Log) -> bool:
    """Tell whether a proven delta takes nothing back: newer records are kept, but by a hollow log.

    Of two heads the later is right, even if it has collected less: its owner contradicts itself.
    """
    if log.is_hollow and (delta.end, delta.gc) < (log.maximum, log.gc):
        return False
    return delta.head is None or log.head is None or rank(delta.head) >= rank(log.head)


def _merge(log: Log, record: Record) -> Verdict:
    held = log.records.get(record.key)
    if held is None and record.version <= log.maximum:
        return Verdict.STALE  # its tombstone has come and gone
    if log.settles(record.version):
        return Verdict.KNOWN
    if held is not None and held.version >= record.version:
        if held.version > record.version:
            log.past.append(record)
        log.note(record.version)
        return Verdict.KNOWN
    if not log.has_room(record):
        return Verdict.AHEAD
    log.set(record)
    log.note(record.version)
    return Verdict.NEW


def _says_the_same(before: dict[str, Record], after: dict[str, Record]) -> bool:
    """Compare all but signatures, which are others once a certificate was renewed."""
    return before.keys() == after.keys() and all(
        record.version == after[key].version and record.value == after[key].value
        for key, record in before.items()
    )


def _size(record: Record) -> int:
    value = 0 if record.value is None else len(record.value)
    return len(record.key.encode()) + value + _RECORD_OVERHEAD_BYTES


def _is_live(record: Record | None) -> bool:
    return record is not None and record.value is not None
