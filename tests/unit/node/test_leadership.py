"""A leader that the other managers cannot report to hands over."""

from __future__ import annotations

import asyncio

import pytest

from cluster.dispatch.server import OUT_OF_TOUCH_S
from cluster.model.errors import Unavailable
from cluster.node.leadership import hand_over_if_unheard, is_majority_heard
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


class Term:
    """A leader of three managers; the others report once a second, unless they are unheard."""

    def __init__(self, unheard_from: dict[str, float]) -> None:
        self._unheard_from = unheard_from
        self.handed_over: list[float] = []
        self.refusals = 0

    async def lead(self, seconds: float) -> None:
        async with asyncio.TaskGroup() as group:
            loop = asyncio.get_running_loop()
            leading = group.create_task(
                hand_over_if_unheard(lambda: {"m2", "m3"}, self._reporting, self._hand_over)
            )
            loop.call_later(seconds, leading.cancel)

    def _reporting(self, within_s: float) -> set[str]:
        now = asyncio.get_running_loop().time()
        reported = {
            name: min(float(int(now)), self._unheard_from.get(name, now)) for name in ("m2", "m3")
        }
        return {name for name, at in reported.items() if at > 0.0 and at >= now - within_s}

    async def _hand_over(self) -> None:
        self.handed_over.append(asyncio.get_running_loop().time())
        if self.refusals:
            self.refusals -= 1
            raise Unavailable("nobody has everything")


@virtual
async def test_a_leader_that_hears_one_of_two_leads_on() -> None:
    term = Term({"m3": 0.0})
    await term.lead(60.0)
    assert not term.handed_over


@virtual
async def test_a_leader_that_hears_nobody_any_more_hands_over_before_sessions_end() -> None:
    term = Term({"m2": 20.0, "m3": 21.0})
    await term.lead(21.0 + OUT_OF_TOUCH_S - 2.0)
    assert term.handed_over
    assert min(term.handed_over) > 23.0


@virtual
async def test_it_tries_again_where_nobody_takes_over(caplog: pytest.LogCaptureFixture) -> None:
    term = Term({"m2": 0.0, "m3": 0.0})
    term.refusals = 1
    await term.lead(8.0)
    assert len(term.handed_over) >= 2
    assert "nobody has everything" in caplog.text
