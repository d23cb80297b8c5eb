"""What every node does, manager or not: session, gossip, tasks and data plane."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from cluster.agent.state_file import StateFile
from cluster.agent.worker import Worker, WorkerStats
from cluster.api.backend import LocalGossip
from cluster.ca.tls import TlsContexts
from cluster.control.keys import ring_digest
from cluster.dispatch.client import ClientStats, SessionClient
from cluster.dispatch.messages import LogRecord, ManagerAddress, Registration
from cluster.dispatch.peers import Peers
from cluster.dispatch.session import managers_in
from cluster.model.assignment import Assignment, ClusterInfo
from cluster.model.cluster import KeyState
from cluster.model.errors import NotFound
from cluster.model.ids import NodeId, TaskId
from cluster.model.logs import LogOptions
from cluster.model.node import NodeDescription, NodeState
from cluster.model.task import TaskStatus
from cluster.node.config import NodeConfig, Profile
from cluster.node.identity import NodeIdentity
from cluster.node.state_file import MembershipRecord
from cluster.runtime.base import RuntimeFailure
from cluster.runtime.cgroups import Cgroups
from cluster.runtime.process import ProcessRuntime
from cluster.task_group import TaskGroup
from dataplane.dns.resolv_conf import parse_upstreams
from dataplane.dns.server import (
    ADDRESS,
    LISTEN_ADDRESS,
    DnsServer,
    DnsStats,
    Sockets,
    open_listening_sockets,
)
from dataplane.kernel.driver import KernelDriver, KernelStats
from dataplane.kernel.listeners import open_ports
from dataplane.kernel.netns import run_in_namespace
from dataplane.kernel.resolver import lead
from dataplane.plan import NodePlan
from gossip.config import GossipConfig
from gossip.keyring import KeyState as RingState
from gossip.peer import GossipKey, Peer, PeerStats, State

logger = logging.getLogger(__name__)

WORKER_DIRECTORY = "worker"
TASKS_DIRECTORY = "tasks"
GOSSIP_DIRECTORY = "gossip"
RESOLV_CONF = Path("/etc/resolv.conf")
DNS_PORT = 53
LOCAL_PROBE_S = 0.4
"""Daemons that share a machine's processor probe each other less often than `local` would."""
RESTART_S = 2.5
"""A daemon that is back within this has not been dead for anybody, and keeps its tasks. Its host
refuses packets meanwhile, and on one machine that many daemons share, a restart takes longer than a
probe can tell."""
LOCAL_SUSPICION_MULTIPLIER_MAX = 3
DISTRUST_S = 60.0
"""Between two times that the driver takes nothing for granted (see `KernelDriver.distrust`)."""
HOST_ANSWER_S = 1.0
"""How long the host of a dead daemon may take to refuse a connection."""
FIRST_WORDS_S = 2.0
"""Longest wait of a restarted daemon for its tasks before it speaks to the others."""
FIRST_WORDS_POLL_S = 0.01
_RING_STATES = {
    KeyState.ACCEPT: RingState.ACCEPT,
    KeyState.PRIMARY: RingState.PRIMARY,
    KeyState.RETIRED: RingState.RETIRED,
}


@dataclass(frozen=True, slots=True)
class AgentStats:
    """What the parts of an agent count."""

    session: ClientStats
    driver: KernelStats
    dns: DnsStats
    gossip: PeerStats | None
    """None, here and below: a manager has not told the cluster's facts yet."""
    worker: WorkerStats | None


class Agent:
    """One node's agent. `run` it."""

    def __init__(
        self,
        *,
        config: NodeConfig,
        record: MembershipRecord,
        description: NodeDescription,
        cgroups: Cgroups,
        contexts: TlsContexts,
        identity: NodeIdentity,
        peers: Peers,
        on_managers: Callable[[tuple[tuple[NodeId, str], ...]], None],
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        """Get ready; nothing runs yet.

        on_managers: is told the managers' addresses whenever they change.
        """
        self._config = config
        self._record = record
        self._contexts = contexts
        self._identity = identity
        self._on_managers = on_managers
        self._clock = clock
        self._rng = rng
        self._known_managers = record.managers
        hidden = [config.data_root / name for name in ("certificates", "raft", "worker", "gossip")]
        self.runtime = ProcessRuntime(
            config.data_root / TASKS_DIRECTORY, hidden=hidden, cgroups=cgroups
        )
        self.driver = KernelDriver(config.run_root)
        self._dns = DnsServer(open_resolver, _upstreams(), rng)
        self._info: asyncio.Future[ClusterInfo] = asyncio.get_running_loop().create_future()
        remembered = StateFile(self._worker_directory).load()
        if remembered.info is not None:
            self._info.set_result(remembered.info)
        self._is_restart = remembered.assignment is not None
        self._node_names = _node_names(remembered.info or ClusterInfo(record.cluster))
        self._network_names = _network_names(remembered.assignment or Assignment())
        self._running = asyncio.Event()
        self.peer: Peer | None = None
        self.worker: Worker | None = None
        self.client = SessionClient(
            agent=self,
            connect=peers.open_session,
            registration=lambda: Registration(
                description=description,
                address=record.address,
                gossip_port=config.gossip_port,
                data_address=record.data_address,
                control_port=record.control_port,
            ),
            managers=[ManagerAddress(node, address) for node, address in record.managers],
            rng=rng,
        )
        if remembered.info is not None:
            self._remembered(remembered.info)
        self._session: asyncio.Task[None] | None = None
        self.has_session = asyncio.Event()
        """Set once a manager has told this node what it is to run."""

    async def run(self) -> None:
        """Take part until cancelled; tasks run on afterwards."""
        async with TaskGroup() as group:
            self._session = group.create_task(self.client.run())
            info = await self._info
            peer = self._make_peer(info)
            worker = self._make_worker(peer)
            self.peer, self.worker = peer, worker
            self._tell(info)
            group.create_task(worker.run())
            group.create_task(self.driver.run())
            group.create_task(self._distrust())
            group.create_task(self._ask_for_keys(peer))
            if self._is_restart:
                await _first_words(worker)
            group.create_task(
                peer.run(
                    ("0.0.0.0", self._config.gossip_port),  # noqa: S104  (identity is the key)
                    (self._record.address, self._config.gossip_port),
                )
            )
            self._running.set()

    def renewed(self, identity: NodeIdentity) -> None:
        """Sign with a renewed certificate from now on."""
        self._identity = identity
        if self.peer is not None:
            self.peer.set_identity(identity)

    async def close(self) -> None:
        """Let go of everything without touching what runs."""
        await self._dns.close()
        await self.driver.close()
        await self.runtime.close()

    async def leave(self) -> None:
        """Stop every task, take the data plane down and say goodbye.

        The session ends first: managers that heard of stopped tasks would assign new ones here.
        """
        if self._session is not None:
            self._session.cancel()
        if self._info.done():
            # It starts with what it remembers, tasks included: they are to be stopped as well.
            await self._running.wait()
        if self.worker is not None:
            await self.worker.leave()
        if self.peer is not None:
            await self.peer.leave()

    def dead_nodes(self) -> frozenset[NodeId]:
        """Return the nodes that gossip has declared dead."""
        if self.peer is None:
            return frozenset()
        gone = (State.DEAD, State.LEFT)
        return frozenset(NodeId(m.node_id) for m in self.peer.members() if m.state in gone)

    def stats(self) -> AgentStats:
        """Return what is counted."""
        return AgentStats(
            session=self.client.stats(),
            driver=self.driver.stats(),
            dns=self._dns.stats(),
            gossip=None if self.peer is None else self.peer.stats(),
            worker=None if self.worker is None else self.worker.stats(),
        )

    def gossip(self) -> LocalGossip | None:
        """Return what gossip says, and how people call what it speaks of."""
        if self.peer is None:
            return None
        return LocalGossip(self.peer, {**self._network_names, **self._node_names})

    # What the session brings (dispatch.client.Agent).

    async def informed(self, info: ClusterInfo) -> None:
        """Take the cluster's facts."""
        if not self._info.done():
            self._info.set_result(info)
        managers = tuple((m.node, m.address) for m in managers_in(info))
        if managers and managers != self._known_managers:
            self._known_managers = managers
            self._on_managers(managers)
        await self._running.wait()
        self._tell(info)

    async def assigned(self, assignment: Assignment) -> None:
        """Take everything that this node is to run."""
        await self._running.wait()
        if self.worker is not None:
            self.worker.set_assignment(assignment)
        self._network_names = _network_names(assignment)
        self.has_session.set()

    async def read_log(self, task: TaskId, options: LogOptions) -> AsyncGenerator[LogRecord]:
        """Yield the output of a task."""
        lines = self.runtime.logs(
            task, follow=options.follow, tail=options.tail, since_ns=options.since_ns
        )
        try:
            async with contextlib.aclosing(lines):
                async for line in lines:
                    if options.has(line.stream):
                        yield LogRecord(task, line.stream, line.written_at_ns, line.data)
        except RuntimeFailure as error:
            raise NotFound(f"no output of task {task}: {error}") from error

    # Inside.

    @property
    def _worker_directory(self) -> Path:
        return self._config.data_root / WORKER_DIRECTORY

    def _make_peer(self, info: ClusterInfo) -> Peer:
        directory = self._config.data_root / GOSSIP_DIRECTORY
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Peer(
            node_id=self._record.node,
            cluster_id=self._record.cluster,
            data_address=self._record.data_address,
            config=_gossip_config(self._config.profile),
            keys=_ring(info),
            identity=self._identity,
            state_directory=directory,
            rng=self._rng,
            server_ssl=lambda: self._contexts.gossip_server,
            client_ssl=lambda: self._contexts.gossip_client,
        )

    def _make_worker(self, peer: Peer) -> Worker:
        return Worker(
            node_id=self._record.node,
            runtime=self.runtime,
            driver=self.driver,
            gossip=peer,
            apply_names=self._apply_names,
            report=self._report,
            state_directory=self._worker_directory,
            remembered=self._remembered,
            host_answers=host_answers,
            now=self._clock,
            open_ports=open_ports,
        )

    async def _distrust(self) -> None:
        """Let the driver compare with the kernel itself now and then: somebody may have meddled."""
        while True:
            await asyncio.sleep(DISTRUST_S)
            await self.driver.distrust()

    async def _ask_for_keys(self, peer: Peer) -> None:
        """Ask the manager again whenever others seal with a key that this node was not told of."""
        while True:
            await peer.keys_wanted.wait()
            peer.keys_wanted.clear()
            self.client.ask_for_ring()

    async def _apply_names(self, plan: NodePlan) -> None:
        await self._dns.apply(plan, self.driver.sandbox_path)

    def _remembered(self, info: ClusterInfo) -> None:
        """Tell the managers that the ring is here to stay: it may seal for others from now on."""
        self.client.hold_ring(ring_digest(info.gossip_keys))

    def _report(self, task: TaskId, status: TaskStatus) -> None:
        self.client.report({task: status})

    def _tell(self, info: ClusterInfo) -> None:
        """Bring gossip and worker up to date with the cluster's facts."""
        if self.peer is None or self.worker is None:
            return
        self.peer.set_keys(_ring(info))
        self.peer.join(_bootstrap(info, self._record.node))
        # Not whoever is missing in `nodes`: gossip may know a joining node before the managers have
        # told us of it.
        self.peer.set_removed(info.removed)
        self._node_names = _node_names(info)
        self.worker.set_cluster_info(info)


async def host_answers(address: str, port: int) -> bool:
    """Return whether a host answers at a TCP port, be it with a refusal."""
    try:
        async with asyncio.timeout(HOST_ANSWER_S):
            _, writer = await asyncio.open_connection(address, port)
    except ConnectionRefusedError:
        return True
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _node_names(info: ClusterInfo) -> dict[str, str]:
    return {node.id: node.hostname for node in info.nodes}


def _network_names(assignment: Assignment) -> dict[str, str]:
    return {network.id: network.spec.name for network in assignment.networks.values()}


async def _first_words(worker: Worker) -> None:
    """Wait for the tasks of an earlier daemon to be adopted, but not for long.

    A new life in gossip hides the records of the one before: what runs is to be published with it.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FIRST_WORDS_S):
            while not worker.has_spoken:  # noqa: ASYNC110  (bounded, once, at the start)
                await asyncio.sleep(FIRST_WORDS_POLL_S)


def _bootstrap(info: ClusterInfo, own: NodeId) -> Sequence[tuple[str, int]]:
    """Return where to look for the other members: managers, or anyone when there is no other."""
    others = [n for n in info.nodes if n.id != own and n.address]
    managers = [n for n in others if n.manager_address] or others
    ready = [n for n in managers if n.state is not NodeState.DOWN] or managers
    return [(n.address, n.gossip_port) for n in ready]


def _ring(info: ClusterInfo) -> list[GossipKey]:
    return [GossipKey(key.id, key.secret, _RING_STATES[key.state]) for key in info.gossip_keys]


def _gossip_config(profile: Profile) -> GossipConfig:
    if profile is Profile.LAN:
        return replace(GossipConfig.lan(), refused_suspicion_s=RESTART_S)
    return replace(
        GossipConfig.local(),
        probe_interval_s=LOCAL_PROBE_S,
        suspicion_floor_s=RESTART_S,
        refused_suspicion_s=RESTART_S,
        suspicion_max_multiplier=LOCAL_SUSPICION_MULTIPLIER_MAX,
    )


def open_resolver(namespace: Path) -> Sockets:
    """Return a resolver's sockets in a sandbox's namespace, where ADDRESS leads to them.

    Raises:
        OSError: the namespace is gone, or the kernel refused.
    """

    def inside() -> Sockets:
        lead(*ADDRESS, to=LISTEN_ADDRESS[1])
        return open_listening_sockets()

    return run_in_namespace(namespace, inside)


def _upstreams() -> list[tuple[str, int]]:
    text = ""
    with contextlib.suppress(OSError):
        text = RESOLV_CONF.read_text()
    return [(address, DNS_PORT) for address in parse_upstreams(text)]
