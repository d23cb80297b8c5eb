"""The statuses that no manager has committed yet: the latest of each task.

Nothing here is lost by a session that ends: what was sent but not acknowledged is sent again in the
next one. Bounded by the number of tasks that the node has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import islice

from cluster.dispatch.messages import STATUSES_MAX, StatusReport, cut_texts
from cluster.model.ids import TaskId
from cluster.model.task import TaskStatus


class StatusOutbox:
    """What is yet to be told."""

    def __init__(self) -> None:
        self._waiting: dict[TaskId, TaskStatus] = {}
        self._has_some = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, statuses: Mapping[TaskId, TaskStatus]) -> None:
        """Tell these, in place of earlier statuses of the same tasks."""
        self._waiting.update({task: cut_texts(status) for task, status in statuses.items()})
        if self._waiting:
            self._has_some.set()

    async def next_batch(self) -> tuple[StatusReport, ...]:
        """Return what to send next, once there is something."""
        await self._has_some.wait()
        return tuple(
            StatusReport(task, status)
            for task, status in islice(self._waiting.items(), STATUSES_MAX)
        )

    def acknowledge(self, batch: tuple[StatusReport, ...]) -> None:
        """Forget what is committed, unless a task has a newer status by now."""
        for report in batch:
            if self._waiting.get(report.task) is report.status:
                del self._waiting[report.task]
        if not self._waiting:
            self._has_some.clear()
