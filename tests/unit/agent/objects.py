"""Objects for tests: short to write, deterministic."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from cluster.agent.sightings import Endpoint
from cluster.allocation.compose import compose
from cluster.allocation.records import (
    INGRESS_SCOPE,
    EndpointRecord,
    Phase,
    RecordPort,
    encode,
    encode_body,
)
from cluster.allocation.tokens import Signer, Verifier, new_key
from cluster.model.assignment import Allocation, Assignment, ClusterInfo, NodeInfo, ServiceInfo
from cluster.model.ids import ClusterId, NetworkId, NodeId, ServiceId, TaskId
from cluster.model.network import Network, NetworkSpec
from cluster.model.node import NodeState, Role
from cluster.model.service import (
    Endpoint as ServiceEndpoint,
)
from cluster.model.service import (
    EndpointMode,
    PortSpec,
    PublishMode,
    TaskSpec,
    VirtualAddress,
)
from cluster.model.task import Attachment, Task, TaskState, TaskStatus
from dataplane.addressing import gateway_subnet
from dataplane.plan import Protocol

NET = NetworkId("net1")
WEB = ServiceId("svcweb")
A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
INDEX = {A: 1, B: 2, C: 3}
VIP = "10.0.1.2"
FOREVER = ("sleep", "infinity")
CLUSTER = ClusterId("cluster")
KEY = new_key(bytes(range(32)))
SIGNER = Signer(CLUSTER, KEY)
VERIFIER = Verifier(CLUSTER, (KEY.public,))


def info(*nodes: NodeId) -> ClusterInfo:
    return ClusterInfo(
        CLUSTER,
        tuple(
            NodeInfo(
                id=node,
                index=INDEX[node],
                hostname=node,
                role=Role.WORKER,
                state=NodeState.READY,
                address=f"192.0.2.{INDEX[node]}",
                gossip_port=7946,
                data_address=f"192.0.2.{INDEX[node]}",
                manager_address="",
            )
            for node in nodes or (A, B, C)
        ),
        allocation_keys=VERIFIER.keys,
    )


def network(name: str = "net1", third: int = 1, *, internal: bool = False) -> Network:
    return Network(
        id=NetworkId(name),
        spec=NetworkSpec(name=f"my-{name}", internal=internal),
        vni=5000 + third,
        subnet=f"10.0.{third}.0/24",
        gateway=f"10.0.{third}.1",
    )


def service(
    mode: EndpointMode = EndpointMode.VIP, *ports: PortSpec, networks: tuple[str, ...] = ("net1",)
) -> ServiceInfo:
    vips = tuple(VirtualAddress(NetworkId(n), VIP) for n in networks)
    return ServiceInfo(
        WEB, "web", mode, ServiceEndpoint(ports, vips if mode is EndpointMode.VIP else ())
    )


def published(port: int = 8080, mode: PublishMode = PublishMode.INGRESS) -> PortSpec:
    return PortSpec("tcp", 80, port, mode)


def task(
    number: int = 1,
    *,
    command: tuple[str, ...] = FOREVER,
    desired: TaskState = TaskState.RUNNING,
    state: TaskState = TaskState.ASSIGNED,
    aliases: tuple[str, ...] = (),
    networks: tuple[str, ...] = ("net1",),
    stop_grace_s: float = 10.0,
) -> Task:
    return Task(
        id=TaskId(f"task{number:021}"),
        service=WEB,
        service_name="web",
        spec=TaskSpec(image="host", command=command, stop_grace_s=stop_grace_s),
        slot=number,
        node=A,
        desired_state=desired,
        status=TaskStatus(state=state),
        attachments=tuple(
            Attachment(NetworkId(n), f"10.0.{third}.{10 + number}", aliases)
            for third, n in enumerate(networks, start=1)
        ),
        allocation=number * 1000,
        gateway_host=10 + number,
    )


def assignment(
    *tasks: Task, services: tuple[ServiceInfo, ...] = (service(),), networks: int = 1
) -> Assignment:
    found = [network(f"net{n}", n) for n in range(1, networks + 1)]
    return allocated(
        Assignment(
            tasks={t.id: t for t in tasks},
            networks={n.id: n for n in found},
            services={s.id: s for s in services},
        )
    )


def allocated(bare: Assignment) -> Assignment:
    """Return the assignment as managers send it: with the allocations of its tasks."""
    return replace(
        bare,
        allocations={
            t.id: tuple(
                allocation(t.node, place.scope, record, place.key)
                for place, record in compose(
                    t, bare.services[t.service], bare.networks, INDEX[t.node]
                )
            )
            for t in bare.tasks.values()
            if t.node is not None
        },
    )


def allocation(owner: NodeId, scope: str, made: EndpointRecord, key: str = "") -> Allocation:
    """Return what allows `owner` to publish the record."""
    return SIGNER.allocate(owner, scope, key or made.task, encode_body(made))


def signed(owner: NodeId, made: EndpointRecord) -> bytes:
    """Return the record as `owner` may publish it, in `net1` or `ingress`."""
    proof = allocation(owner, NET if made.address else INGRESS_SCOPE, made)
    return encode(made.phase, proof.body, proof.token)


def desire(tasks: Assignment, state: TaskState, *numbers: int) -> Assignment:
    """Return the assignment with the desired state of some tasks changed."""
    ids = {task(number).id for number in numbers}
    return replace(
        tasks,
        tasks={
            i: replace(t, desired_state=state) if i in ids else t for i, t in tasks.tasks.items()
        },
    )


def record(number: int, phase: Phase = Phase.SERVING) -> EndpointRecord:
    """Return the record of a task of `web`, as another node would publish it in `net1`."""
    made = task(number)
    address = IPv4Address(made.attachments[0].address)
    return EndpointRecord(
        task=made.id,
        task_name=f"web.{number}.{made.id}",
        service=WEB,
        service_name="web",
        phase=phase,
        allocation=number * 1000,
        address=address,
        vip=IPv4Address(VIP),
    )


def ingress_record(node: NodeId, number: int, phase: Phase = Phase.SERVING) -> EndpointRecord:
    return replace(
        record(number, phase),
        address=None,
        vip=None,
        gateway_address=gateway_subnet(INDEX[node]).network_address + 10 + number,
        ports=(RecordPort(Protocol.TCP, 8080, 80),),
    )


def endpoint(owner: NodeId, number: int, phase: Phase = Phase.SERVING) -> Endpoint:
    return Endpoint(owner, record(number, phase))
