"""Whose word is taken about members, and how certificates come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from gossip.hybrid import HybridClock
from gossip.machine import Machine
from gossip.memory import MemoryAuthority
from gossip.waiting import Held, Waiting
from gossip.wire import CertificateOffer, CertificateRequest, NodeRecord, State
from tests.unit.gossip.pair import exchange, make_machine, meet, member
from tests.unit.gossip.stranger import ADDRESS, Stranger

AUTHORITY = MemoryAuthority("c")


def _state(machine: Machine, name: str) -> State | None:
    view = member(machine, name)
    return None if view is None else view.state


def test_own_record_is_taken_with_its_certificate_only() -> None:
    a, z = make_machine("a"), Stranger()
    a.receive_datagram(z.seal(z.record(50)), ADDRESS, now=1.0)

    assert member(a, "z") is None
    assert a.counters.certificates_awaited == 1
    asked = [d for d, to in a.datagrams_to_send() if to == ADDRESS]
    assert asked

    a.receive_datagram(z.seal(z.offer), ADDRESS, now=1.1)
    assert _state(a, "z") is State.ALIVE


def test_two_that_meet_need_no_request() -> None:
    a, b = make_machine("a"), make_machine("b")
    meet(a, b)

    assert _state(a, "b") is _state(b, "a") is State.ALIVE
    assert a.counters.certificates_awaited == b.counters.certificates_awaited == 0


def test_whoever_holds_a_certificate_hands_it_out() -> None:
    a, b, c = make_machine("a"), make_machine("b"), make_machine("c")
    meet(a, b)
    meet(c, a)
    z = Stranger()
    z.tell(b, z.record(50))
    asker = Stranger("y")
    b.datagrams_to_send()
    asker.tell(b, CertificateRequest((z.trust.own.fingerprint, b"unknown")))
    answers = [data for data, to in b.datagrams_to_send() if to == ADDRESS]

    assert any(len(data) > len(z.offer.der) for data in answers)


def test_a_known_record_is_not_checked_again() -> None:
    a, z = make_machine("a"), Stranger()
    z.tell(a, z.record(50))
    checked = a.counters.checked
    for _ in range(20):
        z.tell(a, z.record(50))

    assert a.counters.checked == checked


FORGERIES: tuple[Callable[[NodeRecord], NodeRecord], ...] = (
    lambda r: replace(r, signature=b""),
    lambda r: replace(r, signature=b"x" * 64),
    lambda r: replace(r, node_id="b"),
    lambda r: replace(r, port=1),
    lambda r: replace(r, incarnation=2**32 - 1),
    lambda r: replace(r, epoch=r.epoch + 1),
)


@pytest.mark.parametrize("forge", FORGERIES)
def test_record_that_its_node_did_not_sign_changes_nothing(
    forge: Callable[[NodeRecord], NodeRecord],
) -> None:
    a, z = make_machine("a"), Stranger()
    z.tell(a, forge(z.record(50)))

    assert len(a.members()) == 1
    assert a.counters.refused_forged == 1


def _stranger(not_after: float = 1e9, not_before: float = 0.0, cluster: str = "c") -> Stranger:
    identity = MemoryAuthority(cluster).identity("z", not_before=not_before, not_after=not_after)
    return Stranger(identity=identity)


@pytest.mark.parametrize(
    ("stranger", "reason"),
    [
        (_stranger(not_after=0.5), "refused_expired"),
        (_stranger(not_before=9999), "refused_expired"),
        (_stranger(cluster="other"), "refused_foreign"),
        (Stranger(identity=MemoryAuthority("c", b"own").identity("z")), "refused_foreign"),
    ],
)
def test_only_certificates_of_this_cluster_that_are_valid_now_count(
    stranger: Stranger, reason: str
) -> None:
    a = make_machine("a")
    stranger.tell(a, stranger.record(50))

    assert len(a.members()) == 1
    assert getattr(a.counters, reason) == 1


def test_certificate_that_expires_vouches_for_nothing_new() -> None:
    a, z = make_machine("a"), _stranger(not_after=10.0)
    z.tell(a, z.record(50), now=5.0)
    z.tell(a, z.record(51), now=11.0)

    view = member(a, "z")
    assert view is not None
    assert view.epoch == 50


def test_clock_that_is_ahead_is_counted_and_believed() -> None:
    a, z = make_machine("a"), Stranger()
    z.tell(a, z.record(50, hlc=10_500), now=1.0)
    assert a.counters.clocks_ahead == 0
    z.tell(a, z.record(51, hlc=3_600_000), now=1.0)

    assert a.counters.clocks_ahead == 1
    view = member(a, "z")
    assert view is not None
    assert view.epoch == 51


def test_a_clock_that_was_set_back_goes_on() -> None:
    clock = HybridClock(0.0)
    values = [clock.next(now) for now in (1.0, 1.0, 0.5, 2.0)]
    clock.adjust(-3600.0)
    values.append(clock.next(2.5))

    assert values == sorted(set(values))


def test_departure_is_the_word_of_the_subject_or_of_a_manager() -> None:
    a, b = make_machine("a"), make_machine("b")
    meet(a, b)
    worker = Stranger()
    worker.tell(a, worker.record(50), worker.accuse(State.LEFT, "b", 1000, 0))
    assert _state(a, "b") is State.ALIVE
    assert a.counters.refused_unauthorized == 1
    manager = Stranger("m", identity=AUTHORITY.identity("m", is_manager=True))
    manager.tell(a, manager.accuse(State.LEFT, "b", 1000, 0))
    assert _state(a, "b") is State.LEFT
    worker.tell(a, worker.accuse(State.LEFT, "z", 50, 0))

    assert _state(a, "z") is State.LEFT


def test_accusers_cannot_be_invented() -> None:
    machines = [make_machine(name) for name in "abcde"]
    meet(*machines)
    a = machines[0]
    z = Stranger()
    z.tell(a, z.record(50))
    real = z.accuse(State.DEAD, "b", 1000, 0)
    z.tell(a, *(replace(real, accuser=name) for name in "cde"), replace(real, accuser="nobody"))
    assert _state(a, "b") is State.ALIVE
    assert a.counters.refused_forged >= 3
    z.tell(a, real)
    assert _state(a, "b") is State.SUSPECT
    for machine in machines:
        machine.handle_timer(now=2.0)
    exchange(*machines, now=2.0)

    assert _state(a, "b") is State.ALIVE
    assert machines[1].me.incarnation == 1


@pytest.mark.parametrize("state", [State.DEAD, State.LEFT])
def test_accusations_by_members_that_are_not_up_do_not_count(state: State) -> None:
    a, b, z = make_machine("a"), make_machine("b"), Stranger()
    z.tell(a, z.record(50))
    if state is State.LEFT:
        z.tell(a, z.accuse(State.LEFT, "z", 50, 0))
    while (now := a.next_timer()) < 10.0:
        a.handle_timer(now=now)
    meet(a, b, now=10.0)
    z.tell(a, z.accuse(State.SUSPECT, "b", 1000, 0), z.accuse(State.DEAD, "b", 1000, 0), now=10.0)

    assert _state(a, "z") is state
    assert _state(a, "b") is State.ALIVE
    z.tell(a, z.record(51), z.accuse(State.SUSPECT, "b", 1000, 0), now=10.0)
    assert _state(a, "b") is State.SUSPECT


def test_a_flood_of_forgeries_uses_up_only_its_own_checks() -> None:
    a, z, y = make_machine("a"), Stranger(), Stranger("y")
    z.tell(a, z.record(50))
    forged = [replace(z.record(51), incarnation=n, signature=b"x" * 64) for n in range(1000)]
    for _ in range(12):
        z.tell(a, *forged)
    assert a.counters.checks_put_off > 3000
    y.tell(a, y.record(50), source=("10.8.8.8", 7946))

    assert _state(a, "y") is State.ALIVE
    assert a.counters.checked < 8100


def _held(number: int, now: float) -> Held:
    return Held(NodeRecord(f"n{number}", 1, 0, "10.0.0.1", 1, "10.0.0.1"), ADDRESS, True, now)


def test_little_waits_and_not_for_long() -> None:
    waiting = Waiting()
    for number in range(5000):
        waiting.hold(number.to_bytes(16, "big"), _held(number, 1.0), now=1.0)
        assert len(waiting) <= 1024
    for number in range(100):
        waiting.hold(b"one", _held(number, 2.0), now=2.0)
    assert len(waiting.release(b"one")) == 8
    waiting.hold(b"late", _held(0, 9.0), now=9.0)

    assert len(waiting) == 1


def test_certificate_is_asked_for_now_and_then() -> None:
    waiting = Waiting()
    asked = [waiting.hold(b"one", _held(0, at / 10), now=at / 10) for at in range(10)]

    assert sum(asked) == 5
    assert len(waiting.release(b"one")) == 1
    assert waiting.release(b"one") == []


def test_certificates_of_one_node_take_little_memory() -> None:
    a = make_machine("a")
    z = Stranger()
    z.tell(a, z.record(50))
    for serial in range(100):
        der = AUTHORITY.identity("z", serial=serial, not_after=1e6).certificate.der
        z.tell(a, CertificateOffer(der))
    z.tell(a, z.record(51))

    assert a.counters.certificates_awaited == 0  # the newest of its certificates is here still
