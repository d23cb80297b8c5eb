"""Queued updates: who goes first, how often, and how many may wait."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gossip.broadcast import QUEUE_MAX, Queues, Rank


def test_own_go_before_relayed_however_old() -> None:
    queues = Queues()
    queues.put("net", Rank.RELAYED_RECORD, "r", b"relayed", packets=2)
    queues.put("net", Rank.OWN_RECORD, "o", b"own", packets=2)
    queues.put("_nodes", Rank.SELF, "s", b"self", packets=2)

    assert queues.take(100, {"net", "_nodes"}) == [b"self", b"own", b"relayed"]


def test_least_sent_goes_first_and_leaves_when_its_budget_is_spent() -> None:
    queues = Queues()
    queues.put("net", Rank.OWN_RECORD, "a", b"a", packets=2)
    assert queues.take(1, {"net"}) == [b"a"]
    queues.put("net", Rank.OWN_RECORD, "b", b"b", packets=1)

    assert queues.take(1, {"net"}) == [b"b"]
    assert queues.take(1, {"net"}) == [b"a"]
    assert queues.take(1, {"net"}) == []
    assert not queues.has("net")


def test_newer_of_the_same_name_takes_the_place() -> None:
    queues = Queues()
    for number in range(1000):
        queues.put("net", Rank.OWN_RECORD, "name", b"%d" % number, packets=3)

    assert len(queues) == 1
    assert queues.take(100, {"net"}) == [b"999"]


def test_scopes_do_not_mix() -> None:
    queues = Queues()
    queues.put("net", Rank.OWN_RECORD, "a", b"a", packets=1)
    queues.put("other", Rank.OWN_RECORD, "b", b"b", packets=1)

    assert queues.take(100, {"net"}) == [b"a"]
    queues.forget("other")
    assert len(queues) == 0


def test_what_does_not_fit_waits_for_a_larger_packet() -> None:
    queues = Queues()
    queues.put("net", Rank.OWN_RECORD, "a", b"a" * 50, packets=1)
    queues.put("net", Rank.OWN_RECORD, "b", b"b" * 5, packets=1)

    assert queues.take(10, {"net"}) == [b"b" * 5]
    assert queues.take(50, {"net"}) == [b"a" * 50]


def test_flood_drops_the_oldest_relayed_and_never_own() -> None:
    queues = Queues()
    queues.put("net", Rank.OWN_RECORD, "own", b"own", packets=1)
    for number in range(QUEUE_MAX + 10):
        queues.put("net", Rank.RELAYED_RECORD, number, b"%d" % number, packets=1)

    assert len(queues) == QUEUE_MAX
    assert queues.dropped == 11
    assert queues.take(5, {"net"}) == [b"own", b"11"]


@given(
    st.lists(st.tuples(st.sampled_from(Rank), st.integers(1, 60)), max_size=40),
    st.integers(0, 200),
)
def test_packet_is_never_over_its_room(puts: list[tuple[Rank, int]], room: int) -> None:
    queues = Queues()
    for number, (rank, size) in enumerate(puts):
        queues.put("net", rank, number, b"x" * size, packets=2)

    assert sum(map(len, queues.take(room, {"net"}))) <= room
