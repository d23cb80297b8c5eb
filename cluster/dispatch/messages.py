"""What a session carries, and its wire form: msgpack arrays of [tag, message] (pure).

The tag is the position in NODE_MESSAGES or MANAGER_MESSAGES: each direction has its own, so that a
node cannot speak as a manager.

Functions ending in `_untrusted` take bytes from the network. Whatever they are given, they return a
value or raise MalformedMessage, never anything else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

import msgspec

from cluster.model.assignment import Assignment, ClusterInfo
from cluster.model.ids import NetworkId, NodeId, ServiceId, TaskId
from cluster.model.logs import LogOptions, LogStream
from cluster.model.node import NodeDescription
from cluster.model.task import TaskState, TaskStatus

NODE_MESSAGE_BYTES_MAX = 1024 * 1024
"""Largest message that a manager takes from a node."""
MANAGER_MESSAGE_BYTES_MAX = 64 * 1024 * 1024
"""Largest message that a node takes from a manager: PAGE_OBJECTS objects of the largest size."""
STATUSES_MAX = 100
"""Most statuses in one batch (swarmkit manager/dispatcher, maxBatchItems)."""
TEXT_LENGTH_MAX = 1024
"""Longest message or error of a status; longer ones are cut by the node."""
NAME_LENGTH_MAX = 253
LABELS_MAX = 100
PORT_MAX = 65535
RING_DIGEST_BYTES_MAX = 32
LOG_RECORDS_MAX = 64
"""Most lines in one LogData message."""
LOG_CREDIT = 8
"""LogData messages that a node may send before the manager asks for more."""


class MalformedMessage(Exception):
    """Bytes that no peer of ours can have sent: its session or request ends."""


@dataclass(frozen=True, slots=True)
class ManagerAddress:
    """Where a manager's port 2377 is."""

    node: NodeId
    address: str
    """`host:port`."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What a node says of itself when it joins and with each session."""

    description: NodeDescription
    address: str = ""
    """Advertised IP address; empty: as the manager sees it."""
    gossip_port: int = 7946
    data_address: str = ""
    """Data-path IP address; empty: the advertised one."""
    control_port: int = 2377
    """Port of its control port; matters for managers."""


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One line that a task wrote."""

    task: TaskId
    stream: LogStream
    written_at_ns: int
    """Unix time, nanoseconds."""
    data: bytes


# From a node.


@dataclass(frozen=True, slots=True)
class Hello:
    """First message of a session."""

    registration: Registration
    sequence: int = 0
    """Of the last assignment it has; a manager that is behind that must not tell an older one."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The node lives."""

    number: int
    ring: bytes = b""
    """Digest of the gossip keys that it holds, on its disk too (`control.keys.ring_digest`)."""


@dataclass(frozen=True, slots=True)
class StatusReport:
    """What the node saw of one of its tasks."""

    task: TaskId
    status: TaskStatus


@dataclass(frozen=True, slots=True)
class StatusBatch:
    """The latest statuses of tasks; the next batch waits for this one's StatusAck."""

    number: int
    statuses: tuple[StatusReport, ...]


@dataclass(frozen=True, slots=True)
class LogData:
    """Lines for the LogRequest `request`; costs one credit."""

    request: int
    records: tuple[LogRecord, ...]


@dataclass(frozen=True, slots=True)
class LogEnd:
    """There are no more lines for the LogRequest `request`."""

    request: int
    error: str = ""


# From a manager.


@dataclass(frozen=True, slots=True)
class Welcome:
    """Answers Hello."""

    session: str
    heartbeat_period_s: float


@dataclass(frozen=True, slots=True)
class HeartbeatAck:
    """Answers Heartbeat."""

    number: int


@dataclass(frozen=True, slots=True)
class FullAssignment:
    """A page of the whole assignment; it counts when the last page is there."""

    sequence: int
    """Raft index of the state it was taken from."""
    page: Assignment
    is_last: bool


@dataclass(frozen=True, slots=True)
class Removed:
    """What is no longer assigned."""

    tasks: tuple[TaskId, ...] = ()
    networks: tuple[NetworkId, ...] = ()
    services: tuple[ServiceId, ...] = ()


@dataclass(frozen=True, slots=True)
class AssignmentDiff:
    """A page of what differs from the assignment with sequence `base`."""

    base: int
    sequence: int
    changed: Assignment
    removed: Removed
    is_last: bool


@dataclass(frozen=True, slots=True)
class StatusAck:
    """The statuses of batch `number` are part of the replicated state."""

    number: int


@dataclass(frozen=True, slots=True)
class LogRequest:
    """Send the output of `task`; LOG_CREDIT messages may come before the next LogCredit."""

    request: int
    task: TaskId
    options: LogOptions = field(default_factory=LogOptions)


@dataclass(frozen=True, slots=True)
class LogCredit:
    """So many more LogData messages may come."""

    request: int
    messages: int


@dataclass(frozen=True, slots=True)
class LogStop:
    """Nobody reads the answer to `request` any more."""

    request: int


NodeMessage = Hello | Heartbeat | StatusBatch | LogData | LogEnd
ManagerMessage = (
    Welcome | HeartbeatAck | ClusterInfo | FullAssignment | AssignmentDiff | StatusAck
    | LogRequest | LogCredit | LogStop
)  # fmt: skip
NODE_MESSAGES: tuple[type[NodeMessage], ...] = (Hello, Heartbeat, StatusBatch, LogData, LogEnd)
"""In the order of their tags: append only."""
MANAGER_MESSAGES: tuple[type[ManagerMessage], ...] = (
    Welcome, HeartbeatAck, ClusterInfo, FullAssignment, AssignmentDiff, StatusAck,
    LogRequest, LogCredit, LogStop,
)  # fmt: skip
"""In the order of their tags: append only."""

_TAGS: dict[type, int] = {
    kind: tag for kinds in (NODE_MESSAGES, MANAGER_MESSAGES) for tag, kind in enumerate(kinds)
}
_encode = msgspec.msgpack.Encoder().encode
_envelope = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw])
_node_decoders = [msgspec.msgpack.Decoder(kind) for kind in NODE_MESSAGES]
_manager_decoders = [msgspec.msgpack.Decoder(kind) for kind in MANAGER_MESSAGES]
DECODE_ERRORS = (msgspec.MsgspecError, ValueError, RecursionError, OverflowError)
"""All that msgspec raises for bytes that are not what was asked for."""


def encode(message: NodeMessage | ManagerMessage) -> bytes:
    """Return the wire form of `message`."""
    return _encode((_TAGS[type(message)], message))


def decode_from_node_untrusted(data: bytes) -> NodeMessage:
    """Return the message that a node sent."""
    tag, body = _open(data, NODE_MESSAGE_BYTES_MAX, len(NODE_MESSAGES))
    try:
        message = _node_decoders[tag].decode(body)
    except DECODE_ERRORS as error:
        raise MalformedMessage(f"{NODE_MESSAGES[tag].__name__}: {error}") from error
    match message:
        case Hello():
            check_registration(message.registration)
        case StatusBatch():
            _check_statuses(message.statuses)
        case Heartbeat() if len(message.ring) > RING_DIGEST_BYTES_MAX:
            raise MalformedMessage(f"a digest of {len(message.ring)} bytes")
        case LogData() if len(message.records) > LOG_RECORDS_MAX:
            raise MalformedMessage(f"{len(message.records)} log lines in one message")
        case _:
            pass
    return message


def decode_from_manager_untrusted(data: bytes) -> ManagerMessage:
    """Return the message that a manager sent."""
    tag, body = _open(data, MANAGER_MESSAGE_BYTES_MAX, len(MANAGER_MESSAGES))
    try:
        return _manager_decoders[tag].decode(body)
    except DECODE_ERRORS as error:
        raise MalformedMessage(f"{MANAGER_MESSAGES[tag].__name__}: {error}") from error


def check_registration(registration: Registration) -> None:
    """Return when a node may say this of itself.

    Raises:
        MalformedMessage: it may not.
    """
    description = registration.description
    texts = (
        description.hostname,
        description.os,
        description.architecture,
        description.engine_version,
        *description.engine_labels,
        *description.engine_labels.values(),
    )
    if max(map(len, texts)) > NAME_LENGTH_MAX or len(description.engine_labels) > LABELS_MAX:
        raise MalformedMessage("the node's description is too long")
    if not 0 <= description.nano_cpus < 2**60 or not 0 <= description.memory_bytes < 2**60:
        raise MalformedMessage("the node's resources make no sense")
    for port in (registration.gossip_port, registration.control_port):
        if not 1 <= port <= PORT_MAX:
            raise MalformedMessage(f"{port} is not a port")
    for address in (registration.address, registration.data_address):
        if address:
            try:
                ip_address(address)
            except ValueError as error:
                raise MalformedMessage(str(error)) from error


def cut_texts(status: TaskStatus) -> TaskStatus:
    """Return the status as it may be sent."""
    if max(len(status.message), len(status.error)) <= TEXT_LENGTH_MAX:
        return status
    return replace(
        status,
        message=status.message[:TEXT_LENGTH_MAX],
        error=status.error[:TEXT_LENGTH_MAX],
    )


def _open(data: bytes, bytes_max: int, kinds: int) -> tuple[int, msgspec.Raw]:
    if len(data) > bytes_max:
        raise MalformedMessage(f"a message of {len(data)} bytes is too long")
    try:
        tag, body = _envelope.decode(data)
    except DECODE_ERRORS as error:
        raise MalformedMessage(str(error)) from error
    if not 0 <= tag < kinds:
        raise MalformedMessage(f"no message has tag {tag}")
    return tag, body


def _check_statuses(statuses: tuple[StatusReport, ...]) -> None:
    if not 1 <= len(statuses) <= STATUSES_MAX:
        raise MalformedMessage(f"{len(statuses)} statuses in one batch")
    for report in statuses:
        status = report.status
        if not TaskState.ACCEPTED <= status.state <= TaskState.REJECTED:
            raise MalformedMessage(f"a node cannot say that a task is {status.state.name}")
        if not math.isfinite(status.timestamp):
            raise MalformedMessage("a status has no time")
        if max(len(status.message), len(status.error)) > TEXT_LENGTH_MAX:
            raise MalformedMessage("a status says too much")
