"""A torn end is dropped; damage refuses."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.consensus.errors import StorageFailure
from cluster.consensus.frames import HEADER_BYTES, encode_frame, read_frames

PAYLOADS = st.lists(st.binary(min_size=20, max_size=1500), min_size=1, max_size=6)


def encode(payloads: list[bytes]) -> bytes:
    return b"".join(encode_frame(number, data) for number, data in enumerate(payloads))


def read(data: bytes) -> list[bytes]:
    return [payload for _, payload in read_frames(data, 0)]


@given(PAYLOADS)
def test_round_trip(payloads: list[bytes]) -> None:
    assert read(encode(payloads)) == payloads


@given(PAYLOADS, st.data())
def test_cut_end_is_dropped(payloads: list[bytes], data: st.DataObject) -> None:
    whole = encode(payloads[:-1])
    torn = encode_frame(len(payloads) - 1, payloads[-1])
    length = data.draw(st.integers(0, len(torn) - 1))

    assert read(whole + torn[:length]) == payloads[:-1]


@given(PAYLOADS, st.data())
def test_flipped_bit_refuses(payloads: list[bytes], data: st.DataObject) -> None:
    damaged = bytearray(encode(payloads))
    position = data.draw(st.integers(0, len(damaged) - 1))
    last = len(encode(payloads[:-1]))
    damaged[position] ^= 1 << data.draw(st.integers(0, 7))

    if position < last:
        with pytest.raises(StorageFailure):
            read(bytes(damaged))
    else:  # a zero sector in what was drawn makes it look torn; never is it taken as sound
        with contextlib.suppress(StorageFailure):
            assert read(bytes(damaged)) == payloads[:-1]


def test_flipped_bit_in_the_last_frame_refuses() -> None:
    frames = encode([b"one" * 400, b"two" * 400])
    for position in range(len(frames)):
        damaged = bytearray(frames)
        damaged[position] ^= 0x10
        with pytest.raises(StorageFailure):
            read(bytes(damaged))


@pytest.mark.parametrize("sector", [0, 1, 2])
def test_unwritten_sector_in_the_last_frame_is_torn(sector: int) -> None:
    first = encode_frame(0, b"x" * (512 - HEADER_BYTES))
    torn = bytearray(encode_frame(1, b"y" * 1500))
    torn[512 * sector : 512 * (sector + 1)] = bytes(len(torn[512 * sector : 512 * (sector + 1)]))

    assert read(first + torn) == [b"x" * (512 - HEADER_BYTES)]


@pytest.mark.parametrize("sector", [0, 1, 2])
def test_unwritten_sector_in_the_middle_refuses(sector: int) -> None:
    frames = bytearray(encode([b"x" * 1500, b"y" * 100, b"z"]))
    frames[512 * sector : 512 * (sector + 1)] = bytes(512)

    with pytest.raises(StorageFailure):
        read(bytes(frames))


def test_missing_frame_refuses() -> None:
    frames = [encode_frame(number, b"data") for number in range(3)]

    with pytest.raises(StorageFailure):
        read(frames[0] + frames[2])


@given(st.binary(max_size=200))
def test_garbage_never_yields_a_frame(data: bytes) -> None:
    with contextlib.suppress(StorageFailure):
        assert read(data) == []
