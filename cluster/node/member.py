"""One membership: the agent that every node has, and the manager's part where it is one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from random import Random

from cluster.ca.certificates import PeerIdentity
from cluster.ca.files import CertificateDirectory, Credentials
from cluster.ca.renewal import keep_renewed
from cluster.ca.tls import TlsContexts, tls_contexts
from cluster.dispatch.calls import http_session
from cluster.dispatch.messages import ManagerAddress
from cluster.dispatch.peers import Peers
from cluster.model.errors import ClusterError
from cluster.model.ids import NodeId
from cluster.model.node import NodeDescription, Role
from cluster.node import footprint, state_file
from cluster.node.agent import Agent
from cluster.node.config import NodeConfig
from cluster.node.identity import NodeIdentity
from cluster.node.manager import Manager
from cluster.node.state_file import MembershipRecord
from cluster.runtime.cgroups import Cgroups
from cluster.task_group import TaskGroup

logger = logging.getLogger(__name__)

SETTLE_S = 5.0
"""After a node is ready, its first tasks and its data plane still come."""
LEAVE_RAFT_S = 5.0
"""How long a leaving manager tries to take its vote back."""


class Member:
    """This node in its cluster. `run` it; `manager` and `agent` are there while it runs."""

    def __init__(
        self,
        *,
        config: NodeConfig,
        record: MembershipRecord,
        certificates: CertificateDirectory,
        description: NodeDescription,
        cgroups: Cgroups,
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        """Get ready; nothing runs yet."""
        self.record = record
        self.manager: Manager | None = None
        self.agent: Agent | None = None
        self._config = config
        self._certificates = certificates
        self._description = description
        self._cgroups = cgroups
        self._clock = clock
        self._rng = rng
        self.started = asyncio.Event()
        """Set once `agent` is there, and `manager` on one."""
        self.error = ""
        """Why this node takes no part any more, for people; empty: it does."""

    async def run(self) -> None:
        """Take part until cancelled.

        Raises:
            StorageFailure, CertificateError, OSError: this node cannot go on.
        """
        credentials, identity = self._certificates.load_at_any_time()
        contexts = tls_contexts(self._certificates, self.record.cluster)
        async with http_session() as session, TaskGroup() as group:
            peers = Peers(session, contexts)
            self.agent = Agent(
                config=self._config,
                record=self.record,
                description=self._description,
                cgroups=self._cgroups,
                contexts=contexts,
                identity=self._gossip_identity(credentials),
                peers=peers,
                on_managers=self._remember_managers,
                clock=self._clock,
                rng=self._rng,
            )
            if identity.role is Role.MANAGER:
                self.manager = Manager(
                    data_root=self._config.data_root,
                    record=self.record,
                    contexts=contexts,
                    peers=peers,
                    dead=self.agent.dead_nodes,
                    clock=self._clock,
                    rng=self._rng,
                )
                group.create_task(self._manage(self.manager))
            group.create_task(self.agent.run())
            group.create_task(self._obey_removal(self.agent))
            group.create_task(self._keep_certificate(peers, contexts, identity))
            group.create_task(self._settle())
            self.started.set()

    @property
    def is_ready(self) -> bool:
        """Whether this node does all that it is in the cluster for."""
        is_managing = self.manager is None or self.manager.ready.is_set()
        return self.started.is_set() and self.agent is not None and is_managing

    async def wait_until_ready(self) -> None:
        """Return when a manager has a vote, and a worker its first assignment."""
        await self.started.wait()
        if self.manager is not None:
            await self.manager.ready.wait()
        if self.agent is not None:
            await self.agent.has_session.wait()

    async def leave(self) -> None:
        """Stop this node's tasks and say goodbye; the caller then cancels `run`."""
        if self.agent is not None:
            await self.agent.leave()
        if self.manager is not None and len(self.manager.raft.members()) > 1:
            with contextlib.suppress(ClusterError):
                await self.manager.raft.remove_member(self.record.node, timeout_s=LEAVE_RAFT_S)

    async def close(self) -> None:
        """Let go of everything without touching what runs."""
        if self.agent is not None:
            await self.agent.close()

    async def _obey_removal(self, agent: Agent) -> None:
        """Stop everything once the managers have removed this node: its tasks run elsewhere."""
        await agent.client.removed.wait()
        self.error = "this node was removed from the swarm: leave it, and join again"
        logger.error("removed from the cluster, stopping all tasks: node=%s", self.record.node)
        await agent.leave()

    async def _manage(self, manager: Manager) -> None:
        async with TaskGroup() as group:
            group.create_task(manager.run())
            await manager.ready.wait()
            if self.record.is_joining_raft:
                self._remember(replace(self.record, is_joining_raft=False))

    async def _settle(self) -> None:
        await self.wait_until_ready()
        await asyncio.sleep(SETTLE_S)
        footprint.settle()

    async def _keep_certificate(
        self, peers: Peers, contexts: TlsContexts, identity: PeerIdentity
    ) -> None:
        async def renew(csr: bytes) -> bytes:
            manager = self.manager
            # A manager is its own authority: a cluster that was off until all certificates had
            # expired can ask nobody else.
            if manager is not None and manager.replica.snapshot().cluster is not None:
                return await manager.admission.renew(identity, csr)
            return await peers.renew([ManagerAddress(n, a) for n, a in self.record.managers], csr)

        def use(_renewed: PeerIdentity) -> None:
            contexts.reload(self._certificates)
            credentials, _ = self._certificates.load_at_any_time()
            if self.agent is not None:
                self.agent.renewed(self._gossip_identity(credentials))

        await keep_renewed(
            self._certificates,
            wished_role=lambda: identity.role,
            changed=asyncio.Event(),
            renew=renew,
            on_renewed=use,
            clock=self._clock,
            rng=self._rng,
        )

    def _gossip_identity(self, credentials: Credentials) -> NodeIdentity:
        return NodeIdentity(
            credentials, cluster=self.record.cluster, roots=lambda: (credentials.ca,)
        )

    def _remember_managers(self, managers: tuple[tuple[NodeId, str], ...]) -> None:
        self._remember(replace(self.record, managers=managers))

    def _remember(self, record: MembershipRecord) -> None:
        self.record = record
        state_file.save(self._config.data_root, record)
