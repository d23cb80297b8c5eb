"""A node for the API's tests: a real replicated state in memory, and an instant world.

The world stands for the control loops and the agents: after each change every service has its
endpoint, and every wanted task runs on one of the nodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from random import Random

from cluster.api.backend import (
    EngineFacts,
    InitRequest,
    JoinRequest,
    LocalGossip,
    LocalState,
    ManagerPeer,
    Membership,
    RaftView,
    Reachability,
    TaskLogLine,
)
from cluster.api.exposition import Family, Kind, Metric, collect
from cluster.control.keys import first_keys
from cluster.model.cluster import Cluster, JoinTokens
from cluster.model.errors import Unavailable
from cluster.model.ids import ClusterId, NetworkId, NodeId, TaskId, new_id
from cluster.model.logs import LogOptions, LogStream
from cluster.model.meta import Meta
from cluster.model.network import Network, NetworkSpec
from cluster.model.node import Node, NodeDescription, NodeSpec, NodeState, Role
from cluster.model.service import Endpoint, Service, ServiceMode, VirtualAddress
from cluster.model.task import Attachment, Task, TaskState, TaskStatus
from cluster.runtime.base import LogLine
from cluster.state.changes import (
    AllocateNetwork,
    AllocateService,
    AllocateTask,
    AssignTask,
    Change,
    DeleteTask,
    PutCluster,
    PutNetwork,
    PutNode,
    PutTask,
    ReportStatus,
)
from cluster.state.snapshot import Snapshot
from cluster.store.local import LocalConsensus
from cluster.store.proposer import Proposer
from cluster.store.replica import Replica

START = 1_700_000_000.0


class MemoryBackend:
    """One node: inactive until `swarm_init`."""

    def __init__(self, hostname: str = "n1") -> None:
        self.replica = Replica()
        self.has_leader = True
        self.meanwhile: Sequence[Change] = ()
        """What somebody else changes before the next proposal, once."""
        self.joined: list[JoinRequest] = []
        self.local_gossip: LocalGossip | None = None
        self.has_limits = True
        self.published_port_min = 1
        self._proposer = Proposer(LocalConsensus(self.replica))
        self._membership = Membership()
        self._hostname = hostname
        self._rng = Random(1)
        self._now = START

    def set_membership(self, membership: Membership) -> None:
        """Pretend another standing."""
        self._membership = membership

    def membership(self) -> Membership:
        return self._membership

    def facts(self) -> EngineFacts:
        return EngineFacts(
            engine_id="engine-1",
            hostname=self._hostname,
            version="0.1.0",
            operating_system="Test OS",
            kernel_version="6.1.0",
            cpus=2,
            memory_bytes=2**32,
            data_root="/var/lib/hivewire",
            has_limits=self.has_limits,
            published_port_min=self.published_port_min,
        )

    def snapshot(self) -> Snapshot:
        return self.replica.snapshot()

    async def read_barrier(self) -> None:
        if not self.has_leader:
            raise Unavailable("no leader within 5 s; nothing was read")

    def watch(self) -> AbstractContextManager[asyncio.Event]:
        return self.replica.watch()

    async def propose(self, changes: Sequence[Change]) -> int:
        if self.meanwhile:
            others, self.meanwhile = self.meanwhile, ()
            await self._proposer.propose(others)
        index = await self._proposer.propose(changes)
        while reaction := list(self._react()):
            await self._proposer.propose(reaction)
        return index

    async def commit(self, changes: Sequence[Change]) -> None:
        """Change the state without the world's reaction."""
        await self._proposer.propose(changes)

    def raft_view(self) -> RaftView:
        if self._membership.node is None:
            return RaftView()
        return RaftView(self._membership.node, {self._membership.node: Reachability.REACHABLE})

    def gossip(self) -> LocalGossip | None:
        return self.local_gossip

    def metrics(self) -> list[Family]:
        return collect(
            [Metric(Kind.GAUGE, "memory_hostname_length", "Of it.", len)], self._hostname
        )

    async def swarm_init(self, request: InitRequest) -> NodeId:
        node_id = NodeId(new_id(self._rng))
        meta = Meta(created_at=self.now(), updated_at=self.now())
        cluster = Cluster(
            id=ClusterId(new_id(self._rng)),
            spec=request.spec,
            ca_certificate=b"no certificate",
            ca_key=b"",
            join_tokens=JoinTokens("SWMTKN-1-w", "SWMTKN-1-m"),
            gossip_keys=first_keys(self._rng.randbytes, meta.created_at),
            address_pool=request.address_pool,
            subnet_size=request.subnet_size,
            data_path_port=request.data_path_port,
            meta=meta,
        )
        node = make_node(node_id, self._hostname, Role.MANAGER)
        ingress = Network(
            NetworkId(new_id(self._rng)), NetworkSpec("ingress", ingress=True), meta=meta
        )
        await self.propose([PutCluster(cluster), PutNode(node), PutNetwork(ingress)])
        self._membership = Membership(
            LocalState.ACTIVE, node_id, True, "10.9.0.1", (ManagerPeer(node_id, "10.9.0.1:2377"),)
        )
        return node_id

    async def swarm_join(self, request: JoinRequest) -> None:
        self.joined.append(request)
        self._membership = Membership(LocalState.ACTIVE, NodeId("0" * 25), False, "10.9.0.2")

    async def swarm_leave(self, *, force: bool) -> None:
        assert force or not self._membership.is_manager
        self._membership = Membership()

    def new_join_token(self, cluster: Cluster) -> str:
        assert cluster.ca_certificate
        return f"SWMTKN-1-{new_id(self._rng)}"

    async def service_logs(
        self, tasks: Sequence[TaskId], options: LogOptions
    ) -> AsyncIterator[TaskLogLine]:
        for task_id in tasks:
            task = self.snapshot().tasks[task_id]
            assert task.node is not None
            lines = [
                LogLine(LogStream.STDOUT, int(START * 1e9), b"hello\n"),
                LogLine(LogStream.STDERR, int(START * 1e9) + 1, b"oh\n"),
            ]
            for line in lines[-options.tail or len(lines) :] if options.tail is not None else lines:
                if options.has(line.stream):
                    yield TaskLogLine(task_id, task.node, line)

    def now(self) -> float:
        self._now += 1.0
        return self._now

    @property
    def rng(self) -> Random:
        return self._rng

    def _react(self) -> Sequence[Change]:
        state = self.snapshot()
        changes: list[Change] = []
        for number, network in enumerate(state.networks.values()):
            if not network.vni:
                subnet = f"10.0.{number}."
                changes.append(
                    AllocateNetwork(network.id, 4096 + number, f"{subnet}0/24", f"{subnet}1")
                )
        for service in state.services.values():
            changes += self._serve(service, state)
        changes += [
            DeleteTask(task.id)
            for task in state.tasks.values()
            if task.service not in state.services
        ]
        return changes

    def _serve(self, service: Service, state: Snapshot) -> list[Change]:
        if service.endpoint is None:
            endpoint = Endpoint(
                tuple(
                    replace(port, published_port=port.published_port or 30000 + number)
                    for number, port in enumerate(service.spec.ports)
                ),
                tuple(
                    VirtualAddress(a.target, f"10.0.{number}.2")
                    for number, a in enumerate(service.spec.task.networks)
                ),
            )
            return [AllocateService(service.id, endpoint, service.meta.version)]
        nodes = sorted(state.nodes)
        is_global = service.spec.mode is ServiceMode.GLOBAL
        wanted = len(nodes) if is_global else service.spec.replicas
        tasks = [t for t in state.tasks.values() if t.service == service.id]
        current = [t for t in tasks if t.spec == service.spec.task]
        changes: list[Change] = [DeleteTask(t.id) for t in tasks if t not in current]
        changes += [DeleteTask(t.id) for t in current[wanted:]]
        for number in range(len(current), wanted):
            changes += self._run(
                service, 0 if is_global else number + 1, nodes[number % len(nodes)]
            )
        return changes

    def _run(self, service: Service, slot: int, node: NodeId) -> list[Change]:
        task_id, now = TaskId(new_id(self._rng)), self.now()
        task = Task(
            task_id,
            service.id,
            service.spec.name,
            service.spec.task,
            slot,
            spec_version=service.spec_version,
            service_labels=service.spec.labels,
            meta=Meta(created_at=now, updated_at=now),
        )
        attachments = tuple(
            Attachment(a.target, f"10.0.1.{slot + 10}") for a in service.spec.task.networks
        )
        return [
            PutTask(task),
            AllocateTask(task_id, attachments, now),
            AssignTask(task_id, node, 2, now),
            ReportStatus(task_id, node, TaskStatus(TaskState.RUNNING, now, "started", pid=42)),
        ]


def make_node(node_id: NodeId, hostname: str, role: Role, index: int = 1) -> Node:
    """Return a node that is ready."""
    return Node(
        node_id,
        NodeSpec(role),
        NodeDescription(hostname, nano_cpus=2_000_000_000, engine_version="0.1.0"),
        index=index,
        address=f"10.9.0.{index}",
        manager_address=f"10.9.0.{index}:2377" if role is Role.MANAGER else "",
        state=NodeState.READY,
        meta=Meta(created_at=START, updated_at=START),
    )
