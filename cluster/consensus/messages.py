"""What managers say to each other, and its wire form (pure).

A frame is a 4-byte big-endian length and a msgpack array whose first element is the message's tag.
A session starts with `Hello` from who dialled and `Welcome` or `Refused` from who was dialled;
after that the dialler sends the other messages and the dialled side sends nothing. `term` is the
sender's when it decided to send.

Source: Ongaro, "Consensus: Bridging Theory and Practice" (2014): AppendEntries and RequestVote
(3.10), pre-vote (9.6), ReadIndex (6.4), TimeoutNow (3.10).
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Annotated

import msgspec

from cluster.consensus.errors import MalformedMessageError
from cluster.consensus.members import Member

PROTOCOL = 1
FRAME_BYTES_MAX = 8 * 1024 * 1024
"""Largest message: a batch of `batch_bytes` commands plus one, and their indexes."""

_LENGTH = struct.Struct(">I")
_Natural = Annotated[int, msgspec.Meta(ge=0)]
_WireEntry = tuple[Annotated[bytes, msgspec.Meta(min_length=1)], _Natural, _Natural]


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Who dials; its certificate must say the same."""

    protocol: int
    node_id: str
    disk_id: str
    host: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    epoch: tuple[_Natural, _Natural]
    """Grows with each session of this node: the newest one wins."""


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The session is open."""

    disk_id: str


class RefusalReason(IntEnum):
    """Why a session was not opened."""

    PROTOCOL = 1
    IDENTITY = 2
    NOT_A_MEMBER = 3
    REMOVED = 4
    OTHER_DISK = 5
    STALE = 6


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The session is not open; the connection closes."""

    reason: RefusalReason


class AppendEntries(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """Leader to follower: entries after `previous_index`, or none (a heartbeat)."""

    term: _Natural
    commit_index: _Natural
    previous_index: _Natural
    previous_term: _Natural
    entries: tuple[_WireEntry, ...]


class SnapshotChunk(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """Leader to follower: a piece of a snapshot of everything up to (index, last_term)."""

    term: _Natural
    index: _Natural
    last_term: _Natural
    offset: _Natural
    total: _Natural
    data: bytes


class SnapshotPending(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """Leader to follower: you need a snapshot; the next piece cannot be sent yet."""

    term: _Natural


class AppendReply(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """Follower to leader: durable up to `next_index - 1` (success), or send from there (reset)."""

    term: _Natural
    next_index: Annotated[int, msgspec.Meta(ge=1)]
    reset: bool
    success: bool


class VoteRequest(msgspec.Struct, frozen=True, array_like=True, tag=20):
    """Candidate to voter."""

    term: _Natural
    last_index: _Natural
    last_term: _Natural
    is_transfer: bool
    """The leader asked for this election: do not protect it."""


class VoteGranted(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """Voter to candidate: my durable vote in `term` is yours."""

    term: _Natural


class PreVoteRequest(msgspec.Struct, frozen=True, array_like=True, tag=22):
    """Asks whether the receiver would vote for the sender in `proposed_term`."""

    term: _Natural
    proposed_term: _Natural
    last_index: _Natural
    last_term: _Natural


class PreVoteGranted(msgspec.Struct, frozen=True, array_like=True, tag=23):
    """The sender would."""

    term: _Natural
    proposed_term: _Natural


class NewerTerm(msgspec.Struct, frozen=True, array_like=True, tag=24):
    """Your term is over."""

    term: _Natural


class TimeoutNow(msgspec.Struct, frozen=True, array_like=True, tag=25):
    """Leader to follower: start an election, you are to lead."""

    term: _Natural


class Introduction(msgspec.Struct, frozen=True, array_like=True, tag=26):
    """To a member that hears no leader: this one leads, and the sender hears it."""

    term: _Natural
    leader: Member


class ReadProbe(msgspec.Struct, frozen=True, array_like=True, tag=30):
    """Leader to follower: asks whether the sender still leads."""

    term: _Natural
    round: _Natural


class ReadProbeReply(msgspec.Struct, frozen=True, array_like=True, tag=31):
    """Follower to leader: it does."""

    term: _Natural
    round: _Natural


class RequestKind(IntEnum):
    """What a follower asks of the leader."""

    APPEND = 1
    """Payload: a command or open-session entry."""
    READ = 2
    """Empty payload."""
    ADD_MEMBER = 3
    """Payload: a Member."""
    REMOVE_MEMBER = 4
    """Payload: a node id, UTF-8."""
    TRANSFER = 5
    """Payload: a node id, UTF-8, or nothing for any."""


class Request(msgspec.Struct, frozen=True, array_like=True, tag=40):
    """Follower to leader: do this for me."""

    number: _Natural
    kind: RequestKind
    payload: bytes


class AnswerStatus(IntEnum):
    """How a request ended."""

    DONE = 0
    RETRY = 1
    """Not the leader, or no longer: the outcome is unknown."""
    DENIED = 2
    """Nothing has changed; the payload says why."""
    INVALID = 3
    """It makes no sense; the payload says why."""


class Answer(msgspec.Struct, frozen=True, array_like=True, tag=41):
    """Leader to follower: how request `number` ended."""

    number: _Natural
    status: AnswerStatus
    index: _Natural
    """Done: what the follower must have applied to see the effect."""
    payload: bytes


ReplicationMessage = AppendEntries | SnapshotChunk | SnapshotPending | AppendReply
ElectionMessage = (
    VoteRequest
    | VoteGranted
    | PreVoteRequest
    | PreVoteGranted
    | NewerTerm
    | TimeoutNow
    | Introduction
)
ReadMessage = ReadProbe | ReadProbeReply
EngineMessage = ReplicationMessage | ElectionMessage | ReadMessage
PeerMessage = EngineMessage | Request | Answer
"""What a session carries after its greeting."""
Message = PeerMessage | Hello | Welcome | Refused

_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """Return the frame of a message."""
    body = _encode(message)
    return _LENGTH.pack(len(body)) + body


def decode_untrusted(body: bytes) -> Message:
    """Return the message in a frame's body.

    Raises:
        MalformedMessageError: it holds none, or one that contradicts itself.
    """
    try:
        message = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessageError(f"no message: {error}") from error
    if isinstance(message, AppendEntries):
        index = message.previous_index
        for _, entry_index, _ in message.entries:
            index += 1
            if entry_index != index:
                raise MalformedMessageError(f"entry {entry_index} where {index} must stand")
    elif isinstance(message, SnapshotChunk) and message.offset + len(message.data) > message.total:
        raise MalformedMessageError("snapshot chunk reaches beyond its snapshot")
    return message


class FrameBuffer:
    """Cuts a byte stream into frames. Holds at most one unfinished frame."""

    def __init__(self, *, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self._max = frame_bytes_max

    def feed_untrusted(self, data: bytes) -> list[bytes]:
        """Return the bodies of the frames that `data` completes.

        Raises:
            MalformedMessageError: a frame is longer than allowed; the stream is of no more use.
        """
        buffer = self._buffer
        buffer += data
        bodies: list[bytes] = []
        start = 0
        while len(buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if length > self._max:
                raise MalformedMessageError(f"frame of {length} bytes; at most {self._max}")
            end = start + _LENGTH.size + length
            if len(buffer) < end:
                break
            bodies.append(bytes(buffer[start + _LENGTH.size : end]))
            start = end
        if start:
            del buffer[:start]
        return bodies
