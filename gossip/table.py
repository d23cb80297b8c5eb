"""Logs of records, one per (scope, owner), and the rule that merges them (pure).

An owner appends to its own log; everyone else merges what arrives, in any order and any number of
times. A log lives under a stamp (owner's epoch, version of its attachment): a newer stamp replaces
the whole log, an older one is ignored, so leaving and coming back is ordered without anyone making
tombstones for another. (After chitchat and Scuttlebutt.)

Invariants:
    a log's stamp never decreases, nor its (maximum, gc) under one stamp;
    every version up to `maximum` is known, or was replaced by one that is or will be known;
    a key that was deleted is not back unless its owner wrote it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gossip.member import Verdict
from gossip.wire import (
    LOG_BYTES_MAX,
    RECORDS_PER_LOG_MAX,
    Delta,
    InvalidError,
    Record,
    Stamp,
    Update,
)

_AHEAD_MAX = 1024
"""Versions remembered beyond a gap; when there are more, anti-entropy closes the gap anyway."""


@dataclass(slots=True)
class Log:
    """One owner's records in one scope, as far as they are known here."""

    stamp: Stamp
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
        return count <= RECORDS_PER_LOG_MAX and size <= LOG_BYTES_MAX

    def set(self, record: Record) -> None:
        """Store `record` in place of what its key held."""
        self.remove(record.key)
        self.records[record.key] = record
        self.size_bytes += _size(record)

    def remove(self, key: str) -> None:
        """Forget a key, if it is there."""
        old = self.records.pop(key, None)
        if old is not None:
            self.size_bytes -= _size(old)

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

    def put(self, update: Update) -> Verdict:
        """Merge one record of another owner. AHEAD means refused: a snapshot or room is needed."""
        log = self._open(update.scope, update.owner, update.stamp)
        if log is None:
            return Verdict.STALE
        if log.is_hollow:
            return Verdict.AHEAD
        return _merge(log, update.record)

    def put_delta(self, delta: Delta) -> Verdict:
        """Merge a stretch of another owner's log. AHEAD means that it does not join on."""
        log = self._open(delta.scope, delta.owner, delta.stamp)
        if log is None:
            return Verdict.STALE
        if delta.start == 0:
            return _merge_snapshot(log, delta)
        if log.is_hollow or log.maximum < max(delta.start, delta.gc):
            return Verdict.AHEAD
        before = (log.maximum, log.gc)
        verdicts = [_merge(log, record) for record in delta.records]
        if Verdict.AHEAD in verdicts:
            return Verdict.AHEAD
        log.cover(delta.end)
        log.collect(delta.gc)
        is_new = Verdict.NEW in verdicts or before != (log.maximum, log.gc)
        return Verdict.NEW if is_new else Verdict.KNOWN

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
            log.records, log.ahead, log.size_bytes, log.is_hollow = {}, set(), 0, True

    def _open(self, scope: str, owner: str, stamp: Stamp) -> Log | None:
        """Return the log that lives under `stamp`, new if need be; None if a newer one does."""
        logs = self._scopes.setdefault(scope, {})
        log = logs.get(owner)
        if log is None or log.stamp < stamp:
            log = logs[owner] = Log(stamp)
        return log if log.stamp == stamp else None


def _merge(log: Log, record: Record) -> Verdict:
    held = log.records.get(record.key)
    if held is None and record.version <= log.maximum:
        return Verdict.STALE  # its tombstone has come and gone
    if held is not None and held.version >= record.version:
        log.note(record.version)
        return Verdict.KNOWN
    if not log.has_room(record):
        return Verdict.AHEAD
    log.set(record)
    log.note(record.version)
    return Verdict.NEW


def _merge_snapshot(log: Log, delta: Delta) -> Verdict:
    if delta.end < log.maximum or delta.gc < log.gc:
        return Verdict.STALE
    if sum(_size(record) for record in delta.records) > LOG_BYTES_MAX:
        return Verdict.AHEAD
    before = {key: record.version for key, record in log.records.items()}
    was = (log.maximum, log.gc, log.is_hollow)
    kept = [record for record in log.records.values() if record.version > delta.end]
    log.records, log.size_bytes, log.is_hollow = {}, 0, False
    for record in (*delta.records, *kept):
        if log.has_room(record):
            log.set(record)
    log.cover(delta.end)
    log.collect(delta.gc)
    is_same = was == (log.maximum, log.gc, log.is_hollow)
    is_same &= before == {key: record.version for key, record in log.records.items()}
    return Verdict.KNOWN if is_same else Verdict.NEW


def _size(record: Record) -> int:
    value = 0 if record.value is None else len(record.value)
    return len(record.key) + value + len(record.signature) + 24
