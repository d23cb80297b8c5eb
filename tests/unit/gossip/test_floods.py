"""Small packets of one that holds the key cost others little, and nobody else suffers."""

from __future__ import annotations

from dataclasses import replace

from gossip.machine import Machine
from gossip.memory import MemoryAuthority
from gossip.proof import head_of
from gossip.wire import (
    NODES,
    Challenge,
    Claim,
    Delta,
    Digest,
    NodeRecord,
    Record,
    Stage,
    Stamp,
    State,
)
from tests.unit.gossip.pair import make_machine, meet
from tests.unit.gossip.stranger import ADDRESS, Stranger

_SPOOFED = ("10.7.7.7", 7946)
_ALL = Digest("net", Stage.COMPARE, 2**64 - 1)
"""Asks for everything there is."""


def _teller() -> Machine:
    a = make_machine("a")
    a.attach("net", now=0.0)
    for number in range(1000):
        a.publish("net", f"k{number}", b"v" * 200, now=0.0)
    a.handle_timer(now=1.0)
    a.datagrams_to_send()
    return a


def _bytes_out(machine: Machine) -> int:
    return sum(len(data) for data, _ in machine.datagrams_to_send())


def test_many_questions_in_one_packet_are_not_all_answered() -> None:
    a, z = _teller(), Stranger()
    for _ in range(12):
        z.tell(a, *[_ALL] * 100, source=_SPOOFED)

    assert _bytes_out(a) < 3_000_000
    assert a.counters.answers_put_off > 500


def test_a_flood_of_questions_leaves_answers_for_members_at_the_same_host() -> None:
    a, b, z = _teller(), make_machine("b"), Stranger()
    meet(a, b)
    host, port = b.me.address
    for _ in range(12):
        z.tell(a, *[_ALL] * 100, source=(host, port + 1))
    a.datagrams_to_send()
    a.streams_to_send()
    assert a.counters.answers_put_off > 500
    Stranger("b", b.me.epoch).tell(a, _ALL, source=b.me.address)

    assert [push.node_id for push in a.streams_to_send()] == ["b"]


def test_nobody_is_flooded_with_streams_by_who_asks_in_its_name() -> None:
    a, b = _teller(), make_machine("b")
    meet(a, b)
    liar = Stranger("b", b.me.epoch)
    pushed = 0
    for number in range(100):
        liar.tell(a, _ALL, source=(f"10.7.7.{number}", 7946))
        for push in a.streams_to_send():
            a.stream_done(push.node_id, is_sent=True, now=1.0)
            pushed += 1

    assert 0 < pushed <= 8


def test_whoever_is_unknown_is_asked_who_it_is_but_not_from_every_port() -> None:
    a = make_machine("a")
    x = Stranger("x")
    for number in range(3000):
        a.receive_datagram(x.seal(), ("10.7.7.7", number + 1), now=2.0)

    assert len(a.datagrams_to_send()) < 1500


def test_stale_accusations_are_not_all_answered() -> None:
    a, z = make_machine("a"), Stranger()
    a.datagrams_to_send()
    stale = Claim(State.DEAD, "a", a.me.epoch - 1, 0, "z", 1)
    for _ in range(100):
        z.tell(a, *[stale] * 100, source=_SPOOFED)

    assert _bytes_out(a) < 1_000_000


def test_a_node_signs_no_more_responses_than_it_gives_answers() -> None:
    a, z = make_machine("a"), Stranger()
    for number in range(3000):
        z.tell(a, Challenge(number, "a", number))
        a.datagrams_to_send()
    assert 900 < a.counters.signed < 1100
    z.tell(a, Challenge(1, "a", 1), source=("10.8.8.8", 7946))

    assert len(a.datagrams_to_send()) == 1


def test_streams_carry_nothing_that_asks() -> None:
    a, z = _teller(), Stranger()

    assert not a.receive_frame(z.seal(*[_ALL] * 1000), ADDRESS, peer="z", now=2.0)
    assert _bytes_out(a) < 1000


def test_heads_that_do_not_fit_cost_no_more_than_their_senders_checks() -> None:
    a, z = make_machine("a"), Stranger()
    z.tell(a, z.record(50))
    record = Record("s", 2**20, 0, b"", b"x" * 64)
    head = replace(head_of([record], maximum=2**20, gc=0, hlc=1), count=4096)
    head = z.trust.sign_head(NODES, "z", Stamp(50, 0), head)
    delta = Delta(NODES, "z", Stamp(50, 0), 2**20 - 1, 2**20, 0, (record,), head)
    before = a.counters.checked
    for _ in range(10):
        z.tell(a, *[delta] * 40)

    assert a.counters.checks_put_off > 200
    assert a.counters.checked - before < 500  # 400 records, and fewer than 100 heads


def test_a_frame_of_one_delta_again_and_again_is_refused_before_it_is_looked_at() -> None:
    a, z = make_machine("a"), Stranger()
    z.tell(a, z.record(50))
    delta = Delta(NODES, "z", Stamp(50, 0), 0, 9, 0, (Record("s", 5, 0, b"", b"x" * 64),))
    before = a.counters.checked

    assert not a.receive_frame(z.seal(*[delta] * 32_000), ADDRESS, peer="z", now=2.0)
    assert a.counters.malformed == 1
    assert a.counters.checked == before
    assert a.counters.deltas_in == 0


def _forged(z: Stranger, number: int) -> Delta:
    record = Record(f"s{number}", number, 0, b"", b"x" * 64)
    return Delta(NODES, z.name, Stamp(50, 0), number - 1, number, 0, (record,))


def test_one_frame_has_only_so_many_signatures_checked() -> None:
    a, z = make_machine("a"), Stranger()
    z.tell(a, z.record(50))
    before = a.counters.checked

    assert a.receive_frame(
        z.seal(*[_forged(z, n) for n in range(1, 2001)]), ADDRESS, peer="z", now=2.0
    )
    assert a.counters.checked - before == 1000
    assert a.counters.checks_put_off == 1000
    assert a.receive_frame(z.seal(_forged(z, 1)), ADDRESS, peer="z", now=2.0)
    assert a.counters.checked - before == 1001  # the next frame has its own


def test_heads_cost_what_it_takes_to_look_at_the_log_that_is_held() -> None:
    """Each says that a log of thousands of records is another, of one."""
    a, z = make_machine("a"), Stranger()
    z.tell(a, z.record(50))
    records = [Record(f"s{n}", n, 0, None) for n in range(1, 4097)]
    head = z.trust.sign_head(NODES, "z", Stamp(50, 0), head_of(records, maximum=4096, gc=0, hlc=1))
    log = Delta(NODES, "z", Stamp(50, 0), 0, 4096, 0, tuple(records), head)
    assert a.receive_frame(z.seal(log), ADDRESS, peer="z", now=2.0)
    assert [e.maximum for e in a.positions(NODES) if e.owner == "z"] == [4096]
    said: list[Delta] = []
    for version in range(5000, 6000):
        other = head_of(records[:1], maximum=version, gc=0, hlc=2)
        other = z.trust.sign_head(NODES, "z", Stamp(50, 0), other)
        said.append(Delta(NODES, "z", Stamp(50, 0), version, version, 0, (), other))
    before = a.counters.checked

    assert a.receive_frame(z.seal(*said), ADDRESS, peer="z", now=2.0)
    assert 0 < a.counters.checked - before < 150


def test_hashes_that_differ_everywhere_cost_what_comparing_everybody_takes() -> None:
    a, z = make_machine("a"), Stranger()
    authority = MemoryAuthority("c")
    others = [authority.identity(f"n{n}", is_manager=False).certificate for n in range(500)]
    a.meet(
        (
            (NodeRecord(c.node_id, 5, 0, f"10.1.{n // 250}.{n % 250}", 7946, "10.0.0.1"), c)
            for n, c in enumerate(others)
        ),
        now=0.0,
    )
    for _ in range(100):
        z.tell(a, *[Digest(NODES, Stage.COMPARE, 0, b"x" * 512)] * 10, source=_SPOOFED)

    assert a.counters.answers_put_off > 500
