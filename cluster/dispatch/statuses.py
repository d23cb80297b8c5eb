"""The statuses of many tasks as few proposals: at most 100 in one, at most ten a second.

The first status after a pause is proposed at once; what comes while a proposal is under way, or
within BATCH_S of it, waits for the next. Source: swarmkit manager/dispatcher (maxBatchItems,
maxBatchInterval).
"""

from __future__ import annotations

import asyncio
import logging
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


@dataclass(slots=True)
class _Submission:
    node: NodeId
    reports: Sequence[StatusReport]
    done: asyncio.Future[None]


class StatusBatcher:
    """Collects statuses and proposes them."""

    def __init__(self, propose: Propose) -> None:
        self._propose = propose
        self._waiting: list[_Submission] = []
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._proposals = 0
        self._statuses = 0
        self._retries = 0

    async def submit(self, node: NodeId, reports: Sequence[StatusReport]) -> None:
        """Return when the statuses (<= STATUSES_MAX) are part of the replicated state."""
        await self._room.wait()
        submission = _Submission(node, reports, asyncio.get_running_loop().create_future())
        self._waiting.append(submission)
        self._look()
        try:
            await submission.done
        finally:
            if submission in self._waiting:
                self._waiting.remove(submission)
                self._look()

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
        return StatusStats(self._proposals, self._statuses, self._retries, self._count())

    def _count(self) -> int:
        return sum(len(s.reports) for s in self._waiting)

    def _look(self) -> None:
        (self._wake.set if self._waiting else self._wake.clear)()
        (self._room.set if self._count() < WAITING_MAX else self._room.clear)()

    def _take(self) -> list[_Submission]:
        batch: list[_Submission] = []
        size = 0
        while self._waiting and size + len(self._waiting[0].reports) <= STATUSES_MAX:
            submission = self._waiting.pop(0)
            size += len(submission.reports)
            if not submission.done.cancelled():
                batch.append(submission)
        self._look()
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
