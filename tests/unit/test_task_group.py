"""Task groups: what a failed or cancelled group leaves of its task's cancellations."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from cluster.task_group import TaskGroup
from tests.unit.virtual_time import virtual


async def fail_after(seconds: float) -> None:
    await asyncio.sleep(seconds)
    raise ValueError("as it is meant to")


async def fail_when_cancelled() -> None:
    try:
        await asyncio.sleep(60.0)
    finally:
        raise ValueError("as it is meant to")


async def wait_too_long() -> None:
    async with asyncio.timeout(1.0):
        await asyncio.sleep(2.0)


async def is_ended_by_cancelling(work: Coroutine[None, None, None]) -> bool:
    """Cancel `work` after a second, and tell whether that was its end."""
    async with asyncio.TaskGroup() as outer:
        task = outer.create_task(work)
        asyncio.get_running_loop().call_later(1.0, task.cancel)
    return task.cancelled()


def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


@virtual
@pytest.mark.parametrize("body_s", [0.0, 2.0])
async def test_a_time_out_after_a_group_that_failed_is_one(body_s: float) -> None:
    async def fail() -> None:
        async with TaskGroup() as group:
            group.create_task(fail_after(1.0))
            await asyncio.sleep(body_s)

    with pytest.raises(ExceptionGroup):
        await fail()
    assert cancelling() == 0
    with pytest.raises(TimeoutError):
        await wait_too_long()


@virtual
async def test_who_is_cancelled_while_its_group_fails_hears_it_later() -> None:
    reached: list[str] = []

    async def one() -> None:
        try:
            async with TaskGroup() as group:
                group.create_task(fail_when_cancelled())
        except* ValueError:
            reached.append("failure")
        await asyncio.sleep(1.0)
        reached.append("life goes on")

    assert await is_ended_by_cancelling(one())
    assert reached == ["failure"]


@virtual
async def test_who_is_cancelled_in_a_group_without_failures_hears_it_once() -> None:
    reached: list[str] = []

    async def one() -> None:
        try:
            async with TaskGroup() as group:
                group.create_task(asyncio.sleep(60.0))
        finally:
            await asyncio.sleep(1.0)
            reached.append("tidied up")

    assert await is_ended_by_cancelling(one())
    assert reached == ["tidied up"]
