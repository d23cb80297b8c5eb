"""Probes, step by step: who is asked, whom that fails, and what it says of this node itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from gossip.wire import (
    Ack,
    Challenge,
    Claim,
    Nack,
    NackReason,
    Ping,
    PingRequest,
    Response,
    State,
)
from tests.unit.gossip.detecting import CONFIG, Bench
from tests.unit.gossip.pair import address

_ASKER = ("10.1.1.1", 1)


def test_answered_probe_fails_nobody() -> None:
    bench = Bench("b")
    ping = bench.start_probe()
    bench.detector.take_ack(Ack(ping.sequence, 0), "b", now=0.9)
    bench.run_until(1.9)

    assert bench.failures == []
    assert bench.detector.health == 0


def test_unanswered_probe_asks_helpers_then_fails() -> None:
    bench = Bench("b", "c", "d")
    ping = bench.start_probe()
    bench.run_until(1.5)
    requests = [message for message, _ in bench.requests()]
    assert len(requests) == 2
    assert all(request.target == ping.target for request in requests)
    bench.run_until(2.1)

    assert bench.failures[:1] == [ping.target]
    assert bench.detector.health == 1  # two helpers said nothing: the fault may be here


def test_nacks_clear_this_node_of_blame() -> None:
    bench = Bench("b", "c", "d")
    ping = bench.start_probe()
    bench.run_until(1.5)
    nonces = {at: request.sequence for request, at in bench.requests()}
    for helper in {"b", "c", "d"} - {ping.target}:
        nack = Nack(nonces[address(helper)], NackReason.TIMEOUT)
        bench.detector.take_nack(nack, helper, now=1.5)
    bench.run_until(2.1)

    assert bench.failures[:1] == [ping.target]
    assert bench.detector.health == 0


def test_helper_passes_a_response_on_or_says_that_there_is_none() -> None:
    bench = Bench("b")
    request = PingRequest(77, "b", *address("b"))
    bench.detector.take_request(request, _ASKER, now=0.0)
    ((challenge, destination),) = bench.sent()
    assert isinstance(challenge, Challenge)
    assert (challenge.target, challenge.nonce, destination) == ("b", 77, address("b"))
    bench.detector.take_response(Response(challenge.sequence, 4, b"b's own"), now=0.1)
    assert bench.sent() == [(Response(77, 4, b"b's own"), _ASKER)]

    bench.detector.take_request(request, _ASKER, now=0.2)
    bench.sent()
    bench.run_until(0.2 + 0.8 * CONFIG.probe_timeout_s)
    assert bench.sent() == [(Nack(77, NackReason.TIMEOUT), _ASKER)]


def test_requests_at_one_time_are_limited() -> None:
    bench = Bench("b")
    for host in range(10):
        for number in range(1000):
            request = PingRequest(number, "b", *address("b"))
            bench.detector.take_request(request, (f"10.1.1.{host}", number), now=0.0)

    assert len(bench.sent()) == 256


def test_one_that_asks_for_much_help_leaves_some_to_others() -> None:
    bench = Bench("b", "c")
    request = PingRequest(7, "b", *address("b"))
    for port in range(1000):
        bench.detector.take_request(request, ("10.0.0.99", port), now=0.0)  # where "c" lives, too
    assert len(bench.sent()) == 64
    bench.detector.take_request(request, address("c"), now=0.0)

    assert len(bench.sent()) == 1


def test_numbers_of_probes_cannot_be_guessed_from_earlier_ones() -> None:
    """Or a liar answers in the name of the dead."""
    bench = Bench("b")
    first = bench.start_probe()
    bench.detector.take_ack(Ack(first.sequence, 0), "b", now=0.9)
    bench.run_until(2.0)
    (second, *_) = [message for message, _ in bench.sent() if isinstance(message, Ping)]

    assert abs(second.sequence - first.sequence) > 1000


def test_without_lha_probe_health_stays_and_helpers_send_no_nack() -> None:
    bench = Bench("b", "c", "d", config=replace(CONFIG, scales_with_health=False))
    bench.start_probe()
    bench.detector.take_request(PingRequest(7, "b", *address("b")), _ASKER, now=0.0)
    bench.run_until(2.1)

    assert bench.failures
    assert bench.detector.health == 0
    assert [m for m, _ in bench.sent() if isinstance(m, Nack)] == []


@pytest.mark.parametrize("tells", [False, True])
def test_buddy_system_can_be_switched_off(*, tells: bool) -> None:
    bench = Bench("b", config=replace(CONFIG, tells_suspects=tells))
    claim = Claim(State.SUSPECT, "b", 1, 0, "me", 1)
    bench.members.put_claim(claim, now=0.0)
    bench.detector.start(now=0.0)
    bench.timers.fire(bench.timers.due)

    assert [m for m, _ in bench.sent() if isinstance(m, Claim)] == [claim] * tells


def test_health_is_bounded_and_stretches_interval_and_timeout() -> None:
    bench = Bench("b", "c", "d")
    for number in range(20):
        bench.detector.refuted(now=number * 10.0)
    assert bench.detector.health == 7
    bench.start_probe()
    bench.run_until(bench.now + 8 * CONFIG.probe_timeout_s - 0.01)
    assert bench.requests() == []
    bench.run_until(bench.now + 8 * CONFIG.probe_timeout_s)
    assert len(bench.requests()) == 2
    bench.run_until(bench.now + 8 * CONFIG.probe_interval_s - 0.01)
    assert bench.failures == []
    bench.run_until(bench.now + 8 * CONFIG.probe_interval_s)
    assert len(bench.failures) == 1
    assert bench.detector.health == 7


def test_success_heals_and_a_probe_that_no_helper_could_check_worsens() -> None:
    bench = Bench("b")
    bench.detector.refuted(now=0.0)
    ping = bench.start_probe()
    bench.detector.take_ack(Ack(ping.sequence, 0), "b", now=bench.now + 0.01)
    assert bench.detector.health == 0
    bench.run_until(bench.now + 2 * CONFIG.probe_interval_s + 1.0)

    assert bench.failures == ["b"]
    assert bench.detector.health == 1


@pytest.mark.parametrize(
    ("round_trip_s", "wait_s"), [(0.0001, 0.05), (0.02, 0.08), (0.1, 0.4), (0.3, 0.5)]
)
def test_helpers_are_asked_after_four_round_trips(round_trip_s: float, wait_s: float) -> None:
    bench = Bench("b", "c")
    for name in "bc":
        bench.detector.paths.measured(name, round_trip_s)
    bench.start_probe()
    bench.run_until(bench.now + wait_s - 0.001)
    assert bench.requests() == []
    bench.run_until(bench.now + wait_s)

    assert len(bench.requests()) == 1


def test_nack_of_one_who_was_not_asked_says_nothing() -> None:
    bench = Bench(*"bcdefg")
    ping = bench.start_probe()
    bench.run_until(bench.now + 0.5)
    asked = {at: request.sequence for request, at in bench.requests()}
    strangers = [n for n in "bcdefg" if n != ping.target and address(n) not in asked]
    for name in strangers:
        nonce = min(asked.values())
        bench.detector.take_nack(Nack(nonce, NackReason.REFUSED), name, now=1.0)
    bench.run_until(bench.now + 0.99)

    assert len(strangers) == 2
    assert bench.failures == []


def test_response_that_comes_after_the_nack_is_passed_on() -> None:
    """The requester may be slow and wait much longer than the helper's timeout."""
    bench = Bench("b")
    bench.detector.take_request(PingRequest(77, "b", *address("b")), _ASKER, now=0.0)
    ((challenge, _),) = bench.sent()
    assert isinstance(challenge, Challenge)
    bench.run_until(0.4)
    bench.sent()
    bench.detector.take_response(Response(challenge.sequence, 4), now=3.0)

    assert bench.sent() == [(Response(77, 4), _ASKER)]


def _fails_by_what_a_helper_says(say: Callable[[Bench, Ping, int], None]) -> bool:
    bench = Bench("b", "c", "d")
    ping = bench.start_probe()
    bench.run_until(bench.now + 0.5)
    nonce = min(request.sequence for request, _ in bench.requests())
    say(bench, ping, nonce)
    bench.run_until(bench.now + CONFIG.probe_interval_s)
    return bench.failures == [ping.target]


def test_what_the_target_has_signed_answers_a_probe() -> None:
    assert not _fails_by_what_a_helper_says(
        lambda bench, ping, nonce: bench.respond(nonce, ping.target, now=bench.now + 0.6)
    )


LIES: tuple[Callable[[Bench, Ping, int], None], ...] = (
    lambda b, ping, nonce: b.detector.take_ack(Ack(nonce, 0), ping.target, now=b.now + 0.6),
    lambda b, ping, nonce: b.detector.take_ack(Ack(nonce, 0), _other(ping), now=b.now + 0.6),
    lambda b, ping, _: b.detector.take_ack(Ack(ping.sequence, 0), _other(ping), now=b.now + 0.6),
    lambda b, _, nonce: b.detector.take_response(Response(nonce, 1, b"x" * 64), now=b.now + 0.6),
    lambda b, ping, nonce: b.respond(nonce, _other(ping), now=b.now + 0.6),
    lambda b, ping, nonce: b.respond(nonce ^ 1, ping.target, now=b.now + 0.6),
    lambda b, ping, _: b.respond(ping.sequence, ping.target, now=b.now + 0.6),
    lambda b, ping, nonce: b.respond(nonce, ping.target, epoch=2, now=b.now + 0.6),
)


def _other(ping: Ping) -> str:
    return "c" if ping.target == "b" else "b"


@pytest.mark.parametrize("lie", LIES)
def test_a_helper_cannot_answer_for_the_target(lie: Callable[[Bench, Ping, int], None]) -> None:
    assert _fails_by_what_a_helper_says(lie)


def test_member_that_only_helpers_reach_is_flagged_until_it_answers_itself() -> None:
    bench = Bench("b", "c", "d")
    ping = bench.start_probe()
    target = ping.target
    count = 0
    while not bench.paths:  # it is probed again and again meanwhile
        assert ping.target == target
        count += 1
        ping = bench.next_ping_after_help()
    assert (count, bench.paths) == (5, [(target, True)])
    assert bench.detector.paths.is_relay_only(target)
    assert bench.detector.paths.relay_only() == 1
    while ping.target != target:
        bench.detector.take_ack(Ack(ping.sequence, 0), ping.target, now=bench.now + 0.01)
        ping = bench.next_ping()
    bench.help(bench.now + 0.6)
    bench.detector.take_ack(Ack(ping.sequence, 0), target, now=bench.now + 0.7)  # late, but its own
    bench.next_ping()

    assert bench.paths == [(target, True), (target, False)]
    assert bench.failures == []


def test_nothing_rides_on_probes_of_a_member_that_did_not_answer_itself() -> None:
    bench = Bench("b", "c", "d")
    ridden: list[str] = []
    bench.detector.on_probe = lambda node_id, _now: ridden.append(node_id)
    target = bench.start_probe().target
    for _ in range(3):
        assert bench.next_ping_after_help().target == target

    assert ridden == [target]


def test_successor_by_id_is_sent_a_packet_each_second() -> None:
    bench = Bench("a", "n", "z", config=replace(CONFIG, watch_interval_s=1.0))
    bench.detector.start(now=0.0)

    assert bench.watched(9.99)[address("n")] == 10


def test_packet_of_the_last_by_id_goes_to_the_first() -> None:
    bench = Bench("a", "b", config=replace(CONFIG, watch_interval_s=1.0))
    bench.detector.start(now=0.0)

    assert bench.watched(0.99)[address("a")] == 1
