"""The refused path: nobody listens at a member's address, says its host or a forger."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.wire import Nack, NackReason, NodeRecord, PingRequest
from tests.unit.gossip.detecting import CONFIG, Bench
from tests.unit.gossip.pair import address

SHORT_S = CONFIG.refused_suspicion_s


def _refuse(bench: Bench, name: str, now: float) -> list[tuple[PingRequest, str]]:
    """Refuse a packet for a member; return what is asked of which helpers."""
    bench.detector.take_refusal(address(name), now=now)
    return [(request, chr(int(at[0].rpartition(".")[2]))) for request, at in bench.requests()]


def _nack(bench: Bench, asked: list[tuple[PingRequest, str]], count: int, now: float) -> None:
    for request, helper in asked[:count]:
        bench.detector.take_nack(Nack(request.sequence, NackReason.REFUSED), helper, now=now)


def test_refused_probe_asks_helpers_at_once() -> None:
    bench = Bench(*"bcdef")
    ping = bench.start_probe()
    asked = _refuse(bench, ping.target, bench.now)

    assert [request.target for request, _ in asked] == [ping.target] * 3
    assert len({request.sequence for request, _ in asked}) == 3
    assert ping.sequence not in {request.sequence for request, _ in asked}
    bench.run_until(bench.now + 0.9)
    assert bench.requests() == []


@pytest.mark.parametrize("is_probed", [False, True])
def test_two_helpers_that_were_refused_too_make_the_suspicion_short(*, is_probed: bool) -> None:
    bench = Bench(*"bcdef")
    target = bench.start_probe().target
    if not is_probed:
        target = next(name for name in "bcdef" if name != target)
    bench.now += 0.001
    asked = _refuse(bench, target, bench.now)
    assert len(asked) == 3
    _nack(bench, asked, 1, bench.now)
    assert bench.failures == []
    _nack(bench, asked[1:], 1, bench.now)

    assert bench.failures == [target]
    assert bench.suspicions.deadline(target) == pytest.approx(bench.now + SHORT_S)
    assert bench.detector.health == 0
    assert bench.counters.suspicions_refused == 1


def test_a_helper_cannot_say_in_the_name_of_others_that_they_were_refused() -> None:
    """It can seal in their name, but does not know what they were asked."""
    bench = Bench(*"bcdef")
    asked = _refuse(bench, "b", 0.0)
    known, _ = asked[0]
    for name in "bcdef":
        bench.detector.take_nack(Nack(known.sequence, NackReason.REFUSED), name, now=0.01)

    assert bench.failures == []


@pytest.mark.parametrize("others", [0, 1, 2])
def test_fewer_helpers_must_all_have_been_refused(others: int) -> None:
    bench = Bench("b", *"cd"[:others])
    asked = _refuse(bench, "b", 0.0)
    assert len(asked) == others
    if others:
        _nack(bench, asked, others - 1, 0.0)
        assert bench.failures == []
    _nack(bench, asked, others, 0.0)

    assert bench.suspicions.deadline("b") == pytest.approx(SHORT_S)


def test_forged_refusal_on_one_way_harms_nobody() -> None:
    """A helper reaches the member: it is alive, only marked as reached through others."""
    bench = Bench(*"bcdef")
    asked = _refuse(bench, "b", 0.0)
    bench.respond(asked[0][0].sequence, "b", now=0.01)
    _nack(bench, asked[1:], 2, 0.02)
    bench.run_until(30.0)

    assert bench.failures == []
    assert bench.suspicions.deadline("b") is None


def test_refusals_without_an_echo_are_a_failed_probe_like_another() -> None:
    bench = Bench(*"bcdef")
    assert len(_refuse(bench, "b", 0.0)) == 3
    bench.run_until(CONFIG.probe_interval_s)

    assert bench.failures == ["b"]
    assert bench.suspicions.deadline("b") == pytest.approx(CONFIG.probe_interval_s + 24.0)
    assert bench.detector.health == 0


def test_one_check_of_a_member_in_an_interval() -> None:
    bench = Bench(*"bcdef")
    assert len(_refuse(bench, "b", 0.0)) == 3
    assert _refuse(bench, "b", 0.1) == []
    bench.detector.take_refusal(("10.7.7.7", 7), now=0.2)

    assert bench.sent() == []


def test_refusals_that_the_member_refuted_are_not_believed_again_soon() -> None:
    bench = Bench(*"bcdef")
    _nack(bench, _refuse(bench, "b", 0.0), 3, 0.0)
    record = replace(bench.members.known("b").record, incarnation=1)
    bench.members.put_record(record, now=0.5)
    bench.suspicions.clear("b", now=0.5)
    bench.run_until(2.0)
    assert _refuse(bench, "b", 2.0) == []
    bench.run_until(61.0)
    bench.sent()

    assert len(_refuse(bench, "b", 61.0)) == 3


def test_new_life_of_a_refused_member_may_be_refused_again() -> None:
    bench = Bench(*"bcdef")
    _nack(bench, _refuse(bench, "b", 0.0), 3, 0.0)
    host, port = address("b")
    bench.members.put_record(NodeRecord("b", 2, 0, host, port, host), now=0.5)
    bench.suspicions.clear("b", now=0.5)
    bench.run_until(CONFIG.probe_interval_s)
    bench.sent()

    assert len(_refuse(bench, "b", CONFIG.probe_interval_s)) == 3


def test_helper_that_is_refused_says_so_at_once() -> None:
    bench = Bench("b")
    bench.detector.take_request(PingRequest(77, "b", *address("b")), ("10.1.1.1", 1), now=0.0)
    bench.detector.take_refusal(address("b"), now=0.01)

    assert (Nack(77, NackReason.REFUSED), ("10.1.1.1", 1)) in bench.sent()


@given(st.lists(st.tuples(st.sampled_from("bcdefz"), st.floats(0.0, 20.0)), max_size=60))
def test_whatever_is_forged_no_live_member_dies_and_the_traffic_is_bounded(
    forged: list[tuple[str, float]],
) -> None:
    """Members answer every probe: directly for odd sequence numbers, through helpers for even."""
    bench = Bench(*"bcdef")
    bench.detector.start(now=0.0)
    sent = 0
    for name, at in sorted(forged, key=lambda entry: entry[1]):
        bench.run_answering(at)
        bench.detector.take_refusal(address(name), now=at)
        sent += bench.answer(at)
    bench.run_answering(40.0)

    assert (bench.failures, bench.deaths) == ([], [])
    assert sent <= 5 * 4 * 21
