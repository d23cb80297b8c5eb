"""A manager's part of a node: consensus, port 2377, sessions, and the loops while it leads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from cluster.api.backend import RaftView, Reachability
from cluster.ca.certificates import PeerIdentity
from cluster.ca.tls import TlsContexts
from cluster.consensus.founding import Bootstrap, Founding, Join
from cluster.consensus.node import NodeStats, RaftNode
from cluster.control.liveness import Evidence
from cluster.dispatch import messages
from cluster.dispatch.admission import Admission, host_port
from cluster.dispatch.endpoints import Endpoints
from cluster.dispatch.logs import LogPages
from cluster.dispatch.messages import LogRecord, ManagerAddress
from cluster.dispatch.peers import Peers
from cluster.dispatch.port import ControlPort, PortStats
from cluster.dispatch.requests import LogQuery, SightingReport
from cluster.dispatch.server import ServerStats, SessionServer
from cluster.model.errors import ClusterError, Unavailable
from cluster.model.ids import NodeId, TaskId
from cluster.model.logs import LogOptions
from cluster.node.founding import data_key, forget_bootstrap, load_bootstrap
from cluster.node.leader import Leader
from cluster.node.leadership import Hearing
from cluster.node.state_file import MembershipRecord
from cluster.state.snapshot import Snapshot
from cluster.store.proposer import Proposer
from cluster.store.replica import Replica
from cluster.task_group import TaskGroup

logger = logging.getLogger(__name__)

RAFT_DIRECTORY = "raft"
RAFT_JOIN_RETRY_S = 0.5
MAX_LOG_TASKS = 1000
"""Tasks whose output one request may read."""
DISK_WAIT_S_MAX = 1.0
"""A manager whose log waits longer for the disk learns nothing of what the leader decides."""


@dataclass(frozen=True, slots=True)
class ManagerStats:
    """What the parts of a manager count, and the state that it has."""

    raft: NodeStats
    port: PortStats
    sessions: ServerStats
    state: Snapshot


class Manager:
    """One manager. `run` it; everything else may be used once `ready` is set."""

    def __init__(
        self,
        *,
        data_root: Path,
        record: MembershipRecord,
        contexts: TlsContexts,
        peers: Peers,
        dead: Callable[[], Collection[NodeId]],
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        """Restore the replicated state from disk.

        dead: nodes that gossip has declared dead. clock: unix time, seconds.

        Raises:
            StorageFailure: the log is damaged.
        """
        self._data_root = data_root
        self._record = record
        self._peers = peers
        self._dead = dead
        self._clock = clock
        self._rng = rng
        self.ready = asyncio.Event()
        """Set once this manager has a vote and has caught up."""
        self.replica = Replica()
        directory = data_root / RAFT_DIRECTORY
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.raft = RaftNode(
            node_id=record.node,
            cluster_id=record.cluster,
            directory=directory,
            address=(record.address, record.control_port),
            machine=self.replica,
            client_context=lambda: contexts.raft,
            data_key=data_key(data_root),
            founding=self._founding(directory),
            rng=rng,
        )
        self.proposer = Proposer(self.raft)
        admission = Admission(
            replica=self.replica, propose=self.proposer.propose, clock=clock, rng=rng
        )
        self.sessions = SessionServer(
            replica=self.replica,
            propose=self.proposer.propose,
            forward=self._report_to_leader,
            clock=clock,
            rng=rng,
        )
        self._hearing = Hearing(
            others=lambda: self.raft.members().keys() - {record.node},
            reporting=self.sessions.reporting,
            hand_over=self.raft.transfer_leadership,
        )
        endpoints = Endpoints(
            cluster=record.cluster,
            replica=self.replica,
            admission=admission,
            sessions=self.sessions,
            raft_join=self._let_into_raft,
            read_barrier=self.raft.read_barrier,
            has_caught_up=self.ready.is_set,
            clock=clock,
        )
        self._port = ControlPort(
            context=contexts.server,
            application=endpoints.application(),
            raft=self.raft.protocol_factory,
            cluster=record.cluster,
            clock=clock,
        )
        self.admission = admission

    async def run(self) -> None:
        """Manage until cancelled.

        Raises:
            StorageFailure: the disk failed: the process must end, so that another one leads.
            OSError: the control port cannot be opened.
        """
        host, _, port = self._record.listen.rpartition(":")
        await self._port.open(host.strip("[]"), int(port))
        try:
            async with TaskGroup() as group:
                group.create_task(self._port.run())
                group.create_task(self.raft.run())
                group.create_task(self.sessions.run())
                group.create_task(self._lead())
                await self._become_member()
                self.ready.set()
        finally:
            await self._port.close()

    def stats(self) -> ManagerStats:
        """Return what is counted."""
        return ManagerStats(
            raft=self.raft.stats(),
            port=self._port.stats(),
            sessions=self.sessions.stats(),
            state=self.replica.snapshot(),
        )

    def raft_view(self) -> RaftView:
        """Return the consensus group as this manager sees it."""
        stats = self.raft.stats()
        connected = set(stats.mesh.sessions_out) | {self._record.node}
        return RaftView(
            leader=NodeId(self.raft.leader_id) if self.raft.leader_id else None,
            reachability={
                NodeId(member): (
                    Reachability.REACHABLE if member in connected else Reachability.UNREACHABLE
                )
                for member in self.raft.members()
            },
        )

    async def logs(self, tasks: Sequence[TaskId], options: LogOptions) -> AsyncGenerator[LogRecord]:
        """Yield the output of tasks from whichever nodes they run on."""
        wanted = tuple(tasks[:MAX_LOG_TASKS])
        known = self.replica.snapshot().tasks
        placed = [(t, node) for t in wanted if t in known and (node := known[t].node) is not None]
        query = LogQuery(wanted, options)
        others = [self._logs_of(manager, query) for manager in self._other_managers()]
        async with contextlib.aclosing(self.sessions.logs.read(placed, options, others)) as pages:
            async for page in pages:
                for record in page:
                    yield record

    async def _logs_of(self, manager: ManagerAddress, query: LogQuery) -> LogPages:
        try:
            async with contextlib.aclosing(self._peers.logs(manager, query)) as pages:
                async for page in pages:
                    yield page
        except (ClusterError, messages.MalformedMessage) as error:
            logger.info("no logs from manager: node=%s error=%s", manager.node, error)

    def _other_managers(self) -> list[ManagerAddress]:
        return [
            ManagerAddress(NodeId(node), host_port(*address))
            for node, address in self.raft.members().items()
            if node != self._record.node
        ]

    def _founding(self, directory: Path) -> Founding | None:
        if any(directory.iterdir()):
            return None
        if self._record.is_joining_raft:
            addresses = {str(node): _split(address) for node, address in self._record.managers}
            return Join(addresses)
        return Bootstrap()

    async def _become_member(self) -> None:
        """Return once this manager has a vote, its own state, and a leader above it."""
        while True:
            try:
                if self._record.is_joining_raft and not self.raft.is_member:
                    await self._ask_for_vote()
                await self.raft.read_barrier()
                break
            except ClusterError as error:
                logger.info("not a voting manager yet, will retry: error=%s", error)
                await asyncio.sleep(RAFT_JOIN_RETRY_S)
        first = load_bootstrap(self._data_root)
        if first:
            if self.replica.snapshot().cluster is None:
                await self.proposer.propose(first)
            forget_bootstrap(self._data_root)

    async def _ask_for_vote(self) -> None:
        own = host_port(self._record.address, self._record.control_port)
        refusals: list[str] = []
        for node, address in self._record.managers:
            try:
                await self._peers.raft_join(ManagerAddress(node, address), own)
            except ClusterError as error:
                refusals.append(str(error))
            else:
                return
        raise Unavailable("; ".join(refusals) or "no manager is known")

    async def _let_into_raft(
        self, identity: PeerIdentity, address: str
    ) -> tuple[ManagerAddress, ...]:
        await self.raft.add_member(identity.node, _split(address))
        return tuple(
            ManagerAddress(NodeId(node), host_port(*where))
            for node, where in self.raft.members().items()
        )

    async def _report_to_leader(self, report: SightingReport) -> None:
        leader = self.raft.leader_id
        if leader is None:
            raise Unavailable("there is no leader to report to")
        if self.raft.disk_wait_s > DISK_WAIT_S_MAX:
            raise Unavailable("the disk of this manager does not answer")
        address = self.raft.members().get(leader)
        if leader != self._record.node and address is not None:
            manager = ManagerAddress(NodeId(leader), host_port(*address))
            await self._peers.report_sightings(manager, report)

    async def _lead(self) -> None:
        """Run the leader's loops whenever this manager leads."""
        with self.raft.watch_leadership() as changed:
            while True:
                changed.clear()
                if self.raft.is_leader:
                    term = self.raft.term
                    async with TaskGroup() as group:
                        leading = group.create_task(self._run_leader())
                        hearing = group.create_task(self._hearing.lead())
                        while self.raft.is_leader and self.raft.term == term:
                            await changed.wait()
                            changed.clear()
                        leading.cancel()
                        hearing.cancel()
                    logger.info("no longer leading: term=%d", term)
                else:
                    await changed.wait()

    async def _run_leader(self) -> None:
        while True:
            try:
                await self.raft.read_barrier()
                break
            except Unavailable:
                logger.info("leader without a majority yet: term=%d", self.raft.term)
        await Leader(
            replica=self.replica,
            proposer=self.proposer,
            evidence=self._evidence,
            rings=self.sessions.rings,
            clock=self._clock,
            rng=self._rng,
        ).run()

    def _evidence(self, started_at: float) -> Evidence:
        return Evidence(started_at, self.sessions.sightings(), self._dead())


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
