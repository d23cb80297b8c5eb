"""The one control loop: observe a view, decide actions, perform them, wait for a change.

Level-triggered: `decide` is given the whole view, never the event that woke the loop, so a lost or
repeated wake-up changes nothing. `decide` is pure; all I/O is in `perform`, which is given all
actions of one look (a transaction, where consensus is behind it). What failed is not retried as
such: the next look still shows the difference, and `decide` asks for it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from cluster.model.errors import Unavailable

logger = logging.getLogger(__name__)

View = TypeVar("View")
Action = TypeVar("Action")

RETRY_AFTER_S = 0.2
"""Seconds until the next look after a failed one."""
RESYNC_AFTER_S = 30.0
"""Seconds until the next look when nothing changed: heals what no event told us of."""


def _never(_: object) -> None:
    return None


async def reconcile(
    name: str,
    changed: asyncio.Event,
    observe: Callable[[], View],
    decide: Callable[[View], Sequence[Action]],
    perform: Callable[[Sequence[Action]], Awaitable[object]],
    *,
    next_look_s: Callable[[View], float | None] = _never,
    retry_after_s: float = RETRY_AFTER_S,
    rest_s: Callable[[], float] = lambda: 0.0,
) -> None:
    """Run the loop `name` until cancelled.

    next_look_s: seconds after which time alone may ask for something, None: never.
    rest_s: seconds from the end of what was performed until the next look at least.
    """
    while True:
        changed.clear()
        view = observe()
        actions = decide(view)
        done = await _perform(name, actions, perform)
        if actions:
            await asyncio.sleep(rest_s())
        wait_s = min(RESYNC_AFTER_S, next_look_s(view) or RESYNC_AFTER_S) if done else retry_after_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await changed.wait()


async def _perform(
    name: str,
    actions: Sequence[Action],
    perform: Callable[[Sequence[Action]], Awaitable[object]],
) -> bool:
    if not actions:
        return True
    try:
        await perform(actions)
    except Unavailable as error:
        logger.warning("loop was refused, will retry: loop=%s error=%s", name, error)
        return False
    except Exception as error:
        logger.warning("loop failed, will retry: loop=%s error=%r", name, error, exc_info=True)
        return False
    return True
