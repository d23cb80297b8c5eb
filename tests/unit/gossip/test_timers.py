"""Timers fire in order, once, and not when cancelled."""

from __future__ import annotations

from functools import partial

from gossip.timers import Timers


def test_timers_fire_in_order_of_time_then_of_setting() -> None:
    timers, fired = Timers(), list[str]()
    for when, name in ((2.0, "c"), (1.0, "a"), (1.0, "b"), (3.0, "d")):
        timers.at(when, partial(_note, fired, name))

    timers.fire(2.0)

    assert fired == ["a", "b", "c"]
    assert timers.due == 3.0


def test_cancelled_timer_does_not_fire_and_its_id_is_not_used_again() -> None:
    timers, fired = Timers(), list[str]()
    first = timers.at(1.0, partial(_note, fired, "first"))
    timers.cancel(first)
    second = timers.at(1.0, partial(_note, fired, "second"))
    timers.cancel(first)
    timers.fire(5.0)
    timers.cancel(second)

    assert first != second
    assert fired == ["second"]


def test_cancelled_timers_take_no_memory() -> None:
    timers = Timers()
    for _ in range(10_000):
        timers.cancel(timers.at(1.0, print))

    assert len(timers) == 0
    assert timers.due == float("inf")
    assert len(timers._heap) < 200  # pyright: ignore[reportPrivateUsage]  # what is tested


def _note(fired: list[str], name: str, _now: float) -> None:
    fired.append(name)
