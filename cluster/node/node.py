"""One node as its API sees it: in a cluster or not, coming and going.

`run` holds the membership that is on disk; `swarm_init` and `swarm_join` make one, `swarm_leave`
ends it. Everything else answers from what there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import shutil
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import contextmanager
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
    TaskLogLine,
)
from cluster.api.exposition import Family
from cluster.ca.certificates import CertificateRequest, new_request
from cluster.ca.files import CertificateDirectory
from cluster.ca.tokens import new_token
from cluster.dispatch.join import join
from cluster.dispatch.messages import Registration
from cluster.model.cluster import Cluster
from cluster.model.errors import FailedPrecondition, Forbidden, Unavailable
from cluster.model.ids import NodeId, TaskId
from cluster.model.logs import LogOptions
from cluster.model.node import Role
from cluster.node import addresses, facts, founding, state_file
from cluster.node.config import NodeConfig
from cluster.node.member import Member
from cluster.node.metrics.catalogue import families
from cluster.node.metrics.process import read_process
from cluster.node.state_file import MembershipRecord
from cluster.runtime.base import LogLine
from cluster.runtime.cgroups import Cgroups
from cluster.state.changes import Change
from cluster.state.snapshot import Snapshot
from cluster.task_group import TaskGroup
from dataplane.kernel.uplink import own_addresses

logger = logging.getLogger(__name__)

CERTIFICATES_DIRECTORY = "certificates"
JOIN_TIMEOUT_S = 20.0
"""Swarm's: then the join goes on in the background (moby daemon/cluster/swarm.go)."""
INIT_TIMEOUT_S = 20.0
ALREADY_IN = (
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm '
    "and join another one."
)


class Node:
    """Implements `cluster.api.backend.Backend`."""

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._cgroups = Cgroups.detect()
        self._facts = facts.describe(config, has_limits=self._cgroups.version != 0)
        self._rng = secrets.SystemRandom()
        self._certificates = CertificateDirectory(config.data_root / CERTIFICATES_DIRECTORY)
        self._member: Member | None = None
        self._changed = asyncio.Event()
        """The membership on disk has come or gone."""
        self._present = asyncio.Event()
        """There is a member."""
        self._absent = asyncio.Event()
        """There is none."""
        self._absent.set()
        self._joining = asyncio.Lock()
        self._pending_request: CertificateRequest | None = None

    async def run(self) -> None:
        """Hold whatever membership there is, until cancelled.

        Raises:
            StorageFailure, CorruptMembershipError, CertificateError: this node cannot go on.
        """
        while True:
            self._changed.clear()
            record = state_file.load(self._config.data_root)
            if record is None:
                await self._changed.wait()
                continue
            self._member = Member(
                config=self._config,
                record=record,
                certificates=self._certificates,
                description=facts.describe_node(self._facts),
                cgroups=self._cgroups,
                clock=self.now,
                rng=self._rng,
            )
            self._absent.clear()
            self._present.set()
            try:
                async with TaskGroup() as group:
                    running = group.create_task(self._member.run())
                    await self._changed.wait()
                    running.cancel()
            finally:
                await self._member.close()
                self._member = None
                self._present.clear()
                self._absent.set()

    # What the API asks (see `Backend`).

    def membership(self) -> Membership:
        """See `Backend`."""
        member = self._member
        if member is None:
            return Membership()
        record = member.record
        state = LocalState.ACTIVE if member.is_ready else LocalState.PENDING
        if member.error:
            state = LocalState.ERROR
        return Membership(
            state=state,
            node=record.node,
            is_manager=member.manager is not None,
            address=record.address,
            managers=tuple(ManagerPeer(node, address) for node, address in record.managers),
            error=member.error,
        )

    def facts(self) -> EngineFacts:
        """See `Backend`."""
        return self._facts

    def snapshot(self) -> Snapshot:
        """See `Backend`."""
        member = self._member
        return member.manager.replica.snapshot() if member and member.manager else Snapshot()

    async def read_barrier(self) -> None:
        """See `Backend`."""
        member = self._member
        if member is not None and member.manager is not None:
            await member.manager.raft.read_barrier()

    @contextmanager
    def watch(self) -> Generator[asyncio.Event]:
        """See `Backend`."""
        member = self._member
        if member is None:
            yield self._present
            return
        if member.manager is None:
            yield asyncio.Event() if member.started.is_set() else member.started
            return
        with member.manager.replica.watch() as changed:
            yield changed

    async def propose(self, changes: Sequence[Change]) -> int:
        """See `Backend`."""
        member = self._member
        if member is None or member.manager is None:
            raise Unavailable("this node is not a swarm manager")
        return await member.manager.proposer.propose(changes)

    def raft_view(self) -> RaftView:
        """See `Backend`."""
        member = self._member
        return member.manager.raft_view() if member and member.manager else RaftView()

    def gossip(self) -> LocalGossip | None:
        """See `Backend`."""
        member = self._member
        return None if member is None or member.agent is None else member.agent.gossip()

    def metrics(self) -> list[Family]:
        """See `Backend`."""
        member = self._member
        agent = None if member is None or member.agent is None else member.agent.stats()
        manager = None if member is None or member.manager is None else member.manager.stats()
        return families(read_process(), agent, manager)

    async def swarm_init(self, request: InitRequest) -> NodeId:
        """See `Backend`."""
        async with self._one_at_a_time():
            interfaces = own_addresses()
            listen = addresses.split_address(
                request.listen_address, interfaces, what="listen address"
            )
            address, port = addresses.choose_advertised(
                request.advertise_address, listen, interfaces
            )
            data_address = addresses.choose_data_path(
                request.data_path_address, address, interfaces
            )
            addresses.refuse_taken(*listen, protocol="tcp")
            self._refuse_taken_gossip_port()
            made = founding.new_cluster(
                request,
                facts.describe_node(self._facts),
                address=address,
                control_port=port,
                data_address=data_address,
                gossip_port=self._config.gossip_port,
                now=self.now(),
                rng=self._rng,
            )
            self._clear_leftovers()
            founding.save_bootstrap(self._config.data_root, made.changes)
            self._certificates.save(made.credentials)
            self._enter(
                MembershipRecord(
                    cluster=made.cluster.id,
                    node=made.node.id,
                    listen=f"{listen[0]}:{listen[1]}",
                    address=address,
                    control_port=port,
                    data_address=data_address,
                    managers=((made.node.id, f"{address}:{port}"),),
                )
            )
            await self._wait_until_ready(INIT_TIMEOUT_S)
            return made.node.id

    async def swarm_join(self, request: JoinRequest) -> None:
        """See `Backend`."""
        async with self._one_at_a_time():
            interfaces = own_addresses()
            listen = addresses.split_address(
                request.listen_address, interfaces, what="listen address"
            )
            advertised = ""
            port = listen[1]
            if request.advertise_address:
                advertised, port = addresses.choose_advertised(
                    request.advertise_address, listen, interfaces
                )
            data_address = ""
            if request.data_path_address:
                data_address = addresses.choose_data_path(
                    request.data_path_address, advertised, interfaces
                )
            self._refuse_taken_gossip_port()
            # The same key until a join went well: an attempt whose answer was lost is the same
            # node when it is made again.
            csr = self._pending_request or new_request()
            self._pending_request = csr
            try:
                joined = await join(
                    request.remote_addresses,
                    request.token,
                    csr,
                    Registration(
                        description=facts.describe_node(self._facts),
                        address=advertised,
                        gossip_port=self._config.gossip_port,
                        data_address=data_address,
                        control_port=port,
                    ),
                    availability=request.availability,
                    clock=self.now,
                )
            except Forbidden:  # that attempt's node was removed meanwhile: the next is another
                self._pending_request = None
                raise
            self._pending_request = None
            response = joined.response
            self._clear_leftovers()
            self._certificates.save(joined.credentials)
            self._enter(
                MembershipRecord(
                    cluster=response.cluster,
                    node=response.node,
                    listen=f"{listen[0]}:{listen[1]}",
                    address=response.address,
                    control_port=port,
                    data_address=data_address or response.address,
                    managers=tuple((m.node, m.address) for m in response.managers),
                    is_joining_raft=response.role is Role.MANAGER,
                )
            )
            await self._wait_until_ready(JOIN_TIMEOUT_S)

    async def swarm_leave(self, *, force: bool) -> None:
        """See `Backend`."""
        del force  # the API has asked for it where it matters
        member = self._member
        if member is None:
            return
        await member.leave()
        state_file.forget(self._config.data_root)
        self._certificates.remove()
        self._changed.set()
        await self._absent.wait()
        self._clear_leftovers()

    def new_join_token(self, cluster: Cluster) -> str:
        """See `Backend`."""
        return new_token(cluster.ca_certificate)

    async def service_logs(
        self, tasks: Sequence[TaskId], options: LogOptions
    ) -> AsyncGenerator[TaskLogLine]:
        """See `Backend`."""
        member = self._member
        if member is None or member.manager is None:
            return
        known = member.manager.replica.snapshot().tasks
        async with contextlib.aclosing(member.manager.logs(tasks, options)) as records:
            async for record in records:
                task = known.get(record.task)
                if task is not None and task.node is not None:
                    line = LogLine(record.stream, record.written_at_ns, record.data)
                    yield TaskLogLine(record.task, task.node, line)

    def now(self) -> float:
        """See `Backend`."""
        return time.time()  # noqa: TID251  (the one place where the wall clock is read)

    @property
    def rng(self) -> Random:
        """See `Backend`."""
        return self._rng

    # Inside.

    @contextlib.asynccontextmanager
    async def _one_at_a_time(self) -> AsyncGenerator[None]:
        if self._member is not None or self._joining.locked():
            raise FailedPrecondition(ALREADY_IN)
        async with self._joining:
            yield

    def _refuse_taken_gossip_port(self) -> None:
        anywhere = "0.0.0.0"  # noqa: S104  (as gossip listens: identity is the key)
        for protocol in ("udp", "tcp"):
            addresses.refuse_taken(anywhere, self._config.gossip_port, protocol=protocol)

    def _enter(self, record: MembershipRecord) -> None:
        state_file.save(self._config.data_root, record)
        self._changed.set()

    async def _wait_until_ready(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._present.wait()
                if self._member is not None:
                    await self._member.wait_until_ready()
        except TimeoutError:
            raise Unavailable(
                "Timeout was reached before node joined. The attempt to join the swarm will "
                'continue in the background. Use the "docker info" command to see the current '
                "swarm status of your node."
            ) from None

    def _clear_leftovers(self) -> None:
        """Forget what an earlier membership has left on disk."""
        for name in ("raft", "worker", "gossip"):
            shutil.rmtree(self._config.data_root / name, ignore_errors=True)
        for name in (founding.BOOTSTRAP_FILE, founding.DATA_KEY_FILE):
            (self._config.data_root / name).unlink(missing_ok=True)
