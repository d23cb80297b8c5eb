"""The gossip codec: round trip, golden bytes, and junk never escapes."""

from __future__ import annotations

import contextlib
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.message import encode, pack, unpack_untrusted
from gossip.wire import (
    Ack,
    CertificateOffer,
    Challenge,
    Claim,
    Delta,
    Digest,
    DigestEntry,
    MalformedPacketError,
    Message,
    Ping,
    Record,
    Response,
    Stage,
    Stamp,
    State,
    Update,
)
from tests.unit.gossip.strategies import messages


@given(st.lists(messages, max_size=20))
def test_round_trip(said: list[Message]) -> None:
    assert unpack_untrusted(pack([encode(message) for message in said])) == said


def test_bytes_on_the_wire_do_not_change_unnoticed() -> None:
    said: list[Message] = [
        Ping(7, "a"),
        Ack(7, 2),
        Challenge(7, "a", 2**64 - 1),
        Response(7, 8, b"s"),
        Claim(State.SUSPECT, "b", 9, 1, "a", 8),
        Update("net", "a", Stamp(8, 1), Record("k", 3, 5, b"v")),
        Delta("net", "a", Stamp(8, 1), 0, 3, 0, (Record("k", 3, 5, None),)),
    ]

    assert pack([encode(message) for message in said]).hex() == (
        "97930007a16193010702940d07a161cfffffffffffffffff940e0708c401739805a1620901a16108c400c4009a08a36e6574a1610801a16b0305c40176c400"
        "9c0aa36e6574a16108010003009195a16b0305c0c400c0c0c0"
    )


@given(st.binary(max_size=200))
def test_junk_raises_only_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedPacketError):
        unpack_untrusted(data)


@given(messages, st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=5))
def test_mutated_message_raises_only_malformed(
    message: Message, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(pack([encode(message)]))
    for at, value in changes:
        data[at % len(data)] = value
    with contextlib.suppress(MalformedPacketError):
        unpack_untrusted(bytes(data))


@given(messages, st.integers(0, 400))
def test_truncated_message_raises_only_malformed(message: Message, length: int) -> None:
    data = pack([encode(message)])
    if length < len(data):
        with pytest.raises(MalformedPacketError):
            unpack_untrusted(data[:length])


@pytest.mark.parametrize(
    "body",
    [
        b"\xdd\xff\xff\xff\xff",  # an array of 4 billion
        b"\x91\xdd\xff\xff\xff\xff",
        b"\x91\x93\x00\x01\xdb\xff\xff\xff\xff",  # a string of 4 GiB
        b"\x91" * 100_000,  # nested
        b"\xdf\xff\xff\xff\xff",  # a map
        b"\xc9\xff\xff\xff\xff\x01",  # an extension
        b"\x91\x93\x00\xff\xa1a",  # a negative sequence number
        b"\x91\x92\x63\x00",  # an unknown kind
        b"\x91\x93\x00\xc3\xa1a",  # true for a number
        b"\xdc\x08\x00" + (b"\xdc\x02\x00" + b"\x90" * 512) * 2048,  # a million empty arrays
        (b"\xdc\x08\x00" + b"\x90" * 2047) * 512,  # the same, nested
    ],
)
def test_lies_about_sizes_cost_no_memory(body: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(MalformedPacketError):
        unpack_untrusted(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 8_000_000


def test_values_over_the_limits_are_malformed() -> None:
    for record in (Record("k" * 129, 1, 0, b""), Record("k", 1, 0, b"v" * 1025)):
        with pytest.raises(MalformedPacketError):
            unpack_untrusted(pack([encode(Update("net", "a", Stamp(1, 1), record))]))


def test_record_outside_its_delta_is_malformed() -> None:
    delta = Delta("net", "a", Stamp(1, 1), 5, 9, 0, (Record("k", 5, 0, b""),))

    with pytest.raises(MalformedPacketError):
        unpack_untrusted(pack([encode(delta)]))


@pytest.mark.parametrize(
    "part",
    [
        CertificateOffer(b""),
        Delta("s", "z", Stamp(1, 1), 0, 9, 0, (Record("k", 1, 0, None),) * 4096),
        Digest("s", Stage.PULL, entries=(DigestEntry("z", Stamp(0, 0), 0, 0),) * 4096),
    ],
)
def test_a_frame_of_very_many_small_parts_is_malformed(part: Message) -> None:
    """Each costs far more than its bytes: the event loop would stand still."""
    data = encode(part)
    with pytest.raises(MalformedPacketError, match=r"too many values|max_array_len"):
        unpack_untrusted(pack([data] * min(65535, (1 << 20) // len(data))))


def test_a_frame_of_as_much_as_honest_nodes_say_is_taken() -> None:
    """See `sync`: messages for 64 KiB, and one more as long as a log can be."""
    small = Delta("s", "z", Stamp(1, 1), 0, 9, 0, (Record("k", 1, 0, b"", b"s" * 64),))
    large = Delta("s", "z", Stamp(1, 1), 0, 9, 0, (Record("k", 1, 0, b"", b"s" * 64),) * 4096)
    data = encode(small)
    said = [data] * ((64 << 10) // len(data))

    assert len(unpack_untrusted(pack([*said, encode(large)]))) == len(said) + 1
