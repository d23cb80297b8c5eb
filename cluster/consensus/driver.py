"""Runs the core on the event loop: ticks when something came, or when its deadline has.

There is no polling: an idle follower ticks once per heartbeat. The first exception out of the core
stops everything, because what it left behind is not known; it is `failure`.

What waits for the disk does so in a thread: where that takes long, names, gossip and the API go on
meanwhile. The core does not: what comes for it enters once the tick has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor

from cluster.consensus.core import RaftCore

WAITING_MAX = 64
"""With so much waiting for a tick to end, peers are held back. What they have sent before is at
most what one read of each session takes."""
_AT_ONCE_S = 0.002
"""For so long the loop does wait for the disk: to come back later costs 0.1 ms or so, as much as a
good disk takes."""
_LATE_S = 0.0005
"""The engine compares strictly: at its deadline exactly, it does nothing."""
_SLEEP_S_MAX = 3600.0

Tick = Generator[Callable[[], None], None, bool]
"""See `RaftCore.begin_tick`."""


class Driver:
    """One core's ticks."""

    def __init__(
        self,
        *,
        after_tick: Callable[[], None],
        pause_reading: Callable[[], None],
        resume_reading: Callable[[], None],
    ) -> None:
        """`pause_reading` and `resume_reading`: what peers send."""
        self.failure: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        """Set when the core must not be used any more."""
        self._loop = asyncio.get_running_loop()
        self._core: RaftCore | None = None
        self._after_tick = after_tick
        self._pause_reading = pause_reading
        self._resume_reading = resume_reading
        self._is_kicked = False
        self._timer: asyncio.TimerHandle | None = None
        self._disk = ThreadPoolExecutor(1, "raft-log")
        self._tick: Tick | None = None
        """The one that has not ended: it waits for `_write`."""
        self._write: Future[None] | None = None
        self._writes_since = 0.0
        """Loop time."""
        self._waiting: list[Callable[[], bool]] = []

    @property
    def disk_wait_s(self) -> float:
        """For how long the disk has not answered."""
        return 0.0 if self._write is None else self._loop.time() - self._writes_since

    def start(self, core: RaftCore) -> None:
        """Begin to tick."""
        self._core = core
        self.kick()

    def stop(self) -> None:
        """Do not tick any more. On return, nothing is being written."""
        self._core = self._tick = self._write = None
        self._waiting = []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._disk.shutdown()

    def kick(self) -> None:
        """Tick soon: with whatever else the loop has ready by then, in one sync."""
        if not self._is_kicked and self._core is not None:
            self._is_kicked = True
            if self._tick is None:
                self._loop.call_soon(self._begin_tick)

    def guard(self, call: Callable[[], None]) -> None:
        """Do something that enters the core, then tick soon."""

        def whole() -> bool:
            call()
            return True

        self.enter(whole)

    def enter(self, call: Callable[[], bool]) -> None:
        """Do something that enters the core, and tick soon if it returns that it should.

        While a tick waits for the disk, it is done later, in the order of the calls.
        """
        if self._core is None:
            return
        if self._tick is not None:
            self._waiting.append(call)
            if len(self._waiting) == WAITING_MAX:
                self._pause_reading()
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

    def _begin_tick(self) -> None:
        self._is_kicked = False
        if self._core is not None:
            self._tick = self._core.begin_tick()
            self._go_on(self._core, self._tick)

    def _go_on(self, core: RaftCore, tick: Tick) -> None:
        while self._tick is tick:
            try:
                write = next(tick)
            except StopIteration as end:
                self._end_tick(core, has_more=bool(end.value))
                return
            except Exception as error:  # noqa: BLE001 - the outermost shell: see `fail`
                self.fail(error)
                return
            self._write, self._writes_since = self._disk.submit(write), self._loop.time()
            try:
                self._settle(self._write.exception(_AT_ONCE_S))
            except TimeoutError:
                self._write.add_done_callback(self._announce)
                return

    def _announce(self, write: Future[None]) -> None:
        """Have the loop go on: called in the thread."""
        self._loop.call_soon_threadsafe(self._written, write)

    def _written(self, write: Future[None]) -> None:
        core, tick = self._core, self._tick
        if write is self._write and core is not None and tick is not None:
            self._settle(write.exception())
            self._go_on(core, tick)

    def _settle(self, failure: BaseException | None) -> None:
        """Take note of a write that is done."""
        self._write = None
        if isinstance(failure, Exception):
            self.fail(failure)

    def _end_tick(self, core: RaftCore, *, has_more: bool) -> None:
        self._tick = None
        try:
            self._after_tick()
            deadline = core.next_deadline()
        except Exception as error:  # noqa: BLE001 - the outermost shell: see `fail`
            self.fail(error)
            return
        if self._is_kicked:  # while it went on
            self._loop.call_soon(self._begin_tick)
        elif has_more:
            self.kick()
        waiting, self._waiting = self._waiting, []
        if len(waiting) >= WAITING_MAX:
            self._resume_reading()
        for call in waiting:
            self.enter(call)
        if not self._is_kicked and self._core is not None:
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
