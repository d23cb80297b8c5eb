"""Whether a leader is one for the managers' service calls, too, and not only for Raft.

Raft's connections are made once and stay. A leader whose clock jumped, or whose firewall lets no
new connection in, keeps them, and refuses or never sees all else: then no manager can report which
nodes it sees, and healthy nodes would be DOWN everywhere. Another manager leads better.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from cluster.consensus.members import is_majority
from cluster.model.errors import ClusterError

logger = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""How old a report may be: they come once a second, and one that is lost takes 3 s."""
PATIENCE_S_MAX = 320.0
CHECK_S = 1.0
MISSES_MAX = 2
"""Looks in a row that find too few reports. More than one: after a standstill of this process, what
came meanwhile is not read yet."""


class Hearing:
    """What one manager does about being a leader that is not reported to.

    Each time it hands over, it is twice as patient the next time, until it has been heard: where
    two managers cannot report to each other, neither can tell whose fault it is, and leadership
    that goes to and fro would keep the silence of nodes from ever being noticed.
    """

    def __init__(
        self,
        others: Callable[[], Collection[str]],
        reporting: Callable[[float], Collection[str]],
        hand_over: Callable[[], Awaitable[None]],
    ) -> None:
        """Take what it needs.

        Args:
            others: returns the other voters.
            reporting: returns the managers that have reported within so many seconds.
            hand_over: lets another manager lead; may raise ClusterError.
        """
        self._others = others
        self._reporting = reporting
        self._hand_over = hand_over
        self._patience_s = PATIENCE_S

    async def lead(self) -> None:
        """Hand over whenever no majority reports here; run this while leading, until cancelled."""
        await asyncio.sleep(self._patience_s)
        misses = 0
        while True:
            others = {*self._others()}
            unheard = others - {*self._reporting(self._patience_s)}
            if is_majority_heard(len(others), len(unheard)):
                misses, self._patience_s = 0, PATIENCE_S
            else:
                misses += 1
            if misses >= MISSES_MAX:
                misses = 0
                self._patience_s = min(2.0 * self._patience_s, PATIENCE_S_MAX)
                logger.warning("handing over: managers do not report here: %s", sorted(unheard))
                try:
                    await self._hand_over()
                except ClusterError as error:
                    logger.warning("nobody took over: error=%s", error)
            await asyncio.sleep(CHECK_S)


def is_majority_heard(others: int, unheard: int) -> bool:
    """Tell whether a leader and those of the `others` that it hears are a majority of managers."""
    return is_majority(1 + others - unheard, 1 + others)
