"""The node's side of log requests: reads tasks' output and sends it as far as there is credit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from cluster.dispatch.messages import (
    LOG_CREDIT,
    LOG_RECORDS_MAX,
    LogCredit,
    LogData,
    LogEnd,
    LogRecord,
    LogRequest,
    LogStop,
    NodeMessage,
)
from cluster.model.errors import ClusterError
from cluster.model.ids import TaskId
from cluster.model.logs import LogOptions
from cluster.task_group import TaskGroup

ReadLog = Callable[[TaskId, LogOptions], AsyncGenerator[LogRecord]]
"""Yields the lines of one task; raises ClusterError or OSError if there are none to be had."""
PAGE_BYTES = 256 * 1024
"""A page of lines is sent when it has this many bytes."""
LINE_BYTES_MAX = 64 * 1024
"""Longer lines are cut; runtimes cut them at 16 KiB."""
LINES_AHEAD = 256
"""Lines read but not sent."""
REQUESTS_MAX = 256
CREDIT_MAX = 1024


@dataclass(slots=True)
class _Answer:
    task: asyncio.Task[None]
    credit: asyncio.Semaphore


class LogSender:
    """Answers the log requests of one session."""

    def __init__(
        self,
        read: ReadLog,
        send: Callable[[NodeMessage], Awaitable[None]],
        group: TaskGroup,
    ) -> None:
        self._read = read
        self._send = send
        self._group = group
        self._answers: dict[int, _Answer] = {}

    async def receive(self, message: LogRequest | LogCredit | LogStop) -> None:
        """Do what the manager asks for."""
        match message:
            case LogRequest(request=number):
                if len(self._answers) >= REQUESTS_MAX or number in self._answers:
                    await self._send(LogEnd(number, "the node has too many log requests"))
                    return
                credit = asyncio.Semaphore(LOG_CREDIT)
                task = self._group.create_task(self._answer(message, credit))
                self._answers[number] = _Answer(task, credit)
            case LogCredit(request=number, messages=messages):
                answer = self._answers.get(number)
                if answer is not None:
                    for _ in range(min(max(messages, 0), CREDIT_MAX)):
                        answer.credit.release()
            case LogStop(request=number):
                answer = self._answers.pop(number, None)
                if answer is not None:
                    answer.task.cancel()

    async def _answer(self, request: LogRequest, credit: asyncio.Semaphore) -> None:
        lines: asyncio.Queue[LogRecord | None] = asyncio.Queue(LINES_AHEAD)
        error = ""
        try:
            async with TaskGroup() as group:
                reading = group.create_task(self._read_all(request, lines))
                while page := await _next_page(lines):
                    await credit.acquire()
                    await self._send(LogData(request.request, page))
                error = await reading
        finally:
            self._answers.pop(request.request, None)
        await self._send(LogEnd(request.request, error))

    async def _read_all(self, request: LogRequest, lines: asyncio.Queue[LogRecord | None]) -> str:
        """Read into `lines`, None at the end; return what went wrong, if anything."""
        try:
            async with aclosing(self._read(request.task, request.options)) as source:
                async for line in source:
                    await lines.put(replace(line, data=line.data[:LINE_BYTES_MAX]))
        except (ClusterError, OSError) as error:
            await lines.put(None)
            return str(error)
        await lines.put(None)
        return ""


async def _next_page(lines: asyncio.Queue[LogRecord | None]) -> tuple[LogRecord, ...]:
    """Return some lines, as many as there are now but at least one; none: the end."""
    page: list[LogRecord] = []
    size = 0
    while not page or (not lines.empty() and len(page) < LOG_RECORDS_MAX and size < PAGE_BYTES):
        line = await lines.get()
        if line is None:
            if page:
                lines.put_nowait(None)  # there is room: one was just taken
            break
        page.append(line)
        size += len(line.data)
    return tuple(page)
