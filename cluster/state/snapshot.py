"""All replicated objects at one Raft index (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.model.cluster import Cluster
from cluster.model.ids import NetworkId, NodeId, ServiceId, TaskId
from cluster.model.network import Network
from cluster.model.node import Node, RemovedNode
from cluster.model.service import Service
from cluster.model.task import Task


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The replicated state. The dicts are never changed once they are in a snapshot."""

    index: int = 0
    """Raft index of the last change in it."""
    cluster: Cluster | None = None
    nodes: dict[NodeId, Node] = field(default_factory=dict[NodeId, Node])
    networks: dict[NetworkId, Network] = field(default_factory=dict[NetworkId, Network])
    services: dict[ServiceId, Service] = field(default_factory=dict[ServiceId, Service])
    tasks: dict[TaskId, Task] = field(default_factory=dict[TaskId, Task])
    removed: dict[NodeId, RemovedNode] = field(default_factory=dict[NodeId, RemovedNode])
    """In the order of their removal; at most REMOVED_NODES_MAX."""
