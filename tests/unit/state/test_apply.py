"""Transactions: what they change, what they refuse, and that a refusal leaves no trace."""

from __future__ import annotations

from dataclasses import fields, replace

import msgspec
import pytest

from cluster.model.cluster import (
    NODE_CERTIFICATE_VALIDITY_S,
    Cluster,
    ClusterSpec,
    GossipKey,
    JoinTokens,
)
from cluster.model.errors import (
    Conflict,
    FailedPrecondition,
    Forbidden,
    NotFound,
    OutOfSequence,
)
from cluster.model.ids import ClusterId, NetworkId, NodeId, ServiceId, TaskId
from cluster.model.network import Network, NetworkSpec
from cluster.model.node import (
    REMOVED_NODES_MAX,
    Node,
    NodeDescription,
    NodeSpec,
    NodeState,
    RemovedNode,
    Role,
)
from cluster.model.service import (
    Endpoint,
    NetworkAttachmentSpec,
    PortSpec,
    PublishMode,
    Service,
    ServiceSpec,
    TaskSpec,
)
from cluster.model.task import Attachment, Task, TaskState, TaskStatus
from cluster.state.apply import CERTIFICATE_MARGIN_S, apply
from cluster.state.changes import (
    ABSENT,
    AllocateService,
    AllocateTask,
    AssignTask,
    Change,
    DeleteNetwork,
    DeleteNode,
    DeleteService,
    PutCluster,
    PutNetwork,
    PutNode,
    PutService,
    PutTask,
    ReportStatus,
    SetDesiredState,
    SetNodeState,
)
from cluster.state.codec import decode_changes, decode_snapshot, encode_changes, encode_snapshot
from cluster.state.snapshot import Snapshot

WEB = ServiceId("s-web")
NET = NetworkId("n-shop")
NODE = NodeId("node-1")
TASK = TaskId("t-1")
W1 = Node(NODE, NodeSpec(Role.WORKER), NodeDescription("w1"), index=1)


def service(
    name: str = "web",
    id_: ServiceId = WEB,
    *,
    image: str = "host",
    ports: tuple[PortSpec, ...] = (),
    networks: tuple[NetworkId, ...] = (),
) -> Service:
    attachments = tuple(NetworkAttachmentSpec(n) for n in networks)
    task = TaskSpec(image=image, networks=attachments)
    return Service(id_, ServiceSpec(name, task, ports=ports))


def task(state: TaskState = TaskState.NEW, node: NodeId | None = None) -> Task:
    return Task(TASK, WEB, "web", TaskSpec("host"), 1, node, status=TaskStatus(state))


def network(name: str = "shop", id_: NetworkId = NET, *, ingress: bool = False) -> Network:
    return Network(id_, NetworkSpec(name, ingress=ingress))


def after(*changes: Change) -> Snapshot:
    snapshot = Snapshot()
    for index, change in enumerate(changes, start=1):
        snapshot = apply(snapshot, [change], index)
    return snapshot


def test_versions_are_raft_indexes() -> None:
    snapshot = after(PutNetwork(network()), PutService(service()))

    assert snapshot.services[WEB].meta.version == 2
    assert snapshot.index == 2


def test_stale_version_is_out_of_sequence_and_changes_nothing() -> None:
    snapshot = after(PutService(service()), PutService(service(), expect=1))

    with pytest.raises(OutOfSequence, match=r"update out of sequence$"):
        apply(snapshot, [PutTask(task()), PutService(service(), expect=1)], 3)
    assert not snapshot.tasks


def test_names_are_unique() -> None:
    snapshot = after(PutService(service()), PutNetwork(network()))

    with pytest.raises(Conflict, match="name conflicts with an existing object"):
        apply(snapshot, [PutService(service(id_=ServiceId("other")), expect=ABSENT)], 3)
    with pytest.raises(Conflict, match="network with name shop already exists"):
        apply(snapshot, [PutNetwork(network(id_=NetworkId("other")), expect=ABSENT)], 3)
    with pytest.raises(Conflict, match="service web already exists"):
        apply(snapshot, [PutService(service("WEB", ServiceId("other")), expect=ABSENT)], 3)


@pytest.mark.parametrize(
    ("mine", "other", "clashes"),
    [
        (PublishMode.INGRESS, PublishMode.INGRESS, True),
        (PublishMode.INGRESS, PublishMode.HOST, True),
        (PublishMode.HOST, PublishMode.HOST, False),
    ],
)
def test_published_ports(mine: PublishMode, other: PublishMode, *, clashes: bool) -> None:
    snapshot = after(PutService(service(ports=(PortSpec("tcp", 80, 8080, mine),))))
    change = PutService(service("b", ServiceId("b"), ports=(PortSpec("tcp", 1, 8080, other),)))

    if not clashes:
        assert len(apply(snapshot, [change], 2).services) == 2
        return
    with pytest.raises(FailedPrecondition, match="port '8080' is already in use by service 'web'"):
        apply(snapshot, [change], 2)


def test_allocated_port_is_taken_too() -> None:
    allocated = Endpoint(ports=(PortSpec("tcp", 80, 30000),))
    snapshot = after(
        PutService(service(ports=(PortSpec("tcp", 80),))), AllocateService(WEB, allocated, 1)
    )

    with pytest.raises(FailedPrecondition, match="30000"):
        apply(snapshot, [PutService(service("b", ServiceId("b"),
                                            ports=(PortSpec("tcp", 1, 30000),)))], 3)  # fmt: skip


def test_same_port_of_other_protocol_is_free() -> None:
    snapshot = after(PutService(service(ports=(PortSpec("tcp", 53, 53),))))
    change = PutService(service("b", ServiceId("b"), ports=(PortSpec("udp", 53, 53),)))

    assert len(apply(snapshot, [change], 2).services) == 2


def test_spec_version_moves_only_with_the_task_spec() -> None:
    snapshot = after(PutService(service()))
    scaled = replace(snapshot.services[WEB].spec, replicas=7)
    snapshot = apply(snapshot, [PutService(Service(WEB, scaled))], 2)
    assert snapshot.services[WEB].spec_version == 1

    snapshot = apply(snapshot, [PutService(service(image="/srv/root"))], 3)
    assert snapshot.services[WEB].spec_version == 3


def test_network_in_use_stays() -> None:
    snapshot = after(PutNetwork(network()), PutService(service(networks=(NET,))))
    with pytest.raises(FailedPrecondition, match="network n-shop is in use by service s-web"):
        apply(snapshot, [DeleteNetwork(NET)], 3)

    running = replace(task(TaskState.RUNNING, NODE), attachments=(Attachment(NET, "10.0.0.2"),))
    snapshot = apply(snapshot, [DeleteService(WEB), PutTask(running)], 3)
    with pytest.raises(FailedPrecondition, match="in use by task t-1"):
        apply(snapshot, [DeleteNetwork(NET)], 4)


def test_service_needs_its_networks() -> None:
    with pytest.raises(NotFound, match="network n-shop not found"):
        after(PutService(service(networks=(NET,))))


def test_task_walks_forward_only() -> None:
    snapshot = after(
        PutTask(task()),
        AssignTask(TASK, NODE, 2, 1.0),  # not PENDING yet: left alone
        AllocateTask(TASK, (), 1.0),
        AssignTask(TASK, NODE, 2, 2.0),
        AssignTask(TASK, NodeId("node-2"), 3, 3.0),  # too late
        ReportStatus(TASK, NODE, TaskStatus(TaskState.RUNNING, 4.0)),
        ReportStatus(TASK, NODE, TaskStatus(TaskState.READY, 5.0)),
        ReportStatus(TASK, NodeId("node-2"), TaskStatus(TaskState.FAILED, 5.0)),
        SetDesiredState(TASK, TaskState.SHUTDOWN),
        SetDesiredState(TASK, TaskState.RUNNING),
    )

    found = snapshot.tasks[TASK]
    assert (found.node, found.gateway_host) == (NODE, 2)
    assert found.status.state is TaskState.RUNNING
    assert found.desired_state is TaskState.SHUTDOWN


def test_allocations_say_when_they_were_made() -> None:
    """Who had an address, port or name last is told by Raft's order, not by anyone's clock."""
    ports = Endpoint(ports=(PortSpec("tcp", 80, 30000),))
    snapshot = after(PutService(service()), PutTask(task()))
    snapshot = apply(snapshot, [AllocateService(WEB, ports, 1)], 5)
    snapshot = apply(snapshot, [AllocateTask(TASK, (), 1.0)], 7)
    snapshot = apply(snapshot, [SetDesiredState(TASK, TaskState.SHUTDOWN)], 9)
    scaled = replace(snapshot.services[WEB], spec=replace(snapshot.services[WEB].spec, replicas=9))
    snapshot = apply(snapshot, [PutService(scaled)], 10)

    assert snapshot.tasks[TASK].allocation == 7
    assert snapshot.services[WEB].endpoint == replace(ports, allocation=5)


def test_facts_about_absent_objects_are_ignored() -> None:
    snapshot = after(
        SetDesiredState(TASK, TaskState.SHUTDOWN),
        SetNodeState(NODE, NodeState.DOWN, "heartbeat failure"),
        AllocateService(WEB, Endpoint(), 1),
    )

    assert (snapshot.tasks, snapshot.nodes, snapshot.services) == ({}, {}, {})


def test_removed_node_orphans_its_tasks() -> None:
    node = Node(NODE, NodeSpec(Role.WORKER), NodeDescription("w1"), index=1)
    snapshot = after(PutNode(node), PutTask(task(TaskState.RUNNING, NODE)), DeleteNode(NODE))

    assert snapshot.tasks[TASK].status.state is TaskState.ORPHANED


def cluster(validity_s: float) -> Cluster:
    spec = ClusterSpec(node_certificate_validity_s=validity_s)
    return Cluster(ClusterId("c"), spec, b"", b"", JoinTokens("", ""), ())


def test_a_removed_node_does_not_come_back() -> None:
    snapshot = after(PutNode(W1), DeleteNode(NODE, timestamp=5.0))

    until = 5.0 + NODE_CERTIFICATE_VALIDITY_S + CERTIFICATE_MARGIN_S
    assert snapshot.removed == {NODE: RemovedNode(NODE, until)}
    for expect in (ABSENT, None):
        with pytest.raises(Forbidden, match=r"node node-1 was removed .* then join again"):
            apply(snapshot, [PutNode(W1, expect)], 3)
    assert decode_snapshot(encode_snapshot(snapshot)) == snapshot
    tables = msgspec.msgpack.decode(encode_snapshot(snapshot))
    assert tables.keys() == {field.name for field in fields(Snapshot)}


def test_a_removed_node_is_remembered_as_long_as_any_certificate_may_be_valid() -> None:
    year_s, month_s, hour_s = 365 * 86400.0, 30 * 86400.0, 3600.0
    specs = [PutCluster(cluster(s)) for s in (hour_s, year_s, month_s, hour_s)]
    removed = after(*specs, PutNode(W1), DeleteNode(NODE, timestamp=1.0)).removed
    assert removed[NODE].until == 1.0 + year_s + CERTIFICATE_MARGIN_S


def test_a_removed_node_holds_the_keys_that_there_are() -> None:
    ring = tuple(GossipKey(n, b"k" * 32) for n in (4, 7))
    put = PutCluster(replace(cluster(60.0), gossip_keys=ring))
    assert after(put, PutNode(W1), DeleteNode(NODE, timestamp=1.0)).removed[NODE].key == 7


def test_removed_nodes_are_forgotten_once_expired_or_too_many() -> None:
    count = REMOVED_NODES_MAX + 2
    nodes = [replace(W1, id=NodeId(f"n{n}"), index=n + 1) for n in range(count)]
    snapshot = apply(Snapshot(), [PutNode(node) for node in nodes], 1)
    deletions = [DeleteNode(node.id, timestamp=float(n + 1)) for n, node in enumerate(nodes[:-1])]
    snapshot = apply(snapshot, deletions, 2)
    assert list(snapshot.removed) == [node.id for node in nodes[1:-1]]

    later = snapshot.removed[nodes[3].id].until
    last = apply(snapshot, [DeleteNode(nodes[-1].id, timestamp=later)], 3)
    assert list(last.removed) == [node.id for node in nodes[4:]]


def test_logs_and_snapshots_of_an_older_version_are_read() -> None:
    snapshot = after(PutNode(W1))
    (old,) = decode_changes(msgspec.msgpack.encode([(2, {"id": NODE, "expect": None})]))
    assert old == DeleteNode(NODE)
    deleted = apply(snapshot, [old], 2)
    assert deleted.removed == {}
    assert apply(deleted, [PutNode(W1)], 3).nodes.keys() == {NODE}

    tables = msgspec.msgpack.decode(encode_snapshot(snapshot))
    del tables["removed"]
    assert decode_snapshot(msgspec.msgpack.encode(tables)) == snapshot


def test_node_index_is_unique() -> None:
    node = Node(NODE, NodeSpec(Role.WORKER), NodeDescription("w1"), index=1)
    with pytest.raises(Conflict, match="node index 1 is taken"):
        after(PutNode(node), PutNode(replace(node, id=NodeId("node-2"))))


def test_codecs_round_trip() -> None:
    changes: list[Change] = [
        PutNetwork(network()),
        PutService(service(networks=(NET,), ports=(PortSpec("udp", 53, 53),)), expect=ABSENT),
        PutTask(task()),
        ReportStatus(TASK, None, TaskStatus(TaskState.PENDING, 1.5, "no suitable node")),
    ]

    assert list(decode_changes(encode_changes(changes))) == changes
    snapshot = apply(Snapshot(), changes, 7)
    assert decode_snapshot(encode_snapshot(snapshot)) == snapshot
