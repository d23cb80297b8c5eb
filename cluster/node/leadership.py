"""Whether a leader is one for the managers' service calls, too, and not only for Raft.

Raft's connections are made once and stay. A leader whose clock jumped, or whose firewall lets no
new connection in, keeps them, and refuses or never sees all else: then no manager can report which
nodes it sees, and healthy nodes would be DOWN everywhere. Another manager leads better.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from cluster.model.errors import ClusterError

logger = logging.getLogger(__name__)

UNHEARD_S = 3.0
"""Seconds after which a manager's last report does not count: it reports once a second."""
CHECK_S = 1.0
MISSES_MAX = 2
"""Looks in a row that find too few reports. More than one: after a standstill of this process, what
came meanwhile is not read yet."""


async def hand_over_if_unheard(
    others: Callable[[], Collection[str]],
    reporting: Callable[[float], Collection[str]],
    hand_over: Callable[[], Awaitable[None]],
) -> None:
    """Hand over whenever no majority reports here; run this while leading, until cancelled.

    others: the other voters. reporting: managers that reported within so many seconds.
    """
    await asyncio.sleep(UNHEARD_S)
    misses = 0
    while True:
        unheard = {*others()} - {*reporting(UNHEARD_S)}
        misses = 0 if is_majority_heard(len(others()), len(unheard)) else misses + 1
        if misses >= MISSES_MAX:
            logger.warning("handing over: managers do not report here: %s", sorted(unheard))
            try:
                await hand_over()
            except ClusterError as error:
                logger.warning("nobody took over: error=%s", error)
        await asyncio.sleep(CHECK_S)


def is_majority_heard(others: int, unheard: int) -> bool:
    """Tell whether a leader and those of the `others` that it hears are a majority of managers."""
    return 2 * (1 + others - unheard) > 1 + others
