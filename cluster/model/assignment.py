"""What a node is told: its part of the state, and the cluster's common facts (pure).

Managers compute these values from a snapshot, the dispatcher carries them (whole, then
differences), the agent persists and obeys them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.model.cluster import GossipKey
from cluster.model.ids import ClusterId, NetworkId, NodeId, ServiceId, TaskId
from cluster.model.network import Network
from cluster.model.node import NodeState, Role
from cluster.model.service import Endpoint, EndpointMode
from cluster.model.task import Task


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """What an agent needs of a service to publish and balance its endpoints."""

    id: ServiceId
    name: str
    endpoint_mode: EndpointMode
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Allocation:
    """What one node may publish of one task in one scope, proven by the managers."""

    scope: str
    key: str
    body: bytes
    """The record (`cluster.allocation.records`)."""
    token: bytes
    """The managers' signature (`cluster.allocation.tokens`)."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Everything that one node is to run, with the networks and services its tasks belong to."""

    tasks: dict[TaskId, Task] = field(default_factory=dict[TaskId, Task])
    """Every task with this node, until the managers delete it."""
    networks: dict[NetworkId, Network] = field(default_factory=dict[NetworkId, Network])
    services: dict[ServiceId, ServiceInfo] = field(default_factory=dict[ServiceId, ServiceInfo])
    allocations: dict[TaskId, tuple[Allocation, ...]] = field(
        default_factory=dict[TaskId, tuple[Allocation, ...]]
    )
    """Of its tasks."""


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What every node knows of every other."""

    id: NodeId
    index: int
    hostname: str
    role: Role
    state: NodeState
    address: str
    gossip_port: int
    data_address: str
    manager_address: str
    """`host:port`; empty for a worker."""


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """The cluster's common facts: sent with each session, and again whenever they change."""

    cluster: ClusterId
    nodes: tuple[NodeInfo, ...] = ()
    """Sorted by id."""
    gossip_keys: tuple[GossipKey, ...] = ()
    allocation_keys: tuple[bytes, ...] = ()
    """Public halves: whose allocations are believed. With none, nobody's."""
    removed: tuple[NodeId, ...] = ()
    """Nodes that stay out, whatever certificates and keys they have."""
    data_path_port: int = 4789
    heartbeat_period_s: float = 5.0
