"""What the API needs of the node that it speaks for: `cluster.node` implements it.

The API only reads snapshots and proposes changes; joining, leaving, tokens and logs need the whole
node, and are methods here.

Invariants: no method blocks the event loop; every failure that a user can meet is one of
`cluster.model.errors`, with the text that the user reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Protocol

from cluster.api.exposition import Family
from cluster.model.cluster import Cluster, ClusterSpec
from cluster.model.ids import NodeId, TaskId
from cluster.model.logs import LogOptions
from cluster.model.node import Availability
from cluster.runtime.base import LogLine
from cluster.state.changes import Change
from cluster.state.snapshot import Snapshot
from gossip.peer import KeyView, LogView, MemberView, StoredView


class LocalState(StrEnum):
    """This node's standing in a cluster: Docker's `LocalNodeState`."""

    INACTIVE = "inactive"
    PENDING = "pending"
    """A join is under way."""
    ACTIVE = "active"
    LOCKED = "locked"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class ManagerPeer:
    """A manager that this node knows of."""

    node: NodeId
    address: str
    """`host:port` of its control port."""


@dataclass(frozen=True, slots=True)
class Membership:
    """This node's own view of its membership; known without any quorum."""

    state: LocalState = LocalState.INACTIVE
    node: NodeId | None = None
    """None: inactive, or not yet admitted."""
    is_manager: bool = False
    address: str = ""
    """Advertised IP address, without port."""
    managers: tuple[ManagerPeer, ...] = ()
    error: str = ""
    """Why the state is ERROR, for people."""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """The machine and this daemon: what `info` and `version` print. Constant while it runs."""

    engine_id: str
    """Any stable text."""
    hostname: str
    version: str
    """hivewire's version."""
    operating_system: str = ""
    """PRETTY_NAME of os-release."""
    kernel_version: str = ""
    architecture: str = "x86_64"
    cpus: int = 1
    memory_bytes: int = 0
    data_root: str = ""
    labels: dict[str, str] = field(default_factory=dict[str, str])
    has_limits: bool = True
    """Whether tasks here can be limited in memory and processor time."""
    published_port_min: int = 1
    """Lower published ports do not answer where the user of a local cluster is."""


class Reachability(StrEnum):
    """What the Raft members think of a manager."""

    UNREACHABLE = "unreachable"
    REACHABLE = "reachable"


@dataclass(frozen=True, slots=True)
class RaftView:
    """The consensus group as this manager sees it."""

    leader: NodeId | None = None
    reachability: Mapping[NodeId, Reachability] = field(default_factory=dict[NodeId, Reachability])
    """One entry per member, this node included."""


@dataclass(frozen=True, slots=True)
class InitRequest:
    """`swarm init`. Empty addresses: choose. Ports and pools are checked already."""

    listen_address: str = "0.0.0.0:2377"
    """`host[:port]` or `interface[:port]`."""
    advertise_address: str = ""
    """`host[:port]` or `interface[:port]`."""
    data_path_address: str = ""
    """`host` or `interface`."""
    data_path_port: int = 4789
    address_pool: tuple[str, ...] = ("10.0.0.0/8",)
    subnet_size: int = 24
    spec: ClusterSpec = field(default_factory=ClusterSpec)
    availability: Availability = Availability.ACTIVE
    force_new_cluster: bool = False


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """`swarm join`."""

    remote_addresses: tuple[str, ...]
    """`host[:port]` of managers; at least one."""
    token: str = field(repr=False)
    listen_address: str = "0.0.0.0:2377"
    advertise_address: str = ""
    data_path_address: str = ""
    availability: Availability = Availability.ACTIVE


@dataclass(frozen=True, slots=True)
class TaskLogLine:
    """One line of one task, from whichever node it ran on."""

    task: TaskId
    node: NodeId
    line: LogLine


class GossipReader(Protocol):
    """What `gossip.peer.Peer` shows."""

    @property
    def node_id(self) -> str:
        """This node's id."""
        ...

    def members(self) -> Sequence[MemberView]:
        """Return all members, this node first."""
        ...

    def logs(self) -> Sequence[LogView]:
        """Return what is held of every owner's log in every scope."""
        ...

    def stored(self, scope: str) -> Sequence[StoredView]:
        """Return every record held in a scope."""
        ...

    def keys(self) -> Sequence[KeyView]:
        """Return the key ring without secrets."""
        ...

    def unix_s(self, at: float) -> float:
        """Return the unix time of a moment on the clock of the members' times."""
        ...


@dataclass(frozen=True, slots=True)
class LocalGossip:
    """This node's gossip, and what it takes to make it readable."""

    peer: GossipReader
    names: Mapping[str, str]
    """Node id -> hostname, and network id -> name, as far as managers have told."""


class Backend(Protocol):
    """One node, seen from its API."""

    def membership(self) -> Membership:
        """Return this node's standing now."""
        ...

    def facts(self) -> EngineFacts:
        """Return what does not change while the daemon runs."""
        ...

    def snapshot(self) -> Snapshot:
        """Return the latest local snapshot; empty on a node that is no manager."""
        ...

    async def read_barrier(self) -> None:
        """Return when `snapshot` has everything committed before the call.

        Raises:
            Unavailable: there is no leader, or no quorum, in time.
        """
        ...

    def watch(self) -> AbstractContextManager[asyncio.Event]:
        """Lend an event that every new snapshot sets (its user clears it)."""
        ...

    async def propose(self, changes: Sequence[Change]) -> int:
        """Commit the changes as one transaction and return its Raft index.

        When it returns, `snapshot` already has them.

        Raises:
            ClusterError: what `state.apply` refused; or Unavailable. Then nothing was changed
                (Unavailable: perhaps it was).
        """
        ...

    def raft_view(self) -> RaftView:
        """Return the consensus group as this manager sees it."""
        ...

    def gossip(self) -> LocalGossip | None:
        """Return this node's gossip, manager or not; None: in no cluster, or not told of it yet."""
        ...

    def metrics(self) -> Sequence[Family]:
        """Return what this node counts; whatever its standing, never waiting for anybody."""
        ...

    async def swarm_init(self, request: InitRequest) -> NodeId:
        """Make a new cluster of this one node, and return its id once it can be used.

        Raises:
            Invalid: addresses that make no sense here.
            FailedPrecondition: this node is in a cluster already.
        """
        ...

    async def swarm_join(self, request: JoinRequest) -> None:
        """Join the cluster of one of the remote addresses; return when admitted.

        Raises:
            Invalid: a bad token or address.
            FailedPrecondition: this node is in a cluster already.
            Unavailable: no manager answered in time; it goes on trying in the background.
        """
        ...

    async def swarm_leave(self, *, force: bool) -> None:
        """Leave the cluster: stop this node's tasks and forget its membership.

        The API has checked membership, and that a manager gave `force`.
        """
        ...

    def new_join_token(self, cluster: Cluster) -> str:
        """Return a fresh join token that pins this cluster's CA."""
        ...

    def service_logs(
        self, tasks: Sequence[TaskId], options: LogOptions
    ) -> AsyncIterator[TaskLogLine]:
        """Yield the output of these tasks, each task's in order.

        Without `follow` it ends after what there is; tasks on nodes that do not answer are left
        out. With `follow` it ends when all the tasks have ended.
        """
        ...

    def now(self) -> float:
        """Return the Unix time, seconds."""
        ...

    @property
    def rng(self) -> Random:
        """Source of identifiers (a `SystemRandom`, or a seeded one in tests)."""
        ...
