"""Hearing: how long a node was deaf, and that whoever is deaf declares nobody dead meanwhile."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.hearing import Hearing
from tests.unit.gossip.detecting import CONFIG, Bench

_DEAF_AFTER_S = CONFIG.deaf_after_s


@given(st.lists(st.floats(0.0, 10.0), max_size=20), st.floats(0.0, 10.0))
def test_only_what_is_too_long_of_each_silence_is_lost(silences: list[float], rest: float) -> None:
    hearing = Hearing(deaf_after_s=_DEAF_AFTER_S)
    now = 5.0
    assert hearing.lost_s(now) == 0, "who never heard anybody is not deaf"
    hearing.heard(now)
    for silence in silences:
        now += silence
        hearing.heard(now)

    lost = [max(0.0, silence - _DEAF_AFTER_S) for silence in [*silences, rest]]
    assert hearing.lost_s(now + rest) == pytest.approx(sum(lost), abs=1e-9)


def test_sleep_is_no_silence() -> None:
    hearing = Hearing(deaf_after_s=_DEAF_AFTER_S)
    hearing.heard(1.0)
    hearing.slept(50.0)

    assert hearing.lost_s(53.0) == 0
    assert hearing.lost_s(55.0) == pytest.approx(2.0)


def test_suspects_get_the_time_that_a_node_was_deaf() -> None:
    bench = Bench(*"bcdefgh")
    bench.detector.hearing.heard(0.0)
    bench.suspect("b", "me", now=0.0)
    bench.run_until(12.0)
    for now in range(12, 60):
        bench.run_until(now)
        bench.detector.hearing.heard(now)

    bench.assert_only_death("b", 24.0 + 10.0)


def test_whoever_stays_deaf_is_cut_off_and_waits_for_twice_the_longest_suspicion() -> None:
    bench = Bench(*"bcdefgh")
    bench.detector.hearing.heard(0.0)
    bench.suspect("b", "me", now=0.0)
    bench.run_until(47.9)
    assert not bench.deaths
    bench.run_until(100.0)

    bench.assert_only_death("b", 48.0)


def test_nobody_waits_for_a_word_of_those_it_suspects() -> None:
    bench = Bench("b", "c")
    bench.detector.hearing.heard(0.0)
    bench.suspect("b", "me", now=0.0)
    bench.suspect("c", "me", now=10.0)
    bench.run_until(100.0)

    assert [name for name, _ in bench.deaths] == ["b", "c"]
    assert bench.deaths[0][1] <= 24.0 + CONFIG.probe_interval_s


def test_end_that_recedes_wakes_the_node_once_an_interval() -> None:
    """The suspicion would end a moment after the node became deaf."""
    config = replace(CONFIG, deaf_after_s=24.0 - 1e-9)
    bench = Bench(*"bcdefgh", config=config)
    bench.detector.hearing.heard(0.0)
    bench.suspect("b", "me", now=0.0)
    wakes = 0
    while bench.timers.due < 40.0:
        bench.timers.fire(bench.timers.due)
        wakes += 1

    assert 10 <= wakes <= 20
    assert not bench.deaths
