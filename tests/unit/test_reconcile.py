"""The control loop: how soon it looks again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from cluster.model.errors import Unavailable
from cluster.reconcile import reconcile
from tests.unit.virtual_time import virtual

REST_S = 0.5


class _Shop:
    """Wants work at given times, and keeps when it was looked at and when work was done."""

    def __init__(self, wanted_at: Sequence[float]) -> None:
        self.changed = asyncio.Event()
        self.looks: list[float] = []
        self.done: list[float] = []
        self._wanted_at = wanted_at

    async def run(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        for at in self._wanted_at:
            loop.call_at(at, self.changed.set)
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(
                reconcile(
                    "shop",
                    self.changed,
                    self._look,
                    range,
                    self._work,
                    rest_s=lambda: REST_S,
                )
            )
            loop.call_at(seconds, looking.cancel)

    def _look(self) -> int:
        now = asyncio.get_running_loop().time()
        self.looks.append(now)
        return sum(at <= now for at in self._wanted_at) - len(self.done)

    async def _work(self, actions: Sequence[int]) -> None:
        self.done += [asyncio.get_running_loop().time()] * len(actions)


@virtual
async def test_work_that_comes_while_the_loop_rests_is_done_together() -> None:
    shop = _Shop([1.0, 1.1, 1.2, 1.3, 2.7])
    await shop.run(5.0)
    assert shop.done == [1.0, 1.5, 1.5, 1.5, 2.7]


@virtual
async def test_a_look_that_asks_for_nothing_is_not_rested_from() -> None:
    shop = _Shop([])
    asyncio.get_running_loop().call_at(1.0, shop.changed.set)
    asyncio.get_running_loop().call_at(1.1, shop.changed.set)
    await shop.run(5.0)
    assert shop.looks == [0.0, 1.0, 1.1]


@virtual
async def test_a_refusal_is_one_line_in_the_log_and_what_is_asked_for_comes_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Refused(_Shop):
        async def _work(self, actions: Sequence[int]) -> None:
            if asyncio.get_running_loop().time() < 1.0:
                raise Unavailable("there is no leader")
            await super()._work(actions)

    shop = Refused([0.95])
    await shop.run(5.0)
    assert len(shop.done) == 1
    assert [record.exc_info for record in caplog.records] == [None]
    assert "there is no leader" in caplog.text
