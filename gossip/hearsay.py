"""Old records of nodes that are not held to be up: the nodes themselves must speak (pure).

A signature says who wrote a record, not when. Long after a node was gone and forgotten, or to one
that has just joined, its last record could be told again and would raise the dead. So whoever is
told one that is not fresh challenges the node, and takes the record once the node has answered in
the same epoch. It is challenged when it is told of again, after ever longer pauses, by its address
first and then through others as well.

Invariants:
    at most `_RUMOURS_MAX` records wait, one for each node: its newest;
    an answer counts for `_VALID_S` only: one that was kept back proves nothing later.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from gossip.waiting import Held
from gossip.wire import MEMBERS_MAX, NodeRecord, Response

RECENT_S = 60.0
"""A record is fresh for so long, by its owner's clock and this node's. In that time the death of a
node that lives no more becomes known."""
_RUMOURS_MAX = MEMBERS_MAX
_FIRST_PAUSE_S = 0.2
_PAUSE_S_MAX = 60.0
_VALID_S = 10.0


@dataclass(slots=True)
class Rumour:
    """A record that waits for its node."""

    record: NodeRecord
    held: Held
    nonce: int = 0
    """Of the last challenge."""
    asked: int = 0
    """How often."""
    asked_at: float = 0.0

    def is_due(self, now: float) -> bool:
        """Tell whether its node may be challenged again."""
        pause_s = min(_PAUSE_S_MAX, _FIRST_PAUSE_S * 2.0 ** min(self.asked - 1, 16))
        return not self.asked or now >= self.asked_at + pause_s


class Hearsay:
    """One node's, by the node they are of."""

    def __init__(self) -> None:
        self._rumours: OrderedDict[str, Rumour] = OrderedDict()
        self._asked: dict[int, Rumour] = {}
        """By the nonce of the last challenge."""

    def about(self, record: NodeRecord) -> Rumour | None:
        """Return the rumour about a record or a newer one of its node."""
        rumour = self._rumours.get(record.node_id)
        return None if rumour is None or _order(rumour.record) < _order(record) else rumour

    def hold(self, record: NodeRecord, held: Held) -> Rumour:
        """Keep a record, in place of an older one of its node."""
        self.drop(record.node_id)
        rumour = self._rumours[record.node_id] = Rumour(record, held)
        if len(self._rumours) > _RUMOURS_MAX:
            self.drop(next(iter(self._rumours)))
        return rumour

    def asked(self, rumour: Rumour, nonce: int, *, now: float) -> None:
        """Take note that a node was challenged; earlier challenges count no longer."""
        self._asked.pop(rumour.nonce, None)
        rumour.nonce, rumour.asked, rumour.asked_at = nonce, rumour.asked + 1, now
        self._asked[nonce] = rumour

    def answered_by(self, response: Response, *, now: float) -> Rumour | None:
        """Return the rumour that a response ends, if it is signed."""
        rumour = self._asked.get(response.sequence)
        if rumour is None or now > rumour.asked_at + _VALID_S:
            return None
        return rumour if rumour.record.epoch == response.epoch else None

    def drop(self, node_id: str) -> None:
        """Forget what is rumoured of a node."""
        rumour = self._rumours.pop(node_id, None)
        if rumour is not None:
            self._asked.pop(rumour.nonce, None)


def _order(record: NodeRecord) -> tuple[int, int]:
    return (record.epoch, record.incarnation)
