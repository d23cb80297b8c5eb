"""Sealed packets: only this cluster's, only once, under any key of the ring."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def _as(key: GossipKey, state: KeyState) -> GossipKey:
    return GossipKey(key.key_id, key.key, state)


def _ring(node_id: str = "a", *keys: GossipKey, epoch: int = 5, cluster_id: str = "c") -> Keyring:
    return Keyring(cluster_id=cluster_id, node_id=node_id, epoch=epoch, keys=keys or (OLD,))


def _reason(ring: Keyring, packet: bytes) -> Rejected:
    with pytest.raises(RejectedPacketError) as caught:
        ring.open_untrusted(packet)
    return caught.value.reason


def test_what_is_sealed_is_opened() -> None:
    opened = _ring("b").open_untrusted(_ring("a").seal(b"body"))

    assert (opened.sender, opened.epoch, opened.body) == (sender_tag("a"), 5, b"body")


def test_packet_is_opened_once() -> None:
    sender, receiver = _ring("a"), _ring("b")
    packets = [sender.seal(b"%d" % n) for n in range(5)]
    for packet in reversed(packets):
        receiver.open_untrusted(packet)

    assert [_reason(receiver, packet) for packet in packets] == [Rejected.REPLAYED] * 5


def test_packet_older_than_the_window_is_taken_for_a_replay() -> None:
    sender, receiver = _ring("a"), _ring("b")
    first, second = sender.seal(b"1"), sender.seal(b"2")
    later = [sender.seal(b"x") for _ in range(1022)]
    receiver.open_untrusted(later[-1])

    receiver.open_untrusted(second)
    receiver.open_untrusted(first)
    receiver.open_untrusted(sender.seal(b"x"))
    assert _reason(receiver, first) is Rejected.REPLAYED


def test_frame_of_a_stream_passes_by_the_window() -> None:
    sender, receiver = _ring("a"), _ring("b")
    frame = sender.seal(b"frame")
    for _ in range(2000):
        receiver.open_untrusted(sender.seal(b"x"))

    assert receiver.open_untrusted(frame, is_stream=True).body == b"frame"


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
