"""Limits run out when they should, and only those."""

from __future__ import annotations

import asyncio

import pytest

from cluster.consensus.deadlines import Deadlines


async def never() -> None:
    await asyncio.get_running_loop().create_future()


async def test_result_in_time() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert await Deadlines().run(work(), 60.0) == 7


async def test_each_limit_runs_out_by_itself() -> None:
    deadlines = Deadlines()
    ended: list[str] = []

    async def wait(name: str, timeout_s: float) -> None:
        with pytest.raises(TimeoutError):
            await deadlines.run(never(), timeout_s)
        ended.append(name)

    async with asyncio.TaskGroup() as group:
        for name, timeout_s in (("third", 0.06), ("first", 0.0), ("second", 0.03)):
            group.create_task(wait(name, timeout_s))

    assert ended == ["first", "second", "third"]


async def test_cancelled_from_outside_is_not_a_timeout() -> None:
    deadlines = Deadlines()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(deadlines.run(never(), 60.0))
        await asyncio.sleep(0)
        task.cancel()

    assert task.cancelled()


async def test_outer_limit_runs_out_first() -> None:
    deadlines = Deadlines()

    async def inner() -> None:
        await deadlines.run(never(), 60.0)

    with pytest.raises(TimeoutError):
        await deadlines.run(inner(), 0.01)
