"""Runs the core on the event loop: ticks when something came, or when its deadline has.

There is no polling and no thread: an idle follower ticks once per heartbeat. The first exception
out of the core stops everything, because what it left behind is not known; it is `failure`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cluster.consensus.core import RaftCore

_LATE_S = 0.0005
"""The engine compares strictly: at its deadline exactly, it does nothing."""
_SLEEP_S_MAX = 3600.0


class Driver:
    """One core's ticks."""

    def __init__(self, *, after_tick: Callable[[], None]) -> None:
        self.failure: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        """Set when the core must not be used any more."""
        self._loop = asyncio.get_running_loop()
        self._core: RaftCore | None = None
        self._after_tick = after_tick
        self._is_kicked = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self, core: RaftCore) -> None:
        """Begin to tick."""
        self._core = core
        self.kick()

    def stop(self) -> None:
        """Do not tick any more."""
        self._core = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def kick(self) -> None:
        """Tick soon: with whatever else the loop has ready by then, in one sync."""
        if not self._is_kicked and self._core is not None:
            self._is_kicked = True
            self._loop.call_soon(self._tick)

    def guard(self, call: Callable[[], None]) -> None:
        """Do something that enters the core, then tick soon."""

        def whole() -> bool:
            call()
            return True

        self.enter(whole)

    def enter(self, call: Callable[[], bool]) -> None:
        """Do something that enters the core, and tick soon if it returns that it should."""
        if self._core is None:
            return
        try:
            is_tick_due = call()
        except Exception as error:  # noqa: BLE001 - the outermost shell: see `fail`
            self.fail(error)
            return
        if is_tick_due:
            self.kick()

    def fail(self, error: Exception) -> None:
        """Stop for good: nothing is sent and nothing answered; other managers will lead."""
        self.stop()
        if not self.failure.done():
            self.failure.set_result(error)

    def _tick(self) -> None:
        self._is_kicked = False
        core = self._core
        if core is None:
            return
        try:
            has_more = core.tick()
            self._after_tick()
            deadline = core.next_deadline()
        except Exception as error:  # noqa: BLE001 - the outermost shell: see `fail`
            self.fail(error)
            return
        if has_more:
            self.kick()
        else:
            self._wake_at(deadline)

    def _wake_at(self, deadline: float) -> None:
        """Look again at the deadline, or before: deadlines move away with every message."""
        due = min(deadline + _LATE_S, self._loop.time() + _SLEEP_S_MAX)
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._wake)

    def _wake(self) -> None:
        self._timer = None
        if self._core is None:
            return
        deadline = self._core.next_deadline()
        if deadline + _LATE_S > self._loop.time():
            self._wake_at(deadline)
        else:
            self.kick()
