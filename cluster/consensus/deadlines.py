"""Time limits that share one timer.

`asyncio.timeout` sets and cancels a timer for each, and most of ours never run out: that is a
tenth of what a proposal costs. Here a limit is an entry in a table; one timer waits for the
earliest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


_Limit = tuple[float, asyncio.Task[Any]]
"""When, by the loop's clock, and what to cancel."""


class Deadlines:
    """The limits of one manager's calls."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._limits: dict[int, _Limit] = {}
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, work: Coroutine[None, None, _T], timeout_s: float) -> _T:
        """Return what `work` returns.

        Raises:
            TimeoutError: it took longer than `timeout_s` and was cancelled.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("time limits are for tasks")
        self._number += 1
        number = self._number
        at = self._loop.time() + timeout_s
        self._limits[number] = (at, task)
        if self._timer is None or self._timer.when() > at:
            self._set_timer(at)
        cancelling = task.cancelling()
        try:
            return await work
        except asyncio.CancelledError:
            if number not in self._limits and task.uncancel() <= cancelling:
                raise TimeoutError from None
            raise
        finally:
            self._limits.pop(number, None)

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = self._loop.time()
        for number, (at, task) in list(self._limits.items()):
            if at <= now:
                del self._limits[number]
                task.cancel()
        if self._limits:
            self._set_timer(min(at for at, _ in self._limits.values()))
