"""Managers and nodes of one cluster on loopback: real certificates, real TLS, no consensus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import aiohttp

from cluster.ca.authority import authority_of, new_join_tokens
from cluster.ca.certificates import PeerIdentity, RootCa, new_request, new_root_ca
from cluster.ca.files import CertificateDirectory, Credentials
from cluster.ca.tls import TlsContexts, tls_contexts
from cluster.dispatch.admission import Admission
from cluster.dispatch.calls import http_session
from cluster.dispatch.endpoints import Endpoints
from cluster.dispatch.join import Joined, join
from cluster.dispatch.messages import LogRecord, ManagerAddress, Registration
from cluster.dispatch.peers import Peers
from cluster.dispatch.port import ControlPort
from cluster.dispatch.requests import SightingReport
from cluster.dispatch.server import SessionServer
from cluster.model.assignment import Assignment, ClusterInfo
from cluster.model.cluster import Cluster, ClusterSpec
from cluster.model.errors import NotFound
from cluster.model.ids import ClusterId, NodeId, TaskId, new_id
from cluster.model.logs import LogOptions
from cluster.model.node import Node, NodeDescription, NodeSpec, Role
from cluster.state.changes import Change, PutCluster, PutNode
from cluster.state.snapshot import Snapshot
from cluster.store.local import LocalConsensus
from cluster.store.proposer import Proposer
from cluster.store.replica import Replica

NOW = 1_800_000_000.0
"""Unix time at which the tests begin; TLS clients check times by the real clock, see `CLOCK`."""
LOCALHOST = "127.0.0.1"


class Echo(asyncio.Protocol):
    """Stands where Raft is: greets, then closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"raft")
        transport.close()


@dataclass
class World:
    """One cluster's replicated state, shared by all its managers, and its trust."""

    state: Path
    clock: Callable[[], float]
    heartbeat_period_s: float = 0.2
    seed: int = 0
    rng: Random = field(init=False)
    replica: Replica = field(default_factory=Replica)
    cluster: Cluster = field(init=False)

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)
        root = new_root_ca(self.clock())
        self.cluster = Cluster(
            id=ClusterId(new_id(self.rng)),
            spec=ClusterSpec(heartbeat_period_s=self.heartbeat_period_s),
            ca_certificate=root.certificate,
            ca_key=root.key,
            join_tokens=new_join_tokens(root.certificate),
            gossip_keys=(),
        )
        self.proposer = Proposer(LocalConsensus(self.replica))

    @property
    def root(self) -> RootCa:
        return RootCa(self.cluster.ca_certificate, self.cluster.ca_key)

    def snapshot(self) -> Snapshot:
        return self.replica.snapshot()

    async def propose(self, *changes: Change) -> None:
        await self.proposer.propose(changes)

    def certify(
        self,
        role: Role,
        *,
        node: NodeId | None = None,
        root: RootCa | None = None,
        cluster: ClusterId | None = None,
        now: float | None = None,
        validity_s: float = 86400.0,
    ) -> Certified:
        """Return a node's credentials on disk, with any part as a test wants it wrong."""
        node = node or NodeId(new_id(self.rng))
        request = new_request()
        authority = authority_of(self.cluster)
        wrong = type(authority)(
            cluster=cluster or self.cluster.id,
            root=root or self.root,
            tokens=authority.tokens,
            validity_s=validity_s,
        )
        certificate = wrong.issue_untrusted(
            request.csr, node=node, role=role, now=self.clock() if now is None else now
        )
        directory = CertificateDirectory(self.state / new_id(self.rng))
        directory.save(Credentials(self.cluster.ca_certificate, certificate, request.key))
        return Certified(self, node, directory)

    async def add_node(self, certified: Certified, role: Role, manager_address: str = "") -> Node:
        """Make the node a member."""
        taken = {n.index for n in self.snapshot().nodes.values()}
        node = Node(
            id=certified.node,
            spec=NodeSpec(role=role),
            description=NodeDescription(hostname=f"host-{len(taken)}"),
            index=min(set(range(1, 100)) - taken),
            address=LOCALHOST,
            data_address=LOCALHOST,
            manager_address=manager_address,
        )
        await self.propose(PutNode(node))
        return node


@dataclass
class Certified:
    """A node that has a certificate."""

    world: World
    node: NodeId
    directory: CertificateDirectory

    def contexts(self) -> TlsContexts:
        return tls_contexts(self.directory, self.world.cluster.id)

    @asynccontextmanager
    async def peers(self) -> AsyncGenerator[Peers]:
        async with http_session() as session:
            yield Peers(session, self.contexts())

    @asynccontextmanager
    async def http(self) -> AsyncGenerator[aiohttp.ClientSession]:
        async with http_session() as session:
            yield session


class Manager:
    """A manager's port 2377."""

    def __init__(
        self, world: World, *, handshake_s: float = 5.0, anonymous_s: float = 30.0
    ) -> None:
        self.world = world
        self.certified = world.certify(Role.MANAGER)
        self.contexts = self.certified.contexts()
        self.forwarded: list[SightingReport] = []
        self.raft_joins: list[tuple[NodeId, str]] = []
        self.address = ""
        self.has_caught_up = True
        self.committed_elsewhere: tuple[Change, ...] = ()
        """What this manager does not know before it asks the others."""
        self.barriers = 0
        self._handshake_s = handshake_s
        self._anonymous_s = anonymous_s

    @property
    def node(self) -> NodeId:
        return self.certified.node

    @property
    def at(self) -> ManagerAddress:
        return ManagerAddress(self.node, self.address)

    async def start(self, port: int = 0) -> None:
        """Open the port; the node object is put by `running`."""
        world = self.world
        self.sessions = SessionServer(
            replica=world.replica,
            propose=world.proposer.propose,
            forward=self._forward,
            clock=world.clock,
            rng=world.rng,
        )
        endpoints = Endpoints(
            cluster=world.cluster.id,
            replica=world.replica,
            admission=Admission(
                replica=world.replica,
                propose=world.proposer.propose,
                clock=world.clock,
                rng=world.rng,
            ),
            sessions=self.sessions,
            raft_join=self._raft_join,
            read_barrier=self._read_barrier,
            has_caught_up=lambda: self.has_caught_up,
            clock=world.clock,
        )
        self.port = ControlPort(
            context=self.contexts.server,
            application=endpoints.application(),
            raft=Echo,
            cluster=world.cluster.id,
            clock=world.clock,
            handshake_s=self._handshake_s,
            anonymous_s=self._anonymous_s,
        )
        host, bound = await self.port.open(LOCALHOST, port)
        self.address = f"{host}:{bound}"

    async def _forward(self, report: SightingReport) -> None:
        self.forwarded.append(report)

    async def _read_barrier(self) -> None:
        self.barriers += 1
        changes, self.committed_elsewhere = self.committed_elsewhere, ()
        if changes:
            await self.world.propose(*changes)

    async def _raft_join(self, identity: PeerIdentity, address: str) -> tuple[ManagerAddress, ...]:
        self.raft_joins.append((identity.node, address))
        return (self.at,)


@asynccontextmanager
async def listening(manager: Manager) -> AsyncGenerator[Manager]:
    """Run a manager's port."""
    await manager.start()
    async with asyncio.TaskGroup() as group:
        accepting = group.create_task(manager.port.run())
        try:
            yield manager
        finally:
            accepting.cancel()
            await manager.port.close()


@asynccontextmanager
async def running(manager: Manager) -> AsyncGenerator[Manager]:
    """Run a manager that is a member."""
    world = manager.world
    async with listening(manager), asyncio.TaskGroup() as group:
        if world.snapshot().cluster is None:
            await world.propose(PutCluster(world.cluster))
        await world.add_node(manager.certified, Role.MANAGER, manager.address)
        sessions = group.create_task(manager.sessions.run())
        try:
            yield manager
        finally:
            sessions.cancel()


@asynccontextmanager
async def running_managers(world: World, count: int) -> AsyncGenerator[list[Manager]]:
    """Run several managers of one cluster."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running(Manager(world))) for _ in range(count)]


REGISTRATION = Registration(NodeDescription(hostname="joiner", nano_cpus=2_000_000_000))


async def join_with(
    world: World, addresses: Sequence[str], token: str, registration: Registration = REGISTRATION
) -> Joined:
    """Join as a new node."""
    return await join(addresses, token, new_request(), registration, clock=world.clock)


class RecordingAgent:
    """An agent that only remembers."""

    def __init__(self) -> None:
        self.infos: list[ClusterInfo] = []
        self.assignments: list[Assignment] = []
        self.logs: dict[TaskId, list[LogRecord]] = {}
        self.open_logs = 0
        self.changed = asyncio.Event()

    async def informed(self, info: ClusterInfo) -> None:
        self.infos.append(info)
        self.changed.set()

    async def assigned(self, assignment: Assignment) -> None:
        self.assignments.append(assignment)
        self.changed.set()

    async def read_log(self, task: TaskId, options: LogOptions) -> AsyncGenerator[LogRecord]:
        if task not in self.logs:
            raise NotFound(f"task {task} is not here")
        self.open_logs += 1
        try:
            for record in self.logs[task]:
                yield record
            if options.follow:
                await asyncio.get_running_loop().create_future()
        finally:
            self.open_logs -= 1


async def wait_until(condition: Callable[[], bool], *, timeout_s: float = 5.0) -> None:
    """Wait for what is bound to become true."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)
