"""What one node knows of a scope, as entries and hashes to compare, and the deltas between (pure).

An entry says how far one owner's log is known; in scope `NODES` also the owner's incarnation and
state. Hashes are sums (XOR) over the entries of a bucket.

Dead members, and logs that do not count now, stay out of the hashes: nodes forget them at different
times, and a repair would bring them back for ever. They are listed as entries, so that nobody sends
what is already there.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Flag
from functools import lru_cache

from gossip.directory import Directory
from gossip.member import MemberTable
from gossip.proof import head_mark
from gossip.table import Log
from gossip.wire import (
    MEMBERS_MAX,
    NODES,
    Claim,
    Delta,
    DigestEntry,
    Head,
    NodeRecord,
    Record,
    Stamp,
    State,
)

BUCKETS = 64
ALL_BUCKETS = (1 << BUCKETS) - 1
HASH_BYTES = 8
_FIELDS = struct.Struct(">6Q")
_CACHED_MAX = 4 * MEMBERS_MAX
"""Hashes and buckets remembered by all nodes of a process: simulated ones know the same members."""
_RECORD_OVERHEAD_BYTES = 32
_DELTA_OVERHEAD_BYTES = 340
"""Owner, scope, stamp, span and head of a delta."""
_NODE_BYTES = 440
"""More than any node record with its claim takes."""


class Lead(Flag):
    """Who knows more."""

    NONE = 0
    MINE = 1
    THEIRS = 2


@dataclass(slots=True)
class _Hashes:
    buckets: list[int]
    owners: dict[str, int]
    total: int = 0


@dataclass(frozen=True, slots=True)
class _Stretch:
    start: int
    end: int
    gc: int
    records: list[Record]
    head: Head | None
    """What proves the log as it was at `end`."""


class Summary:
    """Entries, hashes and deltas of one node's members and records."""

    def __init__(
        self, *, me: Callable[[], NodeRecord], members: MemberTable, directory: Directory
    ) -> None:
        self._me = me
        self._members = members
        self._directory = directory
        self._hashes: dict[str, _Hashes] = {}
        self._hashed_me = me()

    def entry(self, scope: str, owner: str) -> DigestEntry | None:
        """Return what is known of one owner, None if nothing."""
        log = self._directory.table.get(scope, owner)
        if scope != NODES:
            if log is None:
                return None
            return DigestEntry(owner, log.stamp, *log.position, 0, _mark(log))
        state = State.ALIVE
        record = self._me()
        if owner != record.node_id:
            member = self._members.get(owner)
            if member is None:
                return None
            record, state = member.record, member.state
        stamp = Stamp(record.epoch, 0)
        mark = record.incarnation * 4 + state
        if log is None or log.stamp != stamp:
            return DigestEntry(owner, stamp, 0, 0, mark)
        return DigestEntry(owner, stamp, *log.position, mark, _mark(log))

    def entries(self, scope: str, mask: int = ALL_BUCKETS) -> tuple[DigestEntry, ...]:
        """Return what is known of the owners in the buckets of `mask`."""
        owners = self._owners(scope)
        if mask != ALL_BUCKETS:
            owners = [owner for owner in owners if mask >> _bucket(owner) & 1]
        found = (self.entry(scope, owner) for owner in owners)
        return tuple(entry for entry in found if entry is not None)

    def entries_by_bucket(self, scope: str, mask: int) -> dict[int, list[DigestEntry]]:
        """Return what is known of the owners in the buckets of `mask`, by bucket."""
        found: dict[int, list[DigestEntry]] = {}
        for entry in self.entries(scope, mask):
            found.setdefault(_bucket(entry.owner), []).append(entry)
        return found

    def hashes(self, scope: str) -> list[int]:
        """Return the hash of each bucket; do not change the list."""
        self._refresh()
        held = self._hashes.get(scope)
        if held is None:
            held = self._hashes[scope] = _Hashes([0] * BUCKETS, {})
            for owner in self._owners(scope):
                self._rehash(scope, held, owner)
        return held.buckets

    def total(self, scope: str) -> bytes:
        """Return the hash of all buckets together."""
        self.hashes(scope)
        return self._hashes[scope].total.to_bytes(HASH_BYTES, "big")

    def forget(self, scope: str) -> None:
        """Drop what is cached of a scope."""
        self._hashes.pop(scope, None)

    def counts(self, scope: str, entry: DigestEntry) -> bool:
        """Tell whether others should learn of this owner from us."""
        if scope == NODES:
            return is_live(entry)
        return self._directory.is_current(scope, entry.owner)

    def deltas(
        self, scope: str, mine: DigestEntry, other: DigestEntry | None, *, room: int | None
    ) -> list[Delta]:
        """Return what brings a peer at `other` to `mine`, in messages of about `room` bytes.

        First comes what the owner's head proves as a whole, then what is newer. Without `room`,
        either is one message. A whole log under which tombstones were forgotten is one message,
        however long: a part of it could not say which keys are gone. So it is for a peer that has
        let go of the records (`Table.hollow`): it may have known more than a part says.
        """
        log = self._directory.table.get(scope, mine.owner)
        is_other_life = other is None or other.stamp != mine.stamp
        known = 0 if other is None or is_other_life else other.maximum
        start = known if known >= mine.gc else 0
        is_whole = start == 0 and (mine.gc > 0 or not is_other_life)
        node, claim = self._node_of(scope, mine.owner)
        overhead = _DELTA_OVERHEAD_BYTES + (0 if node is None else _NODE_BYTES)
        found: list[Delta] = []
        for stretch in _stretches(log, mine, start):
            if node is None and not stretch.records and stretch.head is None:
                continue  # it would tell nothing
            at = stretch.start
            if room is None or (is_whole and at == 0):
                parts = [stretch.records]
            else:
                parts = _parts(stretch.records, room - overhead)
            for number, part in enumerate(parts):
                is_last = number == len(parts) - 1
                end = stretch.end if is_last else part[-1].version
                span = (at, end, stretch.gc)
                head = stretch.head if is_last else None
                found.append(
                    Delta(scope, mine.owner, mine.stamp, *span, tuple(part), head, node, claim)
                )
                node = claim = None
                at = end
        return found

    def count(self, scope: str) -> int:
        """Return how many owners are known."""
        return 1 + len(self._members) if scope == NODES else len(self._directory.table.logs(scope))

    def _refresh(self) -> None:
        """Hash anew what changed since the last time."""
        me = self._me()
        if me is not self._hashed_me:
            self._hashed_me = me
            self._directory.dirty.add(self._hashed_me.node_id)
        for scope, held in self._hashes.items():
            for owner in self._directory.dirty:
                self._rehash(scope, held, owner)
        self._directory.dirty.clear()

    def _rehash(self, scope: str, held: _Hashes, owner: str) -> None:
        entry = self.entry(scope, owner)
        fresh = 0 if entry is None or not self.counts(scope, entry) else _hash(entry)
        change = held.owners.get(owner, 0) ^ fresh
        held.buckets[_bucket(owner)] ^= change
        held.total ^= change
        held.owners[owner] = fresh
        if not fresh:
            del held.owners[owner]

    def _owners(self, scope: str) -> list[str]:
        if scope == NODES:
            return [self._me().node_id, *(member.node_id for member in self._members.all())]
        return list(self._directory.table.logs(scope))

    def _node_of(self, scope: str, owner: str) -> tuple[NodeRecord | None, Claim | None]:
        if scope != NODES:
            return None, None
        me = self._me()
        if owner == me.node_id:
            return me, None
        member = self._members.known(owner)
        return member.record, member.claim


def is_live(entry: DigestEntry) -> bool:
    """Tell whether an entry of scope `NODES` is of a member that is up."""
    return entry.mark % 4 <= State.SUSPECT


def compare(scope: str, mine: DigestEntry, other: DigestEntry) -> Lead:
    """Tell who knows more of an owner; both may, of different things."""
    if mine.stamp != other.stamp:
        return Lead.MINE if mine.stamp > other.stamp else Lead.THEIRS
    lead = Lead.NONE
    ours, theirs = (mine.maximum, mine.gc), (other.maximum, other.gc)
    if mine.maximum == other.maximum and bool(mine.proved) != bool(other.proved):
        # An earlier head than the one that is known there told what was collected here: it can be
        # more only if the owner contradicts itself, and then the later head is right.
        ours = theirs
    if ours[0] > theirs[0] or ours[1] > theirs[1] or mine.mark > other.mark:
        lead |= Lead.MINE
    if ours[0] < theirs[0] or ours[1] < theirs[1] or mine.mark < other.mark:
        lead |= Lead.THEIRS
    if ours == theirs and mine.proved != other.proved:
        lead |= Lead.MINE if mine.proved > other.proved else Lead.THEIRS
    if scope != NODES and lead == Lead.MINE | Lead.THEIRS:
        lead = Lead.MINE if ours > theirs else Lead.THEIRS
    return lead


def _stretches(log: Log | None, mine: DigestEntry, start: int) -> list[_Stretch]:
    """Return what is above `start`: what a head proves, and what is newer."""
    if log is None or log.stamp != mine.stamp:
        return [_Stretch(start, max(start, mine.maximum), mine.gc, [], None)]
    records = [r for r in log.after(start) if r.version <= mine.maximum]
    everything = _Stretch(start, max(start, mine.maximum), mine.gc, records, log.proof)
    head = log.head
    if head is None or log.proof is not None or start >= head.maximum:
        return [everything]
    held = log.at_head()
    if held is None:
        return [everything]
    before = sorted((r for r in held if r.version > start), key=lambda r: r.version)
    after = [r for r in records if r.version > head.maximum]
    first = _Stretch(start, head.maximum, head.gc, before, head)
    rest = _Stretch(head.maximum, everything.end, mine.gc, after, None)
    return [first, rest] if after else [first]


def _mark(log: Log) -> int:
    proof = log.proof
    return 0 if proof is None else head_mark(proof)


def _parts(records: list[Record], room: int) -> list[list[Record]]:
    parts: list[list[Record]] = [[]]
    left = room
    for record in records:
        value = 0 if record.value is None else len(record.value)
        size = len(record.key.encode()) + value + len(record.signature) + _RECORD_OVERHEAD_BYTES
        if size > left and parts[-1]:
            parts.append([])
            left = room
        parts[-1].append(record)
        left -= size
    return parts


@lru_cache(_CACHED_MAX)
def _hash(entry: DigestEntry) -> int:
    fields = (*entry.stamp, entry.maximum, entry.gc, entry.mark // 4, entry.proved)
    data = entry.owner.encode() + _FIELDS.pack(*fields)
    return int.from_bytes(hashlib.blake2b(data, digest_size=HASH_BYTES).digest(), "big")


@lru_cache(_CACHED_MAX)
def _bucket(owner: str) -> int:
    return hashlib.blake2b(owner.encode(), digest_size=1).digest()[0] % BUCKETS
