"""What people are shown of the tables: hidden and deleted records too."""

from __future__ import annotations

from gossip.events import LogView, StoredView
from gossip.machine import Machine
from gossip.wire import NODES
from tests.unit.gossip.pair import exchange, make_machine, meet


def test_logs_and_records_as_they_are_held() -> None:
    a, b = make_machine("a"), make_machine("b")
    for machine in (a, b):
        machine.attach("net", now=0.0)
    b.publish("net", "gone", b"1", now=0.0)
    b.publish("net", "key", b"value", now=0.5)
    b.withdraw("net", "gone", now=1.0)
    settle(a, b)

    log = log_of(a, "net", "b")
    assert (log.epoch, log.version, log.gc) == (1000, 3, 0)
    assert (log.records, log.tombstones, log.is_visible) == (1, 1, True)
    assert log.written_at == 1.0
    assert log.size_bytes > 0
    assert {view.owner for view in a.logs() if view.scope == NODES} == {"a", "b"}
    assert a.stored("net") == [
        StoredView("b", "gone", 3, None, is_visible=False, written_at=1.0),
        StoredView("b", "key", 2, 5, is_visible=True, written_at=0.5),
    ]


def test_the_dead_are_hidden_and_shown() -> None:
    a, b = make_machine("a"), make_machine("b")
    for machine in (a, b):
        machine.attach("net", now=0.0)
    b.publish("net", "key", b"value", now=0.0)
    settle(a, b)
    for step in range(600):
        if a.next_timer() <= step / 2:
            a.handle_timer(now=step / 2)
        a.datagrams_to_send()

    assert a.records("net") == ()
    log = log_of(a, "net", "b")
    assert (log.records, log.is_visible) == (1, False)
    assert [(view.key, view.is_visible) for view in a.stored("net")] == [("key", False)]


def settle(*machines: Machine) -> None:
    meet(*machines)
    for step in range(1, 200):
        for machine in machines:
            if machine.next_timer() <= step / 100:
                machine.handle_timer(now=step / 100)
        exchange(*machines, now=step / 100)


def log_of(machine: Machine, scope: str, owner: str) -> LogView:
    return next(v for v in machine.logs() if (v.scope, v.owner) == (scope, owner))
