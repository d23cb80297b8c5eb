"""The output of a service as it goes on: of the tasks that it has, and of those that start later.

Driven by one call of `read` for every client that follows. It ends when the service is deleted and
its tasks have ended; the client may go away earlier (then `read` is cancelled).

Invariant: no task is read twice. At most `LINES_MAX` lines wait for a slow client.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

from cluster.api.backend import Backend, TaskLogLine
from cluster.model.errors import ClusterError
from cluster.model.ids import ServiceId, TaskId
from cluster.model.logs import LogOptions
from cluster.model.task import Task, TaskState
from cluster.task_group import TaskGroup

logger = logging.getLogger(__name__)

LINES_MAX = 256
"""Then the tasks' nodes are asked for no more until the client has read some."""

WATCH_PERIOD_S = 1.0
"""How late it is noticed that this node has left the cluster."""


def has_output(task: Task) -> bool:
    """Return whether there is a node to ask for what this task wrote."""
    return task.node is not None and task.status.state >= TaskState.STARTING


class Follower:
    """Reads the output of one service for one client."""

    def __init__(self, backend: Backend, service: ServiceId, options: LogOptions) -> None:
        self._backend = backend
        self.service = service
        self._options = options
        self._lines: asyncio.Queue[TaskLogLine | None] = asyncio.Queue(LINES_MAX)

    async def read(self) -> None:
        """Read the output, for `lines` to yield, until there will be no more."""
        known: frozenset[TaskId] = frozenset()
        options = self._options
        async with TaskGroup() as group:
            while True:
                with self._backend.watch() as changed:
                    snapshot = self._backend.snapshot()
                    if self.service not in snapshot.services:
                        break
                    tasks = [t for t in snapshot.tasks.values() if t.service == self.service]
                    started = frozenset(t.id for t in tasks if has_output(t))
                    if started - known:
                        group.create_task(self._read_tasks(sorted(started - known), options))
                    known = started
                    # Whatever a task writes that starts from now on is new to the client.
                    options = replace(self._options, tail=None)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(WATCH_PERIOD_S):
                            await changed.wait()
        await self._lines.put(None)

    async def lines(self) -> AsyncIterator[TaskLogLine]:
        """Yield the lines as they come: each task's in order, without order among tasks."""
        while (line := await self._lines.get()) is not None:
            yield line

    async def _read_tasks(self, tasks: list[TaskId], options: LogOptions) -> None:
        try:
            async for line in self._backend.service_logs(tasks, options):
                await self._lines.put(line)
        except ClusterError as error:
            logger.warning("no logs: service=%s error=%s", self.service, error)
