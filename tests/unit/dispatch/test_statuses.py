"""Batching of statuses: at once when idle, together when busy, never lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest

from cluster.dispatch.messages import STATUSES_MAX, StatusReport
from cluster.dispatch.statuses import WAITING_MAX, Propose, StatusBatcher
from cluster.model.errors import Invalid, Unavailable
from cluster.model.ids import NodeId, TaskId
from cluster.model.task import TaskState, TaskStatus
from cluster.state.changes import Change
from tests.unit.dispatch.control_plane import wait_until

NODE = NodeId("n")


def reports(count: int) -> list[StatusReport]:
    status = TaskStatus(TaskState.RUNNING, 1.0)
    return [StatusReport(TaskId(f"t{n}"), status) for n in range(count)]


@asynccontextmanager
async def batching(propose: Propose) -> AsyncGenerator[tuple[StatusBatcher, asyncio.TaskGroup]]:
    batcher = StatusBatcher(propose)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(batcher.run())
        yield batcher, group
        running.cancel()


async def test_what_comes_together_is_proposed_together() -> None:
    sizes: list[int] = []

    async def propose(changes: Sequence[Change]) -> int:
        sizes.append(len(changes))
        return 1

    async with batching(propose) as (batcher, _):
        await batcher.submit(NODE, reports(1))
        async with asyncio.TaskGroup() as busy:
            for _ in range(50):
                busy.create_task(batcher.submit(NODE, reports(5)))
    assert sizes[0] == 1
    assert sum(sizes) == 251
    assert len(sizes) == 4
    assert max(sizes) <= STATUSES_MAX
    assert batcher.stats().waiting == 0


async def test_a_refused_batch_does_not_stop_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = [Invalid("too long"), Unavailable("no leader"), None]

    async def propose(_: Sequence[Change]) -> int:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return 1

    async with batching(propose) as (batcher, _):
        await batcher.submit(NODE, reports(1))
        await batcher.submit(NODE, reports(1))
    assert answers == []
    assert batcher.stats().retries == 1
    assert [r.levelname for r in caplog.records] == ["ERROR", "WARNING"]


async def test_a_submitter_that_goes_away_takes_its_statuses_along() -> None:
    proposed: list[int] = []

    async def propose(changes: Sequence[Change]) -> int:
        proposed.append(len(changes))
        return 1

    batcher = StatusBatcher(propose)
    async with asyncio.TaskGroup() as group:
        leaving = group.create_task(batcher.submit(NODE, reports(3)))
        staying = group.create_task(batcher.submit(NODE, reports(2)))
        await wait_until(lambda: batcher.stats().waiting == 5)
        leaving.cancel()
        await asyncio.wait({leaving})
        running = group.create_task(batcher.run())
        await staying
        running.cancel()
    assert proposed == [2]


async def test_there_is_room_for_only_so_many() -> None:
    async def propose(_: Sequence[Change]) -> int:
        return 1

    batcher = StatusBatcher(propose)
    async with asyncio.TaskGroup() as group:
        submitters = [
            group.create_task(batcher.submit(NODE, reports(100)))
            for _ in range(WAITING_MAX // 100 + 5)
        ]
        await wait_until(lambda: batcher.stats().waiting >= WAITING_MAX)
        await asyncio.sleep(0)
        assert batcher.stats().waiting == WAITING_MAX
        for submitter in submitters:
            submitter.cancel()
    assert batcher.stats().waiting == 0
