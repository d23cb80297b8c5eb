"""Queues of encoded updates that wait to ride in packets, by rank and times sent (pure).

Within a rank the update sent least often goes first, then the oldest. An update leaves the queue
when its budget of packets is spent, or when a newer one of the same name takes its place. Tiers
(times sent -> deque) make each step O(1): sorting at every send made a partition of 1,000 nodes a
hundred times slower in a prototype.

Invariants:
    own updates go before relayed ones, however many of these there are;
    all queues together hold at most `QUEUE_MAX` updates.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Hashable
from dataclasses import dataclass
from enum import IntEnum

QUEUE_MAX = 4096
"""Updates over all scopes; the oldest relayed one is dropped, and anti-entropy repairs that."""
_MISFITS_MAX = 8
"""Updates too large for the room left that one call looks past."""
_SLACK = 64


class Rank(IntEnum):
    """What goes first."""

    SELF = 0
    """This node's own membership: a refutation, a departure."""
    ACCUSATION = 1
    """A claim this node makes."""
    OWN_RECORD = 2
    RELAYED_MEMBERSHIP = 3
    RELAYED_RECORD = 4


@dataclass(slots=True)
class _Item:
    name: Hashable
    data: bytes
    left: int
    """Packets it may still ride in; 0 when it is spent or replaced."""
    sent: int = 0


class _Tiers:
    """The updates of one rank in one scope."""

    def __init__(self) -> None:
        self._tiers: list[deque[_Item]] = [deque()]
        self._names: dict[Hashable, _Item] = {}

    def __len__(self) -> int:
        return len(self._names)

    @property
    def has_unsent(self) -> bool:
        return any(item.left for item in self._tiers[0])

    def put(self, name: Hashable, data: bytes, packets: int) -> None:
        old = self._names.get(name)
        if old is not None:
            old.left = 0
        item = self._names[name] = _Item(name, data, packets)
        self._tiers[0].append(item)
        if sum(map(len, self._tiers)) > 2 * len(self._names) + _SLACK:
            self._tiers = [deque(item for item in tier if item.left) for tier in self._tiers]

    def drop_oldest(self) -> bool:
        for tier in reversed(self._tiers):
            while tier:
                item = tier.popleft()
                if item.left:
                    del self._names[item.name]
                    return True
        return False

    def take(self, room: int, out: list[bytes]) -> int:
        """Append to `out` what fits into `room` bytes; return the room left."""
        taken: list[_Item] = []
        misfits = 0
        for tier in self._tiers:
            if not tier:
                continue
            if room <= 0 or misfits >= _MISFITS_MAX:
                break
            passed: list[_Item] = []
            while tier and room > 0 and misfits < _MISFITS_MAX:
                item = tier.popleft()
                if not item.left:
                    continue
                if len(item.data) > room:
                    passed.append(item)
                    misfits += 1
                    continue
                room -= len(item.data)
                out.append(item.data)
                taken.append(item)
            if passed:
                tier.extendleft(reversed(passed))
        for item in taken:
            self._put_back(item)
        return room

    def _put_back(self, item: _Item) -> None:
        item.left -= 1
        item.sent += 1
        if not item.left:
            del self._names[item.name]
            return
        while len(self._tiers) <= item.sent:
            self._tiers.append(deque())
        self._tiers[item.sent].append(item)


class Queues:
    """All updates a node has to pass on, by scope."""

    __slots__ = (
        "_ranks",
        "dropped",
    )

    def __init__(self) -> None:
        self.dropped = 0
        self._ranks: tuple[dict[str, _Tiers], ...] = tuple({} for _ in Rank)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not any(self._ranks)

    def __len__(self) -> int:
        return sum(len(tiers) for scopes in self._ranks for tiers in scopes.values())

    def put(self, scope: str, rank: Rank, name: Hashable, data: bytes, *, packets: int) -> None:
        """Queue an update, in place of one of the same name, to ride in `packets` packets."""
        if packets <= 0:
            return
        if len(self) >= QUEUE_MAX:
            self._drop_one()
        self._ranks[rank].setdefault(scope, _Tiers()).put(name, data, packets)

    def take(self, room: int, scopes: Container[str]) -> list[bytes]:
        """Return updates of `scopes` for one packet, at most `room` bytes."""
        out: list[bytes] = []
        for rank in self._ranks:
            for scope in list(rank):
                if room > 0 and scope in scopes:
                    tiers = rank[scope]
                    room = tiers.take(room, out)
                    if not tiers:
                        del rank[scope]
        return out

    def has(self, scope: str) -> bool:
        """Tell whether updates of `scope` wait."""
        return any(scope in rank for rank in self._ranks)

    def count(self, scope: str) -> int:
        """Return how many updates of `scope` wait."""
        return sum(len(rank[scope]) for rank in self._ranks if scope in rank)

    def has_unsent(self, scope: str) -> bool:
        """Tell whether updates of `scope` wait that have not been sent at all."""
        return any(rank[scope].has_unsent for rank in self._ranks if scope in rank)

    def forget(self, scope: str) -> None:
        """Drop the updates of a scope."""
        for rank in self._ranks:
            rank.pop(scope, None)

    def _drop_one(self) -> None:
        for rank in reversed(self._ranks):
            for scope in list(rank):
                is_dropped = rank[scope].drop_oldest()
                if not rank[scope]:
                    del rank[scope]
                if is_dropped:
                    self.dropped += 1
                    return
