"""Whom the managers removed: such a node stays out, whatever it says (pure).

It may have the keys and a valid certificate, and begin new lives. This node is told of it by its
managers, and not by gossip: each life is over before anybody sees it. A manager says so in gossip,
for those who have not been told.

Invariant: one that was told of shows no removed node as up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from gossip.broadcast import Rank
from gossip.member import MemberTable
from gossip.outbox import Outbox
from gossip.spread import Spread
from gossip.timers import Timers
from gossip.wire import NODES, Claim, NodeRecord, State

_LIFE_PAUSE_S = 1.0
"""How often a manager signs that a life of one removed node is over."""


class Removal:
    """One node's dealings with removed nodes."""

    __slots__ = (
        "_claim",
        "_departed",
        "_is_manager",
        "_members",
        "_node_ids",
        "_on_left",
        "_outbox",
        "_spread",
        "_timers",
    )

    def __init__(
        self,
        *,
        timers: Timers,
        members: MemberTable,
        outbox: Outbox,
        spread: Spread,
        is_manager: Callable[[], bool],
        claim: Callable[[State, NodeRecord], Claim],
        on_left: Callable[[str, float], None],
    ) -> None:
        """`claim`: returns this node's signed word of a member's record.

        `on_left`: called when a member is LEFT, and again when there is a claim to show for it.
        """
        self._is_manager = is_manager
        self._claim = claim
        self._timers = timers
        self._members = members
        self._outbox = outbox
        self._spread = spread
        self._on_left = on_left
        self._node_ids: frozenset[str] = frozenset()
        self._departed: set[str] = set()
        """Of whom this manager has just signed it."""

    def __contains__(self, node_id: str) -> bool:
        return node_id in self._node_ids

    def set(self, node_ids: Iterable[str], *, now: float) -> None:
        """Take whom the managers have removed: all of them, in place of whom it was before."""
        self._node_ids = frozenset(node_ids)
        for member in self._members.all():
            if member.node_id in self._node_ids:
                self.expel(member.node_id, now=now)

    def expel(self, node_id: str, *, now: float) -> None:
        """End the life of a removed node that is known as a member."""
        if self._members.known(node_id).state is State.LEFT:
            return
        self._members.expel(node_id, now=now)
        self._on_left(node_id, now)
        if self._is_manager() and node_id not in self._departed:
            self._say_departed(node_id, now)

    def _say_departed(self, node_id: str, now: float) -> None:
        """Sign that a life is over: others take only a manager's word.

        However fast lives follow each other, the newest is ended in the end.
        """
        self._departed.discard(node_id)
        held = self._members.get(node_id)
        if held is None or held.state is not State.LEFT or held.claim is not None:
            return
        self._departed.add(node_id)
        self._timers.at(now + _LIFE_PAUSE_S, partial(self._say_departed, node_id))
        claim = self._claim(State.LEFT, held.record)
        self._members.put_claim(claim, now=now)
        self._on_left(node_id, now)
        self._outbox.send(held.address, claim)
        self._spread.put(NODES, Rank.ACCUSATION, ("node", node_id), claim, now=now)
