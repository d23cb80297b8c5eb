"""The codecs of sessions and endpoints: round trip, limits, and junk never escapes."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.dispatch.messages import (
    LOG_RECORDS_MAX,
    MANAGER_MESSAGES,
    NODE_MESSAGE_BYTES_MAX,
    NODE_MESSAGES,
    STATUSES_MAX,
    TEXT_LENGTH_MAX,
    AssignmentDiff,
    FullAssignment,
    Heartbeat,
    HeartbeatAck,
    Hello,
    LogCredit,
    LogData,
    LogEnd,
    LogRecord,
    LogRequest,
    LogStop,
    MalformedMessage,
    ManagerMessage,
    NodeMessage,
    Registration,
    Removed,
    StatusAck,
    StatusBatch,
    StatusReport,
    Welcome,
    cut_texts,
    decode_from_manager_untrusted,
    decode_from_node_untrusted,
    encode,
)
from cluster.dispatch.requests import (
    ErrorBody,
    JoinRequest,
    JoinResponse,
    LogQuery,
    RenewRequest,
    ReportedSighting,
    SightingReport,
    decode_untrusted,
    encode_body,
)
from cluster.model.assignment import Assignment, ClusterInfo, NodeInfo, ServiceInfo
from cluster.model.cluster import GossipKey
from cluster.model.ids import ClusterId, NetworkId, NodeId, ServiceId, TaskId
from cluster.model.logs import LogOptions, LogStream
from cluster.model.network import Network, NetworkSpec
from cluster.model.node import NodeDescription, NodeState, Role
from cluster.model.service import Endpoint, EndpointMode, PortSpec, TaskSpec, VirtualAddress
from cluster.model.task import Attachment, Task, TaskState, TaskStatus

TASK = Task(
    TaskId("t1"),
    ServiceId("s1"),
    "web",
    TaskSpec("host", ("sleep", "1"), environment=(("A", "ä"),)),
    slot=1,
    node=NodeId("n1"),
    attachments=(Attachment(NetworkId("w1"), "10.0.0.3", ("web",)),),
)
ASSIGNMENT = Assignment(
    tasks={TASK.id: TASK},
    networks={NetworkId("w1"): Network(NetworkId("w1"), NetworkSpec("net"), 4097, "10.0.0.0/24")},
    services={
        ServiceId("s1"): ServiceInfo(
            ServiceId("s1"),
            "web",
            EndpointMode.VIP,
            Endpoint((PortSpec("tcp", 80, 8080),), (VirtualAddress(NetworkId("w1"), "10.0.0.2"),)),
        )
    },
)
INFO = ClusterInfo(
    ClusterId("c1"),
    (
        NodeInfo(
            NodeId("n1"), 1, "h", Role.MANAGER, NodeState.READY, "::1", 7946, "::1", "[::1]:2377"
        ),
    ),
    (GossipKey(1, b"k" * 32),),
)
RECORD = LogRecord(TaskId("t1"), LogStream.STDERR, 1_800_000_000_000_000_000, b"\xff line\n")
REGISTRATION = Registration(NodeDescription("host", engine_labels={"a": "b"}), "192.0.2.1")
FROM_NODE: list[NodeMessage] = [
    Hello(REGISTRATION, 7),
    Heartbeat(3),
    StatusBatch(1, (StatusReport(TaskId("t1"), TaskStatus(TaskState.RUNNING, 1.5, pid=7)),)),
    LogData(1, (RECORD,)),
    LogEnd(1, "gone"),
]
FROM_MANAGER: list[ManagerMessage] = [
    Welcome("session", 5.0),
    HeartbeatAck(3),
    INFO,
    FullAssignment(9, ASSIGNMENT, is_last=True),
    AssignmentDiff(9, 10, ASSIGNMENT, Removed((TaskId("t2"),)), is_last=False),
    StatusAck(1),
    LogRequest(1, TaskId("t1"), LogOptions(follow=True, tail=10)),
    LogCredit(1, 2),
    LogStop(1),
]


def test_every_message_is_tried_here() -> None:
    assert tuple(map(type, FROM_NODE)) == NODE_MESSAGES
    assert tuple(map(type, FROM_MANAGER)) == MANAGER_MESSAGES


@pytest.mark.parametrize("message", FROM_NODE, ids=lambda m: type(m).__name__)
def test_round_trip_from_node(message: NodeMessage) -> None:
    assert decode_from_node_untrusted(encode(message)) == message


@pytest.mark.parametrize("message", FROM_MANAGER, ids=lambda m: type(m).__name__)
def test_round_trip_from_manager(message: ManagerMessage) -> None:
    assert decode_from_manager_untrusted(encode(message)) == message


def test_a_node_cannot_speak_as_a_manager() -> None:
    """Whatever a manager might say is, from a node, a node's message or none."""
    for message in FROM_MANAGER:
        with contextlib.suppress(MalformedMessage):
            assert isinstance(decode_from_node_untrusted(encode(message)), NODE_MESSAGES)


def status(**changes: object) -> TaskStatus:
    return replace(TaskStatus(TaskState.RUNNING, 1.0), **changes)  # type: ignore[arg-type]


def batch(*statuses: TaskStatus) -> StatusBatch:
    return StatusBatch(1, tuple(StatusReport(TaskId("t"), s) for s in statuses))


REFUSED: list[NodeMessage] = [
    batch(),
    batch(*[status()] * (STATUSES_MAX + 1)),
    batch(status(state=TaskState.ASSIGNED)),
    batch(status(state=TaskState.ORPHANED)),
    batch(status(timestamp=float("nan"))),
    batch(status(timestamp=float("inf"))),
    batch(status(error="x" * (TEXT_LENGTH_MAX + 1))),
    LogData(1, (RECORD,) * (LOG_RECORDS_MAX + 1)),
    Hello(replace(REGISTRATION, address="localhost")),
    Hello(replace(REGISTRATION, gossip_port=0)),
    Hello(replace(REGISTRATION, control_port=65536)),
    Hello(Registration(NodeDescription("x" * 300))),
    Hello(Registration(NodeDescription("x", nano_cpus=-1))),
    Hello(Registration(NodeDescription("x", engine_labels={str(i): "" for i in range(101)}))),
]


@pytest.mark.parametrize("message", REFUSED)
def test_what_no_node_may_say(message: NodeMessage) -> None:
    with pytest.raises(MalformedMessage):
        decode_from_node_untrusted(encode(message))


def test_too_long_texts_are_cut_before_they_are_sent() -> None:
    long = status(message="m" * 5000, error="ä" * 5000, exit_code=3)
    cut = cut_texts(long)
    assert (len(cut.message), len(cut.error), cut.exit_code) == (1024, 1024, 3)
    assert cut_texts(cut) is cut
    decode_from_node_untrusted(encode(batch(*[cut] * STATUSES_MAX)))


def test_size_and_depth_are_bounded() -> None:
    with pytest.raises(MalformedMessage, match="too long"):
        decode_from_node_untrusted(bytes(NODE_MESSAGE_BYTES_MAX + 1))
    for deep in (b"\x91" * 100_000, b"\x92\x00" + b"\x81\xa1x" * 100_000):
        with pytest.raises(MalformedMessage):
            decode_from_node_untrusted(deep)
        with pytest.raises(MalformedMessage):
            decode_untrusted(deep, JoinRequest)


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_junk_raises_only_malformed(data: bytes) -> None:
    for decode in (decode_from_node_untrusted, decode_from_manager_untrusted):
        with contextlib.suppress(MalformedMessage):
            decode(data)
    for kind in (JoinRequest, SightingReport, RenewRequest, LogQuery, ErrorBody, JoinResponse):
        with contextlib.suppress(MalformedMessage):
            decode_untrusted(data, kind)


@settings(max_examples=300)
@given(
    st.sampled_from([*FROM_NODE, *FROM_MANAGER]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=3),
)
def test_mutated_messages_raise_only_malformed(
    message: NodeMessage | ManagerMessage, mutations: list[tuple[int, int]]
) -> None:
    data = bytearray(encode(message))
    for at, value in mutations:
        data[at % len(data)] = value
    for decode in (decode_from_node_untrusted, decode_from_manager_untrusted):
        with contextlib.suppress(MalformedMessage):
            decode(bytes(data))


JOIN = JoinRequest("SWMTKN-1-secret", b"csr", REGISTRATION)


@settings(max_examples=200)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_mutated_joins_raise_only_malformed(at: int, value: int) -> None:
    data = bytearray(encode_body(JOIN))
    data[at % len(data)] = value
    with contextlib.suppress(MalformedMessage):
        decode_untrusted(bytes(data), JoinRequest)


def test_bodies_round_trip_and_hide_secrets() -> None:
    report = SightingReport((ReportedSighting(NodeId("n"), 0.5, is_connected=True),))
    assert decode_untrusted(encode_body(JOIN), JoinRequest) == JOIN
    assert decode_untrusted(encode_body(report), SightingReport) == report
    assert "secret" not in repr(JOIN)


@pytest.mark.parametrize("age", [float("nan"), float("inf"), -1.0])
def test_sightings_have_a_sensible_age(age: float) -> None:
    data = encode_body(SightingReport((ReportedSighting(NodeId("n"), age, is_connected=True),)))
    with pytest.raises(MalformedMessage):
        decode_untrusted(data, SightingReport)


def test_unknown_fields_of_a_newer_peer_are_ignored() -> None:
    data = msgspec.msgpack.encode((1, {"number": 4, "new": [1, {"x": None}]}))
    assert decode_from_node_untrusted(data) == Heartbeat(4)
