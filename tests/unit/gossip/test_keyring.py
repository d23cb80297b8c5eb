"""Sealed packets: only this cluster's, only once, under any key of the ring."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.freshness import Freshness
from gossip.keyring import (
    GossipKey,
    Keyring,
    KeyState,
    KeyView,
    Rejected,
    RejectedPacketError,
    sender_tag,
)
from gossip.wire import InvalidError

OLD = GossipKey(1, b"1" * 32, KeyState.PRIMARY)
NEW = GossipKey(2, b"2" * 16, KeyState.PRIMARY)
A, B, C = (("10.0.0.1", 7946), ("10.0.0.2", 7946), ("10.0.0.3", 7946))
"""Where the nodes listen."""


def _as(key: GossipKey, state: KeyState) -> GossipKey:
    return GossipKey(key.key_id, key.key, state)


def _ring(node_id: str = "a", *keys: GossipKey, epoch: int = 5, cluster_id: str = "c") -> Keyring:
    return Keyring(cluster_id=cluster_id, node_id=node_id, epoch=epoch, keys=keys or (OLD,))


def _is_new(ring: Keyring, packet: bytes) -> bool:
    return ring.open_untrusted(packet).freshness is Freshness.NEW


def _reason(ring: Keyring, packet: bytes) -> Rejected:
    with pytest.raises(RejectedPacketError) as caught:
        ring.open_untrusted(packet)
    return caught.value.reason


def _opened(ring: Keyring) -> list[int]:
    """Return how many packets each key has opened, oldest key first."""
    views = ring.keys()
    return [view.opened for view in views]


def test_what_is_sealed_is_opened() -> None:
    opened = _ring("b").open_untrusted(_ring("a").seal(b"body"))

    assert (opened.sender, opened.epoch, opened.body) == (sender_tag("a"), 5, b"body")


def test_packet_is_opened_once() -> None:
    sender, receiver = _ring("a"), _ring("b")
    packets = [sender.seal(b"%d" % n) for n in range(5)]
    assert all(_is_new(receiver, packet) for packet in reversed(packets))

    assert not any(_is_new(receiver, packet) for packet in packets)


def test_packet_older_than_the_window_is_taken_for_a_replay() -> None:
    sender, receiver = _ring("a"), _ring("b")
    first, second = sender.seal(b"1"), sender.seal(b"2")
    later = [sender.seal(b"x") for _ in range(1022)]
    assert _is_new(receiver, later[-1])

    assert _is_new(receiver, second)
    assert _is_new(receiver, first)
    assert _is_new(receiver, sender.seal(b"x"))
    assert not _is_new(receiver, first)


def test_frame_of_a_stream_passes_by_the_window() -> None:
    sender, receiver = _ring("a"), _ring("b")
    frame = sender.seal(b"frame")
    for _ in range(2000):
        receiver.open_untrusted(sender.seal(b"x"))

    opened = receiver.open_untrusted(frame, is_stream=True)
    assert (opened.body, opened.freshness) == (b"frame", Freshness.NEW)


def test_another_cluster_or_a_changed_bit_is_unauthentic() -> None:
    packet = _ring("a").seal(b"body")
    changed = packet[:-1] + bytes([packet[-1] ^ 1])

    assert _reason(_ring("b", cluster_id="d"), packet) is Rejected.UNAUTHENTIC
    assert _reason(_ring("b"), changed) is Rejected.UNAUTHENTIC


def test_own_packet_that_comes_back_is_refused() -> None:
    ring = _ring("a")

    assert _reason(ring, ring.seal(b"body")) is Rejected.OWN


def test_packet_of_an_earlier_life_is_opened() -> None:
    packet = _ring("a", epoch=4).seal(b"body")

    assert _ring("a", epoch=5).open_untrusted(packet).epoch == 4


@given(st.binary(max_size=200))
def test_junk_raises_only_rejected(data: bytes) -> None:
    ring = _ring()
    for packet in (data, b"hw\x01\x00\x01" + data):
        with contextlib.suppress(RejectedPacketError):
            ring.open_untrusted(packet)


def test_key_is_rotated_without_a_packet_lost() -> None:
    a, b = _ring("a"), _ring("b")
    for keys in (
        (OLD, _as(NEW, KeyState.ACCEPT)),
        (_as(OLD, KeyState.ACCEPT), NEW),
        (_as(OLD, KeyState.RETIRED), NEW),
    ):
        a.set_keys(keys)
        assert b.open_untrusted(a.seal(b"x")).body == b"x"
        b.set_keys(keys)
        assert a.open_untrusted(b.seal(b"x")).body == b"x"
    packet = _ring("c", OLD).seal(b"x")
    a.set_keys([NEW])

    assert _reason(a, packet) is Rejected.UNKNOWN_KEY
    assert _reason(_ring("d", OLD), a.seal(b"x")) is Rejected.NEWER_KEY


def test_node_that_missed_a_rotation_is_answered_with_its_own_key() -> None:
    a, b = _ring("a"), _ring("b")
    b.open_untrusted(a.seal(b"x", to=B), source=A)
    a.open_untrusted(b.seal(b"x", to=A), source=B)
    a.set_keys([_as(OLD, KeyState.RETIRED), NEW])

    assert b.open_untrusted(a.seal(b"x", to=B), source=A).body == b"x"
    assert _reason(b, a.seal(b"x")) is Rejected.NEWER_KEY
    a.open_untrusted(b.seal(b"x", to=A), source=B)
    assert b.open_untrusted(a.seal(b"x", to=B), source=A).body == b"x"
    # A restart forgets whom it talked to, until it hears from them.
    a = _ring("a", _as(OLD, KeyState.RETIRED), NEW, epoch=6)
    assert _reason(b, a.seal(b"x", to=B)) is Rejected.NEWER_KEY
    a.open_untrusted(b.seal(b"x", to=A), source=B)
    assert b.open_untrusted(a.seal(b"x", to=B), source=A).epoch == 6
    a.set_keys([NEW])
    assert _reason(b, a.seal(b"x", to=B)) is Rejected.NEWER_KEY


def test_two_that_know_the_new_key_do_not_go_on_with_the_old_one() -> None:
    a, b = _ring("a"), _ring("b")
    b.open_untrusted(a.seal(b"x", to=B), source=A)
    a.open_untrusted(b.seal(b"x", to=A), source=B)
    for ring in (a, b):
        ring.set_keys([_as(OLD, KeyState.RETIRED), NEW])
    b.open_untrusted(a.seal(b"x", to=B), source=A)
    a.open_untrusted(b.seal(b"x", to=A), source=B)
    b.open_untrusted(a.seal(b"x", to=B), source=A)

    assert _opened(a) == [1, 1]
    assert _opened(b) == [2, 1]


def test_key_that_others_use_already_is_not_sealed_with_before_it_is_primary() -> None:
    a, b = _ring("a"), _ring("b")
    a.set_keys([OLD, _as(NEW, KeyState.ACCEPT)])
    b.set_keys([_as(OLD, KeyState.RETIRED), NEW])
    a.open_untrusted(b.seal(b"x", to=A), source=B)
    b.open_untrusted(a.seal(b"x", to=B), source=A)

    assert _opened(b) == [1, 0]


def test_counters_go_on_through_every_ring_and_key() -> None:
    """One counter for all keys: none is used twice, whatever the ring and whomever it is for."""
    a, b, c = _ring("a"), _ring("b"), _ring("c")
    a.open_untrusted(b.seal(b"x", to=A), source=B)
    used: list[tuple[bytes, bytes]] = []
    for keys in ([OLD], [OLD, _as(NEW, KeyState.ACCEPT)], [_as(OLD, KeyState.RETIRED), NEW],
                 [NEW], [OLD], [_as(OLD, KeyState.RETIRED), NEW]):  # fmt: skip
        a.set_keys(keys)
        c.set_keys(keys)
        packets = [a.seal(b"x", to=to) for to in (B, C, None)]
        used += [(packet[3:5], packet[-25:-17]) for packet in packets]
        for packet in packets:
            c.open_untrusted(packet)
            assert not _is_new(c, packet)
    assert len({counter for _, counter in used}) == len(used) == 18
    assert len({key_id for key_id, _ in used}) == 2


def test_ring_may_change_in_any_way_at_once() -> None:
    a, b = _ring("a"), _ring("b")
    other = GossipKey(9, b"9" * 32, KeyState.PRIMARY)
    a.set_keys([other])
    b.set_keys([other])

    assert b.open_untrusted(a.seal(b"x")).body == b"x"
    replaced = GossipKey(9, b"8" * 32, KeyState.PRIMARY)
    b.set_keys([replaced])
    assert _reason(b, a.seal(b"x")) is Rejected.UNAUTHENTIC


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [_as(OLD, KeyState.ACCEPT)],
        [OLD, NEW],
        [OLD, _as(OLD, KeyState.ACCEPT)],
        [GossipKey(1, b"short", KeyState.PRIMARY)],
        [GossipKey(1 << 16, b"1" * 32, KeyState.PRIMARY)],
    ],
)
def test_unusable_ring_is_refused_and_the_old_one_kept(keys: list[GossipKey]) -> None:
    a, b = _ring("a"), _ring("b")
    with pytest.raises(InvalidError):
        a.set_keys(keys)

    assert b.open_untrusted(a.seal(b"x")).body == b"x"


def test_newer_life_seals_under_another_key_from_the_start() -> None:
    a, b = _ring("a"), _ring("b")
    first = a.seal(b"same")
    a.set_epoch(6)
    second = a.seal(b"same")

    assert first[-20:] != second[-20:]
    assert [b.open_untrusted(packet).epoch for packet in (first, second)] == [5, 6]
    with pytest.raises(InvalidError):
        a.set_epoch(6)


def test_key_is_not_shown() -> None:
    assert "1111" not in repr(OLD)


def test_view_counts_what_each_key_has_opened_and_holds_no_secret() -> None:
    a, b = _ring("a"), _ring("b")
    b.set_keys([_as(NEW, KeyState.ACCEPT), OLD])
    for _ in range(3):
        b.open_untrusted(a.seal(b"x"))
    a.set_keys([_as(OLD, KeyState.RETIRED), NEW])
    b.open_untrusted(a.seal(b"x"))

    assert b.keys() == [KeyView(1, KeyState.PRIMARY, 3), KeyView(2, KeyState.ACCEPT, 1)]
    assert "1111" not in repr(b.keys())
    b.set_keys([NEW])
    assert b.keys() == [KeyView(2, KeyState.PRIMARY, 1)]
