"""A node that the managers removed stays out, with its keys, its certificate and a new epoch."""

from __future__ import annotations

import pytest

from gossip.events import MemberChanged, Removed
from gossip.machine import Machine
from gossip.memory import MemoryAuthority
from gossip.wire import State
from tests.unit.gossip.pair import exchange, make_machine, meet, member
from tests.unit.gossip.stranger import Stranger

AUTHORITY = MemoryAuthority("c")
GONE = frozenset({"z"})


def _state(machine: Machine, name: str = "z") -> State | None:
    view = member(machine, name)
    return None if view is None else view.state


def _accuser(machine: Machine) -> str | None:
    view = member(machine, "z")
    return None if view is None else view.accuser


def _begin_life(machine: Machine, epoch: int, *, now: float) -> None:
    life = Stranger(epoch=epoch)
    life.tell(machine, life.record(epoch), now=now)


def _seen(machine: Machine) -> list[State]:
    """Return what was said of the removed node since the last time."""
    events = [event for event in machine.events() if isinstance(event, MemberChanged)]
    return [event.state for event in events if event.node_id == "z"]


@pytest.mark.parametrize("is_manager", [True, False])
def test_no_new_life_of_it_is_ever_alive(*, is_manager: bool) -> None:
    a, z = make_machine("a", is_manager=is_manager), Stranger()
    z.tell(a, z.record(50), now=1.0)
    assert _state(a) is State.ALIVE
    a.events()
    a.set_removed(GONE, now=2.0)
    assert _state(a) is State.LEFT
    for epoch in (51, 52, 99):
        a.handle_timer(now=float(epoch))
        _begin_life(a, epoch, now=float(epoch))
        assert _state(a) is State.LEFT
    view = member(a, "z")
    assert view is not None
    assert (view.epoch, view.accuser) == (99, "a" if is_manager else None)
    assert _seen(a) == [State.LEFT]
    assert a.counters.refused_removed == 3
    assert a.peers("_nodes") == []


def test_one_that_was_never_heard_of_is_out_from_the_start() -> None:
    a, z = make_machine("a"), Stranger()
    a.set_removed(GONE, now=0.5)
    z.tell(a, z.record(50), now=1.0)

    assert _state(a) is State.LEFT


def test_others_take_the_word_of_a_manager_and_those_who_knew_already_pass_it_on() -> None:
    manager, told, other = (make_machine(n, is_manager=n == "a") for n in "abc")
    meet(manager, told, other)
    z = Stranger()
    for machine in (manager, told, other):
        z.tell(machine, z.record(50), now=1.0)
    told.set_removed(GONE, now=2.0)
    for machine in (told, other):
        machine.handle_timer(now=2.5)
    exchange(told, other, now=2.5)
    assert (_state(told), _accuser(told)) == (State.LEFT, None)
    assert _state(other) is State.ALIVE

    manager.set_removed(GONE, now=3.0)
    for now in (3.05, 3.1):
        for machine in (manager, told, other):
            machine.handle_timer(now=now)
        exchange(manager, told, other, now=now)
    assert (_state(other), _accuser(other)) == (State.LEFT, "a")
    assert (_state(told), _accuser(told)) == (State.LEFT, "a")


def test_to_be_told_the_same_again_changes_nothing() -> None:
    a, b = make_machine("a"), make_machine("b")
    meet(a, b)
    for _ in range(2):
        a.set_removed(["b"], now=1.0)
    assert a.counters.signed == 2  # its own record, and the departure
    exchange(a, b, now=1.0)
    assert Removed() in b.events()


def test_who_begins_life_after_life_costs_a_signature_a_second_at_most() -> None:
    a = make_machine("a")
    a.set_removed(GONE, now=0.5)
    before = a.counters.signed
    for step in range(20):
        _begin_life(a, 50 + step, now=1.0 + step / 20)
        assert _state(a) is State.LEFT

    assert a.counters.signed - before == 1
    a.handle_timer(now=2.1)
    assert a.counters.signed - before == 2
    view = member(a, "z")
    assert view is not None
    assert (view.epoch, view.accuser) == (69, "a")
    a.handle_timer(now=9.0)
    assert a.counters.signed - before == 2


def test_nobody_who_was_told_asks_for_a_newer_life() -> None:
    a, b = make_machine("a"), make_machine("b")
    meet(a, b)
    a.set_removed(GONE, now=1.0)
    manager = Stranger("m", identity=AUTHORITY.identity("m", is_manager=True))
    manager.tell(a, manager.record(50), now=2.0)
    a.datagrams_to_send()
    manager.tell(a, manager.accuse(State.LEFT, "z", 99, 0), now=4.0)
    assert a.datagrams_to_send() == []
    a.set_removed((), now=5.0)
    manager.tell(a, manager.accuse(State.LEFT, "z", 99, 0), now=6.0)
    assert a.datagrams_to_send() != []


def test_it_accuses_nobody_and_speaks_of_no_departure() -> None:
    a, b = make_machine("a"), make_machine("b")
    meet(a, b)
    manager = Stranger(identity=AUTHORITY.identity("z", is_manager=True))
    manager.tell(a, manager.record(50))
    a.set_removed(GONE, now=1.0)
    a.events()
    for state in (State.LEFT, State.DEAD, State.SUSPECT):
        for subject in ("a", "b"):
            manager.tell(a, manager.accuse(state, subject, 1000, 0), now=2.0)

    assert (_state(a, "a"), _state(a, "b")) == (State.ALIVE, State.ALIVE)
    assert a.events() == []


def test_one_that_is_remembered_no_longer_may_begin_a_life() -> None:
    a, z = make_machine("a"), Stranger()
    a.set_removed(GONE, now=0.5)
    z.tell(a, z.record(50), now=1.0)
    a.set_removed((), now=2.0)
    z.tell(a, z.record(50), now=3.0)
    assert _state(a) is State.LEFT
    _begin_life(a, 51, now=4.0)
    assert _state(a) is State.ALIVE


def test_a_removed_node_opens_no_stream() -> None:
    a = make_machine("a")
    certificate = MemoryAuthority("c").identity("b", is_manager=False).certificate
    assert a.bearer_untrusted(certificate.der) == "b"
    a.set_removed(["b"], now=1.0)
    before = a.counters.refused_removed

    assert a.bearer_untrusted(certificate.der) is None
    assert a.counters.refused_removed == before + 1
