"""Probes and suspicions, step by step."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest

from gossip.broadcast import Queues
from gossip.codec import SealedCodec
from gossip.config import GossipConfig
from gossip.directory import Directory
from gossip.failure import Detector
from gossip.keyring import Keyring
from gossip.member import MemberTable
from gossip.message import unpack_untrusted
from gossip.outbox import Outbox
from gossip.stats import Counters
from gossip.timers import Timers
from gossip.wire import (
    Ack,
    Address,
    Claim,
    Message,
    Nack,
    NackReason,
    NodeRecord,
    Ping,
    PingRequest,
    State,
)
from tests.unit.gossip.pair import KEYS, address

CONFIG = GossipConfig.lan()
SWIM = GossipConfig.swim()


class _Bench:
    """A detector with members a, b, c, ... and what it did."""

    def __init__(self, *names: str, config: GossipConfig = CONFIG) -> None:
        self.failures: list[str] = []
        self.deaths: list[tuple[str, float]] = []
        self.counters = Counters()
        self.timers = Timers()
        self.now = 0.0
        members = self.members = MemberTable()
        for name in names:
            host, port = address(name)
            members.put_record(NodeRecord(name, 1, 0, host, port, host), now=0.0)
        self._outbox = Outbox(
            config=config,
            codec=SealedCodec(Keyring(cluster_id="c", node_id="me", epoch=1, keys=KEYS)),
            members=members,
            directory=Directory(
                node_id="me", epoch=1, config=config, members=members, sign=lambda update: update
            ),
            queues=Queues(),
            counters=self.counters,
        )
        self._reader = Keyring(cluster_id="c", node_id="reader", epoch=1, keys=KEYS)
        self.detector = Detector(
            config=config,
            rng=Random(1),
            timers=self.timers,
            members=members,
            outbox=self._outbox,
            counters=self.counters,
            on_failure=lambda name, _now: self.failures.append(name),
            on_death=lambda name, now: self.deaths.append((name, now)),
        )

    def sent(self) -> list[tuple[Message, Address]]:
        return [
            (message, destination)
            for data, destination in self._outbox.drain()
            for message in unpack_untrusted(self._reader.open_untrusted(data).body)
        ]

    def start_probe(self) -> Ping:
        """Run to the first probe and return it."""
        self.detector.start(now=0.0)
        self.now = self.timers.next()
        self.timers.fire(self.now)
        ((message, _),) = self.sent()
        assert isinstance(message, Ping)
        return message

    def assert_only_death(self, name: str, at: float) -> None:
        assert [dead for dead, _ in self.deaths] == [name]
        assert self.deaths[0][1] == pytest.approx(at)

    def run_until(self, now: float) -> None:
        while self.timers.next() <= now:
            self.timers.fire(self.timers.next())


def test_answered_probe_fails_nobody() -> None:
    bench = _Bench("b")
    ping = bench.start_probe()
    bench.detector.take_ack(Ack(ping.sequence, 0), "b", now=0.9)
    bench.run_until(1.9)

    assert bench.failures == []
    assert bench.detector.health == 0


def test_unanswered_probe_asks_helpers_then_fails() -> None:
    bench = _Bench("b", "c", "d")
    ping = bench.start_probe()
    bench.run_until(1.5)
    requests = [message for message, _ in bench.sent() if isinstance(message, PingRequest)]
    assert len(requests) == 2
    assert all(request.target == ping.target for request in requests)
    bench.run_until(2.1)

    assert bench.failures[:1] == [ping.target]
    assert bench.detector.health == 2  # two helpers said nothing: the fault may be here


def test_nacks_clear_this_node_of_blame() -> None:
    bench = _Bench("b", "c", "d")
    ping = bench.start_probe()
    bench.run_until(1.5)
    for helper in {"b", "c", "d"} - {ping.target}:
        bench.detector.take_nack(Nack(ping.sequence, NackReason.TIMEOUT), helper)
    bench.run_until(2.1)

    assert bench.failures[:1] == [ping.target]
    assert bench.detector.health == 0


def test_helper_passes_an_ack_on_or_says_that_there_is_none() -> None:
    bench = _Bench("b")
    request = PingRequest(77, "b", *address("b"))
    bench.detector.take_request(request, ("10.1.1.1", 1), now=0.0)
    ((ping, destination),) = bench.sent()
    assert isinstance(ping, Ping)
    assert destination == address("b")
    bench.detector.take_ack(Ack(ping.sequence, 4), "b", now=0.1)
    assert bench.sent() == [(Ack(77, 4), ("10.1.1.1", 1))]

    bench.detector.take_request(request, ("10.1.1.1", 1), now=0.2)
    bench.sent()
    bench.run_until(0.2 + 0.8 * CONFIG.probe_timeout_s)
    assert bench.sent() == [(Nack(77, NackReason.TIMEOUT), ("10.1.1.1", 1))]


def test_requests_at_one_time_are_limited() -> None:
    bench = _Bench("b")
    for number in range(1000):
        request = PingRequest(number, "b", *address("b"))
        bench.detector.take_request(request, ("10.1.1.1", 1), now=0.0)

    assert len(bench.sent()) == 256


@pytest.mark.parametrize("confirmations", [0, 1, 2, 3])
def test_suspicion_shrinks_with_confirmations(confirmations: int) -> None:
    """Eight live nodes: shortest 4 s, longest 24 s, two confirmations wanted."""
    bench = _Bench(*"bcdefgh")
    bench.detector.suspect("b", "me", now=0.0)
    for accuser in "cdefgh"[:confirmations]:
        bench.detector.suspect("b", accuser, now=0.0)
        assert not bench.detector.suspect("b", accuser, now=0.0)
    bench.run_until(100.0)

    share = min(1.0, math.log(confirmations + 1) / math.log(3))
    bench.assert_only_death("b", 24 - 20 * share)


def test_two_left_need_nobody_to_confirm() -> None:
    bench = _Bench("b")
    bench.detector.suspect("b", "me", now=0.0)
    bench.run_until(100.0)

    bench.assert_only_death("b", 4.0)


def test_cleared_suspicion_does_not_end_a_later_one_early() -> None:
    bench = _Bench("b", "c", "d", "e")
    bench.detector.suspect("b", "me", now=0.0)
    bench.detector.clear("b")
    bench.detector.suspect("b", "me", now=20.0)
    bench.run_until(100.0)

    bench.assert_only_death("b", 44.0)


def test_without_lha_suspicion_the_shortest_suspicion_is_the_only_one() -> None:
    bench = _Bench(*"bcdefgh", config=replace(CONFIG, shrinks_suspicions=False))
    assert bench.detector.suspect("b", "me", now=0.0)
    assert not bench.detector.suspect("b", "c", now=0.0)
    bench.run_until(100.0)

    bench.assert_only_death("b", 4.0)


def test_without_lha_probe_health_stays_and_helpers_send_no_nack() -> None:
    bench = _Bench("b", "c", "d", config=replace(CONFIG, scales_with_health=False))
    bench.start_probe()
    bench.detector.take_request(PingRequest(7, "b", *address("b")), ("10.1.1.1", 1), now=0.0)
    bench.run_until(2.1)

    assert bench.failures
    assert bench.detector.health == 0
    assert [m for m, _ in bench.sent() if isinstance(m, Nack)] == []


@pytest.mark.parametrize("tells", [False, True])
def test_buddy_system_can_be_switched_off(*, tells: bool) -> None:
    bench = _Bench("b", config=replace(CONFIG, tells_suspects=tells))
    claim = Claim(State.SUSPECT, "b", 1, 0, "me", 1)
    bench.members.put_claim(claim, now=0.0)
    bench.detector.start(now=0.0)
    bench.timers.fire(bench.timers.next())

    assert [m for m, _ in bench.sent() if isinstance(m, Claim)] == [claim] * tells


def test_swim_does_not_excuse_suspicions_of_a_node_that_slept() -> None:
    bench = _Bench("b", config=SWIM)
    bench.detector.suspect("b", "me", now=0.0)
    bench.detector.stalled(50.0, now=50.0)
    bench.run_until(50.0)

    bench.assert_only_death("b", 4.0)


def test_deadline_of_a_suspect_and_round_trips_are_shown() -> None:
    bench = _Bench(*"bcdefgh")
    assert bench.detector.deadline("b") is None
    bench.detector.suspect("b", "me", now=1.0)
    assert bench.detector.deadline("b") == pytest.approx(25.0)
    ping = bench.start_probe()
    sent_at = bench.now
    bench.detector.take_ack(Ack(ping.sequence, 0), ping.target, now=sent_at + 0.02)

    assert bench.detector.round_trip_s(ping.target) == pytest.approx(0.02)
