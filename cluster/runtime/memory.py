"""A runtime without processes: tasks are tiny scripts on the event loop's clock.

For tests and the simulator; checked by the same tests as the process runtime. A command is one of
`true`, `false`, `exit N`, `sleep SECONDS|infinity`, `echo WORDS`, `trap '' SIGNAL`, or
`sh -c SCRIPT` with those separated by `;` (`echo ... >&2` writes to stderr). An empty command
sleeps for ever, as if the image had said so.

Invariants: time passes only through the loop (`call_later`), so virtual time works. Like
processes, tasks outlive whoever holds this object: keep it over a simulated restart.
"""

from __future__ import annotations

import asyncio
import shlex
import signal as signals
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.model.logs import LogStream
from cluster.runtime.base import Execution, Exit, LogLine, RuntimeFailure
from cluster.runtime.prepare import signal_number

LINES_MAX = 10_000
"""Lines kept per task."""
_KILLED = Exit(128 + signals.SIGKILL)
_PROGRAMS = frozenset({"true", "false", "exit", "sleep", "echo", "trap", "sh"})
_NOT_FOUND = 127
_FIRST_PID = 1000


@dataclass(frozen=True, slots=True)
class _Sleep:
    duration_s: float


@dataclass(frozen=True, slots=True)
class _Echo:
    stream: LogStream
    data: bytes


@dataclass(frozen=True, slots=True)
class _Ignore:
    signal: int


_Step = _Sleep | _Echo | _Ignore | Exit


class MemoryRuntime:
    """Keeps tasks in memory."""

    def __init__(
        self,
        *,
        images: Collection[str] | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Make a runtime where `images` exist (None: every image does)."""
        self._images = images
        self._clock_ns = clock_ns
        self._tasks: dict[str, _Task] = {}

    async def close(self) -> None:
        """See `Runtime.close`."""

    async def prepare(self, execution: Execution) -> None:
        """See `Runtime.prepare`."""
        if self._images is not None and execution.image not in self._images:
            raise RuntimeFailure(f"No such image: {execution.image}")
        if execution.command and execution.command[0] not in _PROGRAMS:
            name = execution.command[0]
            raise RuntimeFailure(f'exec: "{name}": executable file not found in $PATH')
        signal_number(execution.stop_signal)
        self._tasks.setdefault(execution.task_id, _Task(execution.command, self._clock_ns))

    async def start(self, execution: Execution, sandbox: Path | None) -> int:  # noqa: ARG002
        """See `Runtime.start`; the pid is made up."""
        task = self._tasks.get(execution.task_id)
        if task is None:
            raise RuntimeFailure(f"task {execution.task_id} was not prepared")
        if not task.is_started:
            task.start()
        return 0 if task.ended.is_set() else _FIRST_PID + list(self._tasks).index(execution.task_id)

    async def wait(self, task_id: str) -> Exit:
        """See `Runtime.wait`."""
        task = self._tasks.get(task_id)
        if task is None or not task.is_started:
            raise RuntimeFailure(f"task {task_id} was not started")
        await task.ended.wait()
        return task.exit

    async def stop(self, task_id: str, *, signal: str, grace_s: float) -> None:
        """See `Runtime.stop`."""
        number = signal_number(signal)
        task = self._tasks.get(task_id)
        if task is None or not task.is_started:
            return
        task.receive_signal(number)
        try:
            async with asyncio.timeout(grace_s):
                await task.ended.wait()
        except TimeoutError:
            task.end(_KILLED)

    async def remove(self, task_id: str) -> None:
        """See `Runtime.remove`."""
        task = self._tasks.pop(task_id, None)
        if task is not None and task.is_started:
            task.end(_KILLED)

    async def adopt(self) -> Sequence[str]:
        """See `Runtime.adopt`."""
        return sorted(self._tasks)

    async def logs(
        self, task_id: str, *, follow: bool, tail: int | None, since_ns: int
    ) -> AsyncGenerator[LogLine]:
        """See `Runtime.logs`."""
        task = self._tasks.get(task_id)
        if task is None:
            return
        seen = task.lines_written
        kept = [line for line in task.lines if line.written_at_ns >= since_ns]
        for line in kept if tail is None else kept[len(kept) - min(tail, len(kept)) :]:
            yield line
        while follow and not (task.ended.is_set() and seen == task.lines_written):
            if seen == task.lines_written:
                await task.wait_until_changed()
            new = min(task.lines_written - seen, len(task.lines))
            seen = task.lines_written
            for line in list(task.lines)[len(task.lines) - new :]:
                if line.written_at_ns >= since_ns:
                    yield line

    def finish(self, task_id: str, code: int, message: str = "") -> None:
        """Make a running task end as if by itself."""
        self._tasks[task_id].end(Exit(code, message))


class _Task:
    """A script, how far it came and what it wrote."""

    def __init__(self, command: tuple[str, ...], clock_ns: Callable[[], int]) -> None:
        self._steps = deque(_parse(command))
        self._clock_ns = clock_ns
        self._ignored: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self.is_started = False
        self.ended = asyncio.Event()
        self.exit = Exit(0)
        self.lines: deque[LogLine] = deque(maxlen=LINES_MAX)
        self.lines_written = 0

    def start(self) -> None:
        self.is_started = True
        self._run()

    def receive_signal(self, number: int) -> None:
        if number == signals.SIGKILL or number not in self._ignored:
            self.end(Exit(128 + number))

    def end(self, how: Exit) -> None:
        if self.ended.is_set():
            return
        if self._timer is not None:
            self._timer.cancel()
        self.exit = how
        self.ended.set()
        self._wake()

    async def wait_until_changed(self) -> None:
        await self._changed.wait()

    def _run(self) -> None:
        while self._steps:
            match self._steps.popleft():
                case _Sleep(duration_s=duration_s):
                    if duration_s != float("inf"):
                        loop = asyncio.get_running_loop()
                        self._timer = loop.call_later(duration_s, self._run)
                    return
                case _Echo(stream=stream, data=data):
                    self.lines.append(LogLine(stream, self._clock_ns(), data))
                    self.lines_written += 1
                    self._wake()
                case _Ignore(signal=number):
                    self._ignored.add(number)
                case Exit() as how:
                    self.end(how)
                    return
        self.end(Exit(0))

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _parse(command: Sequence[str]) -> list[_Step]:
    steps: list[_Step]
    match tuple(command):
        case ("sh", "-c", script):
            parts = (shlex.split(part) for part in script.split(";"))
            steps = [step for part in parts if part for step in _parse(part)]
        case () | ("sleep", "infinity"):
            steps = [_Sleep(float("inf"))]
        case ("sleep", duration):
            steps = [_Sleep(float(duration))]
        case ("true",):
            steps = []
        case ("false",):
            steps = [Exit(1)]
        case ("exit", code):
            steps = [Exit(int(code))]
        case ("trap", "", name):
            steps = [_Ignore(signal_number(name))]
        case ("echo", *words):
            steps = [_echo(words)]
        case _:
            steps = [Exit(_NOT_FOUND)]
    return steps


def _echo(words: list[str]) -> _Echo:
    if words[-1:] == [">&2"]:
        return _Echo(LogStream.STDERR, " ".join(words[:-1]).encode() + b"\n")
    return _Echo(LogStream.STDOUT, " ".join(words).encode() + b"\n")
