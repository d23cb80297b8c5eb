"""Whether a packet is new where somebody else spends its sender's counters (pure).

Whoever holds the gossip key can seal in another's name with any counter, and forge the address that
a packet comes from. One packet far ahead of a member's real counter, and a replay window takes all
that the member says for old. So what looks old is not the end of it: its sender is asked, there
where the packet came from, and its answer, to a number that was sent there and nowhere else, says
what its counter is (`doubts`). From then on there is a guard for that place. It goes by seals
instead of counters: forgers cannot make the member's own seal, so whatever counters they spend, the
member's packets stay new.

Invariants:
    a packet is new at most once while a guard remembers its seal, and never below the counter that
    was proved last;
    nor is it new where there is a guard once it was taken elsewhere: whoever passes questions and
    answers on has a guard for his own address, and could say there what he recorded;
    a guard remembers at most `_SEALS_MAX` seals, and wants another proof long before;
    at most `_GUARDS_MAX` places have guards, and only such from where an answer came.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from enum import Enum

from gossip.wire import Address

_SEALS_MAX = 512
"""The oldest goes first: only a flood of forged packets between two proofs fills it."""
_SEALS_WANTED_MAX = 128
"""From so many on another proof is due."""
_RECENT_MAX = 4096
"""As `_SEALS_MAX`, for all places together."""
_GUARDS_MAX = 1024
"""The least recently used goes first; if its place is in doubt again, it is asked again."""

Place = tuple[bytes, int, Address]
"""A sender's tag, its epoch, and where its packets come from."""


class Freshness(Enum):
    """Whether a packet is to be taken."""

    NEW = "new"
    DUE = "due"
    """As NEW, but its place is to prove its counter again."""
    OLD = "old"
    """Seen already, or older than what is remembered, or its sender's counters were spent."""


class Guard:
    """What was seen from one place since its sender's counter was proved."""

    def __init__(self, proved: int) -> None:
        self.proved = proved
        self.seals: OrderedDict[Hashable, None] = OrderedDict()


class Guards:
    """What was seen since its counter was proved, by place."""

    __slots__ = ("_recent", "by_place")

    def __init__(self) -> None:
        self.by_place: OrderedDict[Place, Guard] = OrderedDict()
        """Empty in good times, when nobody needs to look."""
        self._recent: OrderedDict[Hashable, None] = OrderedDict()
        """Senders' tags, epochs and seals of what came while there were any."""

    def prove(self, place: Place, counter: int) -> None:
        """Take note that the packet with `counter` is truly its sender's, and the newest so far."""
        self.by_place[place] = Guard(counter)
        self.by_place.move_to_end(place)
        if len(self.by_place) > _GUARDS_MAX:
            self.by_place.popitem(last=False)

    def take(self, place: Place, counter: int, seal: Hashable) -> Freshness | None:
        """Tell whether an authentic packet is new, and remember it; None: its place has no guard.

        `seal`: what tells it apart from all others of its sender under the same counter.
        """
        guard = self.by_place.get(place)
        name = (*place[:2], seal)
        is_known = name in self._recent
        self._recent[name] = None
        if len(self._recent) > _RECENT_MAX:
            self._recent.popitem(last=False)
        if guard is None:
            return None
        self.by_place.move_to_end(place)
        if counter <= guard.proved or is_known or seal in guard.seals:
            return Freshness.OLD
        guard.seals[seal] = None
        if len(guard.seals) > _SEALS_MAX:
            guard.seals.popitem(last=False)
        return Freshness.DUE if len(guard.seals) > _SEALS_WANTED_MAX else Freshness.NEW
