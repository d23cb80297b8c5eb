"""Nobody is silenced by whoever spends its counters, forging its address as well."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.freshness import Freshness, Guards
from gossip.machine import Machine
from gossip.wire import Ack, Address, Ping, State
from tests.unit.gossip.forger import HIGHEST, Forger
from tests.unit.gossip.pair import KEYS, exchange, make_machine, meet, member, records
from tests.unit.gossip.stranger import ADDRESS

PLACE = (b"12345678", 5, ADDRESS)


def _pair() -> tuple[Machine, Machine]:
    a, b = make_machine("a"), make_machine("b")
    for machine in (a, b):
        machine.attach("net", now=0.0)
    meet(a, b)
    return a, b


def _forger(machine: Machine) -> Forger:
    return Forger(machine.me.node_id, machine.me.epoch, KEYS[0])


def _publish(machine: Machine, value: bytes, now: float) -> None:
    machine.publish("net", "key", value, now=now)
    machine.handle_timer(now=now + 0.02)


def _spend_far_ahead(forger: Forger, victim: Machine, teller: Machine, now: float) -> None:
    teller.receive_datagram(forger.seal(HIGHEST), victim.me.address, now=now)


def _spend_the_next(forger: Forger, victim: Machine, teller: Machine, now: float) -> None:
    """Use the very counters that the victim is about to use."""
    for counter in range(1200):
        teller.receive_datagram(forger.seal(counter), victim.me.address, now=now)


@pytest.mark.parametrize("spend", [_spend_far_ahead, _spend_the_next])
def test_a_member_whose_counters_were_spent_is_asked_and_heard_again(
    spend: Callable[[Forger, Machine, Machine, float], None],
) -> None:
    a, b = _pair()
    forger = _forger(b)
    for step in range(1, 20):
        now = float(step)
        spend(forger, b, a, now)
        _publish(b, b"%d" % step, now)
        exchange(a, b, now=now)
    assert a.counters.replayed > 0
    # From now on the spending goes on at every moment, and nothing is lost.
    for step in range(20, 40):
        now = float(step)
        _spend_far_ahead(forger, b, a, now)
        _publish(b, b"%d" % step, now)
        _spend_far_ahead(forger, b, a, now)
        exchange(a, b, now=now)
        assert records(a, "net")["b", "key"] == b"%d" % step


def test_two_whose_counters_were_spent_at_each_other_are_heard_again() -> None:
    a, b = _pair()
    _spend_far_ahead(_forger(b), b, a, 1.0)
    _spend_far_ahead(_forger(a), a, b, 1.0)
    for step in range(1, 4):
        for machine in (a, b):
            _publish(machine, b"%d" % step, float(step))
        exchange(a, b, now=float(step))

    assert records(a, "net") == records(b, "net") == {("a", "key"): b"3", ("b", "key"): b"3"}


def test_one_that_is_not_known_yet_is_heard_though_its_counters_were_spent() -> None:
    a, b = make_machine("a"), make_machine("b")
    a.receive_datagram(_forger(b).seal(HIGHEST), b.me.address, now=0.0)
    a.datagrams_to_send()
    b.join([a.me.address])
    for step in range(5):
        exchange(a, b, now=float(step))
        b.handle_timer(now=float(step))

    view = member(a, "b")
    assert view is not None
    assert view.state is State.ALIVE


def test_who_answers_from_elsewhere_proves_nothing_of_the_member() -> None:
    """Neither can it choose what counter its victim has, nor redirect what is for it."""
    a, b = _pair()
    forger = _forger(b)
    a.receive_datagram(forger.seal(HIGHEST), ADDRESS, now=1.0)
    a.receive_datagram(forger.seal(7, Ping(1, "a")), ADDRESS, now=1.0)
    questions = [data for data, to in a.datagrams_to_send() if to == ADDRESS]
    assert questions
    guesses = [Ack(number, 0) for number in range(100)]
    a.receive_datagram(forger.seal(HIGHEST, *guesses), b.me.address, now=1.1)
    _publish(b, b"1", 1.2)
    exchange(a, b, now=1.2)
    _publish(b, b"2", 2.4)
    exchange(a, b, now=2.4)

    assert records(a, "net")["b", "key"] == b"2"
    assert all(to == b.me.address for _, to in a.datagrams_to_send())


def test_a_packet_that_comes_twice_makes_none_before_the_answer_old() -> None:
    """Nobody's counters were spent: what the network overtakes is not lost."""
    a, b = _pair()
    _publish(b, b"1", 1.0)
    (packet,) = [data for data, to in b.datagrams_to_send() if to == a.me.address][:1]
    for _ in range(2):
        a.receive_datagram(packet, b.me.address, now=1.1)
    _publish(b, b"2", 1.2)
    overtaken = [data for data, to in b.datagrams_to_send() if to == a.me.address]
    exchange(a, b, now=1.2)
    for data in overtaken:
        a.receive_datagram(data, b.me.address, now=1.3)

    assert records(a, "net")["b", "key"] == b"2"
    assert a.counters.replayed == 1


def _sent(machine: Machine, to: Address) -> list[bytes]:
    return [data for data, destination in machine.datagrams_to_send() if destination == to]


def test_who_passes_a_question_on_cannot_say_again_what_he_recorded() -> None:
    """He has no key; that the member answered where he is makes its packets new there, once."""
    a, b = _pair()
    _publish(b, b"1", 1.0)
    (packet, *_) = _sent(b, a.me.address)
    for source in (b.me.address, ADDRESS):
        a.receive_datagram(packet, source, now=1.1)
    for question in _sent(a, ADDRESS):
        b.receive_datagram(question, ADDRESS, now=1.1)
    (answer,) = _sent(b, ADDRESS)
    for source in (b.me.address, ADDRESS):
        a.receive_datagram(answer, source, now=1.1)
    replayed = a.counters.replayed
    _publish(b, b"2", 2.0)
    for recorded in _sent(b, a.me.address):
        for source in (b.me.address, ADDRESS):
            a.receive_datagram(recorded, source, now=2.1)
            replayed += source == ADDRESS

    assert records(a, "net")["b", "key"] == b"2"
    assert a.counters.replayed == replayed > 1


def test_what_waits_for_a_member_goes_to_no_other_address() -> None:
    """Each update rides in so many packets only: whoever draws them off keeps it from others."""
    a, b = _pair()
    a.publish("net", "key", b"v" * 200, now=1.0)
    for counter in range(1000, 1020):
        a.receive_datagram(_forger(b).seal(counter, Ping(1, "a")), ADDRESS, now=1.0)
        assert sum(len(data) for data, to in a.datagrams_to_send() if to == ADDRESS) < 100


def test_what_was_said_before_and_after_a_proof_is_not_taken_twice() -> None:
    a, b = _pair()
    heard: list[bytes] = []
    _spend_far_ahead(_forger(b), b, a, 1.0)
    for step in range(1, 30):
        _publish(b, b"%d" % step, float(step))
        for data, to in b.datagrams_to_send():
            if to == a.me.address:
                heard.append(data)
                a.receive_datagram(data, b.me.address, now=float(step))
        for data, to in a.datagrams_to_send():
            if to == b.me.address:
                b.receive_datagram(data, a.me.address, now=float(step))
    before = a.counters.replayed
    for data in heard:
        a.receive_datagram(data, b.me.address, now=30.0)
        a.receive_datagram(data, ADDRESS, now=30.0)

    assert records(a, "net")["b", "key"] == b"29"
    assert a.counters.replayed == before + 2 * len(heard)


def test_old_packets_make_nobody_ask_or_answer_without_bound() -> None:
    a, b = _pair()
    forger = _forger(b)
    _spend_far_ahead(forger, b, a, 1.0)
    checked, signed = a.counters.checked, a.counters.signed
    a.datagrams_to_send()
    for counter in range(3000):
        a.receive_datagram(forger.seal(counter, Ping(counter, "a")), b.me.address, now=1.0)
    sent = a.datagrams_to_send()

    assert sum(len(data) for data, _ in sent) < 10_000
    assert (a.counters.checked, a.counters.signed) == (checked, signed)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), max_size=200))
def test_a_guard_takes_each_seal_once_and_nothing_that_was_proved(
    packets: list[tuple[int, int]],
) -> None:
    guards = Guards()
    assert guards.take(PLACE, 3, b"seal") is None
    guards.prove(PLACE, 10)
    taken: set[tuple[int, int]] = set()
    for packet in packets:
        counter = packet[0]
        is_new = counter > 10 and packet not in taken
        found = guards.take(PLACE, counter, packet)
        assert (found is not Freshness.OLD) == is_new
        if is_new:
            taken.add(packet)


def test_a_guard_that_fills_up_wants_another_proof() -> None:
    guards = Guards()
    guards.prove(PLACE, 0)
    found = [guards.take(PLACE, counter, counter) for counter in range(1, 1000)]
    assert found.index(Freshness.DUE) == 128
    assert Freshness.OLD not in found
    guards.prove(PLACE, 999)

    assert guards.take(PLACE, 999, b"x") is Freshness.OLD
    assert guards.take(PLACE, 1000, 1000) is Freshness.NEW


def test_there_are_so_many_guards_and_no_more() -> None:
    guards = Guards()
    for number in range(5000):
        guards.prove((b"12345678", number, ADDRESS), 1)
    assert len(guards.by_place) == 1024
