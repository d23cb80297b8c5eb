"""Nodes: machines that are members of the cluster (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from cluster.model.ids import NodeId
from cluster.model.meta import Meta

REMOVED_NODES_MAX = 1024
"""Removed nodes that are remembered; then the one removed first is forgotten. Rotated gossip keys
(`control.keys`) keep that one out of gossip, and without a node object nobody opens it a session.
"""


class Role(StrEnum):
    """What a node is trusted with."""

    MANAGER = "manager"
    WORKER = "worker"


class Availability(StrEnum):
    """Whether the scheduler may use a node."""

    ACTIVE = "active"
    PAUSE = "pause"
    DRAIN = "drain"


class NodeState(StrEnum):
    """What the managers believe of a node."""

    UNKNOWN = "unknown"
    DOWN = "down"
    READY = "ready"
    DISCONNECTED = "disconnected"


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """What the user wished for a node."""

    role: Role
    name: str = ""
    labels: dict[str, str] = field(default_factory=dict[str, str])
    availability: Availability = Availability.ACTIVE


@dataclass(frozen=True, slots=True)
class NodeDescription:
    """What a node says of itself when it registers."""

    hostname: str
    os: str = "linux"
    architecture: str = "x86_64"
    nano_cpus: int = 0
    """Billionths of a core."""
    memory_bytes: int = 0
    engine_version: str = ""
    engine_labels: dict[str, str] = field(default_factory=dict[str, str])
    has_limits: bool = True
    """Whether its tasks can be limited in memory and processor time."""


@dataclass(frozen=True, slots=True)
class Node:
    """A member of the cluster."""

    id: NodeId
    spec: NodeSpec
    description: NodeDescription
    index: int = 0
    """1..4094, given by the managers at the join; unique among nodes (see
    `dataplane.addressing`)."""
    address: str = ""
    """Advertised IP address, without port: gossip and control."""
    gossip_port: int = 7946
    data_address: str = ""
    """Data-path IP address."""
    manager_address: str = ""
    """`host:port` of a manager's control port (2377); empty for a worker."""
    state: NodeState = NodeState.UNKNOWN
    message: str = ""
    meta: Meta = Meta()


@dataclass(frozen=True, slots=True)
class RemovedNode:
    """A node that the managers removed: it stays out, though its certificates are valid yet."""

    id: NodeId
    until: float
    """Unix time, seconds, when they have expired; it is remembered at least until then."""
    key: int = 0
    """Id of the newest gossip key when it was removed: it may hold that one and earlier ones."""

    @property
    def refusal(self) -> str:
        """Why it is refused, and what to do, for people."""
        return (
            f"node {self.id} was removed from this cluster and is not let in again: "
            "`swarm leave --force` on that machine, then join again, which makes a new node"
        )
