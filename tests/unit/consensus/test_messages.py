"""The wire form, and what it must survive."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.consensus.errors import MalformedMessageError
from cluster.consensus.members import Member
from cluster.consensus.messages import (
    Answer,
    AnswerStatus,
    AppendEntries,
    AppendReply,
    FrameBuffer,
    Hello,
    Introduction,
    Message,
    NewerTerm,
    PreVoteGranted,
    PreVoteRequest,
    ReadProbe,
    ReadProbeReply,
    RefusalReason,
    Refused,
    Request,
    RequestKind,
    SnapshotChunk,
    SnapshotPending,
    TimeoutNow,
    VoteGranted,
    VoteRequest,
    Welcome,
    decode_untrusted,
    encode,
)

EXAMPLES: tuple[Message, ...] = (
    Hello(1, "n0", "d", "host", 2377, (1, 2)),
    Welcome("d"),
    Refused(RefusalReason.REMOVED),
    AppendEntries(3, 2, 1, 1, ((b"\x00x", 2, 1), (b"\x01", 3, 3))),
    SnapshotChunk(3, 10, 2, 4, 9, b"abcde"),
    SnapshotPending(3),
    AppendReply(3, 4, reset=True, success=False),
    VoteRequest(3, 4, 2, is_transfer=True),
    VoteGranted(3),
    PreVoteRequest(3, 4, 9, 2),
    PreVoteGranted(3, 4),
    NewerTerm(3),
    TimeoutNow(3),
    Introduction(3, Member("n1", "host", 2377, "d")),
    ReadProbe(3, 1),
    ReadProbeReply(3, 1),
    Request(7, RequestKind.APPEND, b"x"),
    Answer(7, AnswerStatus.DONE, 12, b"y"),
)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_round_trip(message: Message) -> None:
    (body,) = FrameBuffer().feed_untrusted(encode(message))

    assert decode_untrusted(body) == message


def test_golden_bytes() -> None:
    assert encode(AppendEntries(3, 2, 1, 1, ((b"\x00x", 2, 1),))) == bytes.fromhex(
        "0000000e 96 0a 03 02 01 01 91 93 c402 0078 02 01".replace(" ", "")
    )


@pytest.mark.parametrize(
    "message",
    [
        AppendEntries(3, 2, 1, 1, ((b"x", 3, 1),)),
        AppendEntries(3, 2, 1, 1, ((b"x", 2, 1), (b"x", 2, 1))),
        AppendEntries(3, 2, 1, 1, ((b"", 2, 1),)),
        AppendEntries(-1, 2, 1, 1, ()),
        AppendReply(1, 0, reset=False, success=True),
        SnapshotChunk(3, 10, 2, 4, 8, b"abcde"),
        Hello(1, "n0", "d", "host", 0, (1, 2)),
    ],
    ids=lambda m: type(m).__name__,
)
def test_message_that_contradicts_itself_is_malformed(message: Message) -> None:
    with pytest.raises(MalformedMessageError):
        decode_untrusted(encode(message)[4:])


@given(st.binary(max_size=100))
def test_garbage_is_malformed_or_a_message(data: bytes) -> None:
    try:
        message = decode_untrusted(data)
    except MalformedMessageError:
        return
    assert encode(message)


@given(st.sampled_from(EXAMPLES), st.data())
def test_mutated_message_is_malformed_or_a_message(message: Message, data: st.DataObject) -> None:
    body = bytearray(encode(message)[4:])
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(body) - 1))
        body[position] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MalformedMessageError):
        decode_untrusted(bytes(body))


@given(st.lists(st.binary(max_size=50), max_size=8), st.data())
def test_frames_are_cut_wherever_the_stream_is(bodies: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    buffer, received = FrameBuffer(), list[bytes]()
    while stream:
        length = data.draw(st.integers(1, len(stream)))
        received += buffer.feed_untrusted(stream[:length])
        stream = stream[length:]

    assert received == bodies


def test_oversized_frame_is_malformed_at_its_header() -> None:
    with pytest.raises(MalformedMessageError):
        FrameBuffer(frame_bytes_max=10).feed_untrusted(b"\x00\x00\x00\x0b")


def test_text_that_is_not_utf8_is_malformed() -> None:
    body = encode(Welcome("dd"))[4:].replace(b"dd", b"\x80d")

    with pytest.raises(MalformedMessageError):
        decode_untrusted(body)


def test_deeply_nested_garbage_is_malformed() -> None:
    with pytest.raises(MalformedMessageError):
        decode_untrusted(b"\x91" * 100_000)
