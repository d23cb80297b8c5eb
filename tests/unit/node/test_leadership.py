"""A leader that the other managers cannot report to hands over."""

from __future__ import annotations

import asyncio

import pytest

from cluster.model.errors import Unavailable
from cluster.node.leadership import (
    CHECK_S,
    MISSES_MAX,
    PATIENCE_S,
    Hearing,
    is_majority_heard,
)
from tests.unit.virtual_time import virtual


@pytest.mark.parametrize(
    ("others", "unheard", "expected"),
    [
        (0, 0, True),
        (1, 0, True),
        (1, 1, False),
        (2, 1, True),
        (2, 2, False),
        (3, 1, True),
        (3, 2, False),
        (4, 2, True),
        (4, 3, False),
    ],
)
def test_a_majority_is_more_than_half_of_all_managers(
    others: int, unheard: int, expected: bool
) -> None:
    assert is_majority_heard(others, unheard) is expected


class Manager:
    """One of three managers; the others report once a second, unless it does not hear them."""

    def __init__(self, deaf_to: dict[str, float]) -> None:
        """deaf_to: from when on each of them is not heard."""
        self.deaf_to = deaf_to
        self.handed_over: list[float] = []
        self.refusals = 0
        self._hearing = Hearing(lambda: {"m2", "m3"}, self._reporting, self._hand_over)

    async def lead(self, seconds: float) -> None:
        async with asyncio.TaskGroup() as group:
            leading = group.create_task(self._hearing.lead())
            asyncio.get_running_loop().call_later(seconds, leading.cancel)

    def _reporting(self, within_s: float) -> set[str]:
        now = asyncio.get_running_loop().time()
        last = {name: min(float(int(now)), self.deaf_to.get(name, now)) for name in ("m2", "m3")}
        return {name for name, at in last.items() if at > 0.0 and at >= now - within_s}

    async def _hand_over(self) -> None:
        self.handed_over.append(asyncio.get_running_loop().time())
        if self.refusals:
            self.refusals -= 1
            raise Unavailable("nobody has everything")


@virtual
async def test_a_leader_that_hears_one_of_two_leads_on() -> None:
    manager = Manager({"m3": 0.0})
    await manager.lead(60.0)
    assert not manager.handed_over


@virtual
async def test_a_leader_that_hears_nobody_any_more_hands_over() -> None:
    manager = Manager({"m2": 20.0, "m3": 21.0})
    await manager.lead(31.0)
    assert 21.0 + PATIENCE_S < manager.handed_over[0] <= 21.0 + PATIENCE_S + MISSES_MAX * CHECK_S


@virtual
async def test_two_reports_that_are_late_are_no_reason() -> None:
    manager = Manager({"m2": 20.0, "m3": 20.0})
    asyncio.get_running_loop().call_at(20.0 + PATIENCE_S + CHECK_S / 2, manager.deaf_to.clear)
    await manager.lead(60.0)
    assert not manager.handed_over


@virtual
async def test_it_is_more_patient_each_time_until_it_is_heard() -> None:
    clock = asyncio.get_running_loop().time
    manager = Manager({"m2": 0.0, "m3": 0.0})
    waited: list[float] = []
    for _ in range(4):  # four terms, each as long as it takes
        begun = clock()
        await manager.lead(2.0 ** len(waited) * PATIENCE_S + 1.5 * CHECK_S)
        waited += [at - begun for at in manager.handed_over]
        manager.handed_over.clear()
    assert waited == [2.0**n * PATIENCE_S + CHECK_S for n in range(4)]

    manager.deaf_to.clear()
    await manager.lead(20.0 * PATIENCE_S)
    manager.deaf_to = {"m2": clock(), "m3": clock()}
    begun = clock()
    await manager.lead(20.0)
    assert manager.handed_over[0] - begun <= PATIENCE_S + MISSES_MAX * CHECK_S


@virtual
async def test_it_tries_again_where_nobody_takes_over(caplog: pytest.LogCaptureFixture) -> None:
    manager = Manager({"m2": 0.0, "m3": 0.0})
    manager.refusals = 1
    await manager.lead(20.0)
    assert len(manager.handed_over) >= 2
    assert "nobody has everything" in caplog.text
