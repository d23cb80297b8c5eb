"""The output of tasks, from whichever node they run on.

A manager asks the nodes that have their session with it; for the others it asks the managers that
have (`cluster.dispatch.peers`). Nothing is stored. A node sends only as much as was asked for
(LOG_CREDIT messages ahead), so a slow reader slows the task's log down, not the session.

A task whose node has no session, or loses it, contributes no (more) lines: that is not an error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from cluster.dispatch.channel import ChannelClosed
from cluster.dispatch.messages import (
    LOG_CREDIT,
    LogCredit,
    LogData,
    LogEnd,
    LogRecord,
    LogRequest,
    LogStop,
    MalformedMessage,
    ManagerMessage,
)
from cluster.model.errors import Unavailable
from cluster.model.ids import NodeId, TaskId
from cluster.model.logs import LogOptions
from cluster.task_group import TaskGroup

logger = logging.getLogger(__name__)

Send = Callable[[ManagerMessage], Awaitable[None]]
LogPages = AsyncGenerator[tuple[LogRecord, ...]]
REQUESTS_MAX = 256
"""Most log requests that one node answers at a time."""


class _Source(Protocol):
    """Where pages come from."""

    async def grant(self) -> None:
        """Let it send one more page."""
        ...

    async def stop(self) -> None:
        """Tell it that nobody reads any more."""
        ...


_Pages = asyncio.Queue[tuple[_Source, tuple[LogRecord, ...] | None]]
"""What all sources of one reader have sent; None: that source has ended. Bounded by credit."""


class NodeLogs:
    """The log requests to one node over one session."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._open: dict[int, _Request] = {}
        self._last = 0

    async def ask(self, pages: _Pages, task: TaskId, options: LogOptions) -> _Source:
        """Ask the node for a task's output, to be put into `pages`.

        Raises:
            Unavailable: the node has too many such requests.
        """
        if len(self._open) >= REQUESTS_MAX:
            raise Unavailable("the node is already asked for as many logs as it may be")
        self._last += 1
        request = _Request(self._last, pages, self)
        self._open[request.number] = request
        await self._try_to_send(LogRequest(request.number, task, options))
        return request

    def receive_untrusted(self, message: LogData | LogEnd) -> None:
        """Take an answer; for a request that nobody waits for any more, drop it.

        Raises:
            MalformedMessage: more than was asked for.
        """
        request = self._open.get(message.request)
        if request is None:
            return
        match message:
            case LogData():
                request.credit -= 1
                if request.credit < 0:
                    raise MalformedMessage("more log lines than were asked for")
                request.pages.put_nowait((request, message.records))
            case LogEnd():
                del self._open[message.request]
                request.pages.put_nowait((request, None))

    def close(self) -> None:
        """End all requests: the session is over."""
        for request in self._open.values():
            request.pages.put_nowait((request, None))
        self._open.clear()

    async def grant(self, request: _Request) -> None:
        """Let the node send one more message."""
        if request.number in self._open:
            request.credit += 1
            await self._try_to_send(LogCredit(request.number, 1))

    async def stop(self, request: _Request) -> None:
        """Tell the node that nobody reads any more."""
        if self._open.pop(request.number, None) is not None:
            await self._try_to_send(LogStop(request.number))

    async def _try_to_send(self, message: ManagerMessage) -> None:
        try:
            await self._send(message)
        except ChannelClosed:
            self.close()


@dataclass(eq=False, slots=True)
class _Request:
    """The output of one task, from a node whose session is here."""

    number: int
    pages: _Pages
    logs: NodeLogs
    credit: int = LOG_CREDIT

    async def grant(self) -> None:
        await self.logs.grant(self)

    async def stop(self) -> None:
        await self.logs.stop(self)


@dataclass(eq=False, slots=True)
class _Remote:
    """What another manager can reach."""

    pages: _Pages
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LOG_CREDIT))
    task: asyncio.Task[None] | None = None

    async def grant(self) -> None:
        self.room.release()

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()

    async def drain(self, source: LogPages) -> None:
        try:
            async with aclosing(source):
                async for page in source:
                    await self.room.acquire()
                    self.pages.put_nowait((self, page))
        except (Unavailable, MalformedMessage) as error:
            logger.warning("no logs from a manager: error=%s", error)
        finally:
            self.pages.put_nowait((self, None))


class LogBroker:
    """Reads the logs of tasks over the sessions of this manager, and through the others."""

    def __init__(self) -> None:
        self._nodes: dict[NodeId, NodeLogs] = {}
        self._group: TaskGroup | None = None

    async def run(self) -> None:
        """Own the reading from other managers, until cancelled."""
        async with TaskGroup() as group:
            self._group = group
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._group = None

    def attach(self, node: NodeId, send: Send) -> NodeLogs:
        """Return the log requests of a new session with the node."""
        logs = NodeLogs(send)
        self._nodes[node] = logs
        return logs

    def detach(self, node: NodeId, logs: NodeLogs) -> None:
        """Forget a session that is over."""
        logs.close()
        if self._nodes.get(node) is logs:
            del self._nodes[node]

    async def read(
        self,
        tasks: Iterable[tuple[TaskId, NodeId]],
        options: LogOptions,
        others: Sequence[LogPages] = (),
    ) -> LogPages:
        """Yield pages of lines as they come: each task's in order, without order among tasks.

        tasks: those whose node has no session here are left out.
        others: what other managers send for the same tasks.
        """
        pages: _Pages = asyncio.Queue()
        sources: set[_Source] = set()
        try:
            for task, node in tasks:
                if node in self._nodes:
                    sources.add(await self._nodes[node].ask(pages, task, options))
            for other in others:
                sources.add(self._start(pages, other))
            while sources:
                source, page = await pages.get()
                if page is None:
                    sources.discard(source)
                    continue
                yield page
                await source.grant()
        finally:
            for source in sources:
                await source.stop()

    def _start(self, pages: _Pages, other: LogPages) -> _Source:
        remote = _Remote(pages)
        if self._group is None:
            raise Unavailable("this manager is stopping")
        remote.task = self._group.create_task(remote.drain(other))
        return remote
