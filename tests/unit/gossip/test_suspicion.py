"""Suspicions: how long each lasts, and what shortens, postpones and ends it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from gossip.config import GossipConfig
from gossip.wire import Ack
from tests.unit.gossip.detecting import CONFIG, Bench

SWIM = GossipConfig.swim()


@pytest.mark.parametrize("confirmations", [0, 1, 2, 3])
def test_suspicion_shrinks_with_confirmations(confirmations: int) -> None:
    """Eight live nodes: shortest 4 s, longest 24 s, two confirmations wanted."""
    bench = Bench(*"bcdefgh")
    bench.suspect("b", "me", now=0.0)
    for accuser in "cdefgh"[:confirmations]:
        bench.suspect("b", accuser, now=0.0)
        assert not bench.suspect("b", accuser, now=0.0)
    bench.run_until(100.0)

    share = min(1.0, math.log(confirmations + 1) / math.log(3))
    bench.assert_only_death("b", 24 - 20 * share)


def test_two_left_need_nobody_to_confirm() -> None:
    bench = Bench("b")
    bench.suspect("b", "me", now=0.0)
    bench.run_until(100.0)

    bench.assert_only_death("b", 4.0)


def test_cleared_suspicion_does_not_end_a_later_one_early() -> None:
    bench = Bench("b", "c", "d", "e")
    bench.suspect("b", "me", now=0.0)
    bench.suspicions.clear("b", now=1.0)
    bench.suspect("b", "me", now=20.0)
    bench.run_until(100.0)

    bench.assert_only_death("b", 44.0)


def test_without_lha_suspicion_the_shortest_suspicion_is_the_only_one() -> None:
    bench = Bench(*"bcdefgh", config=replace(CONFIG, shrinks_suspicions=False))
    assert bench.suspect("b", "me", now=0.0)
    assert not bench.suspect("b", "c", now=0.0)
    bench.run_until(100.0)

    bench.assert_only_death("b", 4.0)


def test_swim_does_not_excuse_suspicions_of_a_node_that_slept() -> None:
    bench = Bench("b", config=SWIM)
    bench.suspect("b", "me", now=0.0)
    bench.detector.stalled(50.0, now=50.0)
    bench.run_until(50.0)

    bench.assert_only_death("b", 4.0)


def test_deadline_of_a_suspect_and_round_trips_are_shown() -> None:
    bench = Bench(*"bcdefgh")
    assert bench.suspicions.deadline("b") is None
    bench.suspect("b", "me", now=1.0)
    assert bench.suspicions.deadline("b") == pytest.approx(25.0)
    ping = bench.start_probe()
    sent_at = bench.now
    bench.detector.take_ack(Ack(ping.sequence, 0), ping.target, now=sent_at + 0.02)

    assert bench.detector.paths.round_trip_s(ping.target) == pytest.approx(0.02)


@pytest.mark.parametrize(("others", "wanted"), [(1, 0), (2, 1), (3, 2), (7, 2)])
def test_only_live_members_are_expected_to_confirm(others: int, wanted: int) -> None:
    """K = min(alpha - 2, live others - 1): the dead, whose number is 4 here, confirm nothing."""
    bench = Bench(*"bcdefgh"[:others], *"wxyz")
    for name in "wxyz":
        bench.bury(name)
    bench.suspect("b", "me", now=0.0)
    for accuser in "cdefgh"[:wanted]:
        assert bench.suspicions.deadline("b") != pytest.approx(4.0)
        bench.suspect("b", accuser, now=0.0)

    assert bench.suspicions.deadline("b") == pytest.approx(4.0)


def test_node_that_slept_gives_suspects_the_time_back() -> None:
    bench = Bench("b")
    bench.suspect("b", "me", now=0.0)
    bench.detector.stalled(50.0, now=50.0)
    bench.run_until(100.0)

    bench.assert_only_death("b", 54.0)
