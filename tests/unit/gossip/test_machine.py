"""The machine as a whole: junk, refutations, epochs, visibility and attackers with no key."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossip.config import GossipConfig
from gossip.events import EpochRaised, KeysWanted, MemberChanged, RecordsChanged, Removed
from gossip.keyring import GossipKey, KeyState
from gossip.machine import Machine
from gossip.stats import LAG_BOUNDS_S, Lags
from gossip.wire import (
    NODES,
    InvalidError,
    Message,
    Ping,
    Record,
    Stamp,
    State,
    Update,
)
from tests.unit.gossip.pair import address, exchange, make_machine, meet, member, records
from tests.unit.gossip.stranger import ADDRESS, Stranger
from tests.unit.gossip.strategies import messages

NEW = GossipKey(2, b"n" * 32, KeyState.PRIMARY)


def _picture(machine: Machine) -> object:
    return (machine.members(), [machine.records(s) for s in ("net",)], machine.next_timer())


@given(st.binary(max_size=300))
def test_junk_changes_no_state_and_is_not_answered(data: bytes) -> None:
    machine = make_machine("a")
    machine.datagrams_to_send()
    before = _picture(machine)
    for packet in (data, b"hw\x01\x00\x01" + data):
        machine.receive_datagram(packet, ("10.9.9.9", 1), now=0.0)

    assert _picture(machine) == before
    assert machine.datagrams_to_send() == []
    assert machine.counters.malformed + machine.counters.unauthentic >= 1


@settings(max_examples=60)
@given(st.lists(messages, max_size=12))
def test_whatever_a_key_holder_says_the_machine_goes_on(said: list[Message]) -> None:
    machine = make_machine("a")
    machine.attach("net", now=0.0)
    machine.publish("net", "mine", b"1", now=0.0)
    stranger = Stranger()
    for message in said:
        stranger.tell(machine, message)
    machine.handle_timer(now=30.0)
    machine.datagrams_to_send()
    machine.events()

    assert records(machine, "net")["a", "mine"] == b"1"
    assert machine.members()[0].state is State.ALIVE or machine.stats().left >= 1


def test_another_cluster_is_not_heard() -> None:
    a, b = make_machine("a"), make_machine("b", cluster_id="other")
    meet(a, b)

    assert member(a, "b") is None
    assert a.counters.unauthentic > 0


def test_a_newer_key_makes_it_ask_for_the_ring_but_not_at_every_packet() -> None:
    a, b = make_machine("a"), make_machine("b")
    meet(a, b)
    a.events()
    for machine in (a, b):
        machine.handle_timer(now=1.0)
    packets = [data for data, _ in b.datagrams_to_send()]
    b.set_keys([NEW])
    for _ in range(20):
        b.attach("net", now=1.0)
        b.detach("net", now=1.0)
    b.handle_timer(now=1.1)
    newer = [data for data, _ in b.datagrams_to_send()]
    assert packets
    assert newer
    for at in (1.2, 1.3, 6.1, 6.2, 6.3):
        a.receive_datagram(newer[0], b.me.address, now=at)
    assert a.events().count(KeysWanted()) == 2
    assert a.counters.unknown_key == 5
    # What is sealed with a key that is gone is no reason to ask: it is the sender who is behind.
    a.set_keys([NEW])
    a.receive_datagram(packets[0], b.me.address, now=60.0)
    assert KeysWanted() not in a.events()
    assert a.counters.unknown_key == 6


def test_a_lonely_node_looks_for_the_others_as_soon_as_it_has_the_right_keys() -> None:
    a, b = make_machine("a"), make_machine("b")
    a.set_keys([NEW])
    b.join([a.me.address])
    exchange(a, b)
    assert member(a, "b") is None
    b.set_keys([NEW])
    exchange(a, b)
    assert member(b, "a") is not None
    b.set_keys([NEW])  # nothing new
    assert b.datagrams_to_send() == []


def test_two_meet_and_see_each_others_records() -> None:
    a, b = make_machine("a"), make_machine("b")
    for machine in (a, b):
        machine.attach("net", now=0.0)
        machine.publish("net", "key", machine.me.node_id.encode(), now=0.0)
    meet(a, b)
    for machine in (a, b):
        machine.handle_timer(now=0.7)
    exchange(a, b, now=0.7)

    expected = {("a", "key"): b"a", ("b", "key"): b"b"}
    assert records(a, "net") == records(b, "net") == expected
    assert RecordsChanged("net") in a.events()


def test_lag_of_a_record_is_counted_by_how_it_came() -> None:
    a, b = make_machine("a"), make_machine("b")
    for machine in (a, b):
        machine.attach("net", now=0.0)
        machine.publish("net", "first", b"", now=0.0)
    b.join([a.me.address])
    run(a, b, start=0.0, end=5.0)

    a.publish("net", "eager", b"", now=5.0)
    run(a, b, start=5.0, end=6.0)
    a.publish("net", "missed", b"", now=6.0)
    run(a, b, start=6.0, end=6.8, is_lost=True)
    run(a, b, start=6.8, end=20.0)

    counted = b.stats().counters
    assert sum(counted.lag_eager.counts[:4]) == 1, "within 0.1 s"
    assert sum(counted.lag_repaired.counts) == 1
    assert 0.7 < counted.lag_repaired.total_s < 10
    assert counted.repairs >= 1
    b.counters.lag_eager.note(0.0)
    assert sum(counted.lag_eager.counts) == 1, "stats are a picture"


@pytest.mark.parametrize(
    ("lag_s", "bucket"), [(-1.0, 0), (0.01, 0), (0.011, 1), (30.0, len(LAG_BOUNDS_S) - 1), (31, -1)]
)
def test_lags_fall_in_buckets(lag_s: float, bucket: int) -> None:
    lags = Lags()
    lags.note(lag_s)
    assert lags.counts[bucket] == 1
    assert lags.total_s == max(0.0, lag_s)


def run(*machines: Machine, start: float, end: float, is_lost: bool = False) -> None:
    """Let time pass, in steps of 10 ms; `is_lost`: nothing arrives."""
    for step in range(round((end - start) * 100)):
        now = start + step / 100
        for machine in machines:
            if machine.next_timer() <= now:
                machine.handle_timer(now=now)
            if is_lost:
                machine.datagrams_to_send()
        exchange(*machines, now=now)


def test_suspicion_is_refuted_with_a_newer_incarnation() -> None:
    a, b = make_machine("a"), make_machine("b")
    meet(a, b)
    b_again = Stranger("b", b.me.epoch)
    b_again.tell(a, b_again.accuse(State.SUSPECT, "a", a.me.epoch, a.me.incarnation))

    assert a.me.incarnation == 1
    exchange(a, b, now=1.0)
    view = member(b, "a")
    assert view is not None
    assert view.state is State.ALIVE


@pytest.mark.parametrize(
    ("epoch", "incarnation"), [(1000, 1), (1000, 2**32 - 1), (999, 0), (2**64 - 1, 0)]
)
def test_accusation_of_what_one_never_was_is_no_reason_to_refute(
    epoch: int, incarnation: int
) -> None:
    a = make_machine("a")
    z = Stranger()
    z.tell(a, z.accuse(State.DEAD, "a", epoch, incarnation))

    assert (a.me.epoch, a.me.incarnation) == (1000, 0)


def test_one_stranger_cannot_declare_a_member_dead() -> None:
    a, b, c = make_machine("a"), make_machine("b"), make_machine("c")
    meet(a, b, c)
    z, c_again = Stranger(), Stranger("c", 1000)
    z.tell(a, z.accuse(State.DEAD, "b", b.me.epoch, 0))
    view = member(a, "b")
    assert view is not None
    assert view.state is State.ALIVE
    c_again.tell(a, c_again.accuse(State.DEAD, "b", b.me.epoch, 0))

    view = member(a, "b")
    assert view is not None
    assert view.state is State.SUSPECT


def test_swim_believes_a_member_that_declares_another_dead() -> None:
    a, b, c = (make_machine(name, config=GossipConfig.swim()) for name in "abc")
    meet(a, b, c)
    c_again = Stranger("c", 1000)
    c_again.tell(a, c_again.accuse(State.DEAD, "b", b.me.epoch, 0))

    view = member(a, "b")
    assert view is not None
    assert (view.state, view.accuser) == (State.DEAD, "c")


def test_newer_life_of_ones_own_id_is_outbid_once_and_written_down_first() -> None:
    a = make_machine("a")
    a.attach("net", now=0.0)
    a.publish("net", "key", b"1", now=0.0)
    a.events()
    twin = Stranger("a")
    twin.tell(a, twin.record(5000), now=1.0)
    twin.tell(a, twin.record(9000), now=2.0)

    assert a.me.epoch == 5001
    assert EpochRaised(5001) in a.events()
    assert records(a, "net") == {("a", "key"): b"1"}
    assert [entry.stamp.epoch for entry in a.positions("net")] == [5001]


def test_told_to_have_left_this_node_stays_out() -> None:
    a, b = make_machine("a"), make_machine("b")
    meet(a, b)
    a.events()
    b.set_removed(["a"], now=1.0)
    b.handle_timer(now=1.1)
    exchange(a, b, now=1.1)

    assert Removed() in a.events()
    assert a.members()[0].state is State.LEFT


def test_records_of_strangers_and_of_other_scopes_take_no_memory() -> None:
    a, b = make_machine("a"), make_machine("b")
    meet(a, b)
    a.attach("net", now=0.0)
    record = Record("k", 1, 0, b"v")
    said = [Update("net", f"stranger{n}", Stamp(1, 1), record) for n in range(500)] + [
        Update(f"scope{n}", "b", Stamp(1000, 1), record) for n in range(500)
    ]
    stranger = Stranger()
    for update in said:
        stranger.tell(a, update)

    assert a.stats().records <= 2
    assert a.counters.updates_refused == 1000


def test_update_about_oneself_is_refused() -> None:
    a = make_machine("a")
    a.attach("net", now=0.0)
    a.publish("net", "key", b"1", now=0.0)
    Stranger().tell(a, Update("net", "a", Stamp(2**63, 1), Record("key", 9, 0, b"forged")))

    assert records(a, "net") == {("a", "key"): b"1"}


def test_nobody_is_silenced_by_packets_sealed_in_its_name() -> None:
    a, b = make_machine("a"), make_machine("b")
    for machine in (a, b):
        machine.attach("net", now=0.0)
    meet(a, b)
    again = Stranger("b", b.me.epoch)
    packets = [again.seal(Ping(7, "a")) for _ in range(2000)]
    a.receive_datagram(packets[-1], ADDRESS, now=1.0)  # far ahead of the real counter
    b.publish("net", "key", b"1", now=1.0)
    b.handle_timer(now=1.1)
    exchange(a, b, now=1.1)

    assert records(a, "net") == {("b", "key"): b"1"}
    assert a.counters.replayed == 0


def test_a_frame_counts_in_no_other_name_than_its_streams() -> None:
    a, b = make_machine("a"), make_machine("b")
    a.attach("net", now=0.0)
    meet(a, b)
    as_b = Stranger("b", b.me.epoch)

    assert not a.receive_frame(as_b.seal(), ADDRESS, peer="z", now=1.0)
    assert a.receive_frame(as_b.seal(), ADDRESS, peer="b", now=1.0)
    assert a.counters.impostors == 1


def test_a_packet_said_again_from_elsewhere_is_a_replay() -> None:
    a, b = make_machine("a"), make_machine("b")
    meet(a, b)
    b.handle_timer(now=1.0)
    (packet, *_) = [data for data, to in b.datagrams_to_send() if to == a.me.address]
    a.receive_datagram(packet, b.me.address, now=1.0)
    for source in (b.me.address, ADDRESS):
        a.receive_datagram(packet, source, now=1.0)

    assert a.counters.replayed == 2


def test_sleeping_makes_nobody_suspect() -> None:
    a, b = make_machine("a"), make_machine("b")
    meet(a, b)
    a.handle_timer(now=1.0)
    a.datagrams_to_send()
    a.handle_timer(now=60.0)

    assert a.counters.stalls == 1
    assert a.stats().suspect == 0
    assert a.stats().health == 1


def test_member_change_is_an_event() -> None:
    a, b = make_machine("a"), make_machine("b")
    meet(a, b)

    assert MemberChanged("b", State.ALIVE) in a.events()


def test_publishing_the_same_again_says_nothing() -> None:
    a = make_machine("a")
    a.attach("net", now=0.0)
    a.publish("net", "key", b"1", now=0.0)
    before = a.positions("net")
    a.events()
    a.publish("net", "key", b"1", now=0.0)
    a.attach("net", now=0.0)
    a.withdraw("net", "other", now=0.0)

    assert a.positions("net") == before
    assert a.events() == []


@pytest.mark.parametrize(
    ("scope", "key", "value"),
    [("other", "k", b""), ("net", "", b""), ("net", "k" * 129, b""), ("net", "k", b"v" * 1025)],
)
def test_unusable_record_is_refused(scope: str, key: str, value: bytes) -> None:
    a = make_machine("a")
    a.attach("net", now=0.0)

    with pytest.raises(InvalidError):
        a.publish(scope, key, value, now=0.0)


@pytest.mark.parametrize("scope", ["", NODES, "s" * 65])
def test_unusable_scope_is_refused(scope: str) -> None:
    with pytest.raises(InvalidError):
        make_machine("a").attach(scope, now=0.0)


def test_number_of_scopes_is_limited() -> None:
    a = make_machine("a")
    for number in range(256):
        a.attach(f"s{number}", now=0.0)

    with pytest.raises(InvalidError):
        a.attach("more", now=0.0)


def test_largest_record_fits_one_datagram() -> None:
    a, b = make_machine("a"), make_machine("b")
    scope = "s" * 25
    for machine in (a, b):
        machine.attach(scope, now=0.0)
    meet(a, b)
    a.publish(scope, "k" * 64, b"v" * 1024, now=0.5)
    a.handle_timer(now=0.6)
    exchange(a, b, now=0.6)

    assert records(b, scope) == {("a", "k" * 64): b"v" * 1024}
    assert a.counters.oversized == 0


def test_running_twice_is_refused() -> None:
    with pytest.raises(InvalidError):
        make_machine("a").start(address("a"), now=0.0)
