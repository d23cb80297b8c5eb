"""The statuses of many tasks as few proposals: at most 100 in one, at most ten a second.

The first status after a pause is proposed at once; what comes while a proposal is under way, or
within BATCH_S of it, waits for the next. Source: swarmkit manager/dispatcher (maxBatchItems,
maxBatchInterval).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cluster.dispatch.messages import STATUSES_MAX, StatusReport
from cluster.model.errors import ClusterError, Unavailable
from cluster.model.ids import NodeId
from cluster.state.changes import Change, ReportStatus

logger = logging.getLogger(__name__)

Propose = Callable[[Sequence[Change]], Awaitable[object]]
BATCH_S = 0.1
RETRY_S = 0.5
WAITING_MAX = 10_000
"""Most statuses that wait; a node that brings more waits itself."""


@dataclass(frozen=True, slots=True)
class StatusStats:
    """Counters since start, and what waits now."""

    proposals: int
    statuses: int
    retries: int
    waiting: int


@dataclass(eq=False, slots=True)
class _Submission:
    node: NodeId
    reports: Sequence[StatusReport]
    done: asyncio.Future[None]
    is_waiting: bool = True
    """Neither taken into a proposal, nor given up by who submitted it."""


class StatusBatcher:
    """Collects statuses and proposes them."""

    def __init__(self, propose: Propose) -> None:
        self._propose = propose
        self._queue: deque[_Submission] = deque()
        self._waiting = 0
        """Statuses in the queue."""
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._proposals = 0
        self._statuses = 0
        self._retries = 0

    async def submit(self, node: NodeId, reports: Sequence[StatusReport]) -> None:
        """Return when the statuses (<= STATUSES_MAX) are part of the replicated state."""
        while self._waiting >= WAITING_MAX:
            await self._room.wait()
        submission = _Submission(node, reports, asyncio.get_running_loop().create_future())
        self._queue.append(submission)
        self._count(len(reports))
        try:
            await submission.done
        finally:
            self._forget(submission)

    async def run(self) -> None:
        """Propose until cancelled."""
        while True:
            await self._wake.wait()
            batch = self._take()
            if batch:
                await self._commit(batch)
                await asyncio.sleep(BATCH_S)

    def stats(self) -> StatusStats:
        """Return counters."""
        return StatusStats(self._proposals, self._statuses, self._retries, self._waiting)

    def _count(self, more: int) -> None:
        self._waiting += more
        (self._wake.set if self._waiting else self._wake.clear)()
        (self._room.set if self._waiting < WAITING_MAX else self._room.clear)()

    def _forget(self, submission: _Submission) -> None:
        if submission.is_waiting:
            submission.is_waiting = False
            self._count(-len(submission.reports))

    def _take(self) -> list[_Submission]:
        batch: list[_Submission] = []
        size = 0
        while self._queue:
            first = self._queue[0]
            if first.is_waiting and size + len(first.reports) > STATUSES_MAX:
                break
            self._queue.popleft()
            if first.is_waiting:
                size += len(first.reports)
                self._forget(first)
                batch.append(first)
        return batch

    async def _commit(self, batch: Sequence[_Submission]) -> None:
        changes = [
            ReportStatus(report.task, submission.node, report.status)
            for submission in batch
            for report in submission.reports
        ]
        while changes:
            try:
                await self._propose(changes)
            except Unavailable as error:
                self._retries += 1
                logger.warning(
                    "statuses not committed, will retry: count=%d error=%s", len(changes), error
                )
                await asyncio.sleep(RETRY_S)
            except ClusterError:
                # A status is merged or ignored, never refused; trying again would change nothing.
                logger.exception("statuses refused: count=%d", len(changes))
                break
            else:
                break
        self._proposals += 1
        self._statuses += len(changes)
        for submission in batch:
            if not submission.done.done():
                submission.done.set_result(None)
