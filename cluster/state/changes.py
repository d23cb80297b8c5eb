"""The changes that make the next snapshot (pure).

Two kinds. `Put…` and `Delete…` carry whole objects and an expected version: a user's request, or a
loop's, that must not overwrite what it has not seen. The others merge one fact into an object and
are safe whatever happened to it meanwhile: an object that is gone, or further along, is left alone.

A transaction is a sequence of changes: all apply, or none.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.model.cluster import Cluster
from cluster.model.ids import NetworkId, NodeId, ServiceId, TaskId
from cluster.model.network import Network
from cluster.model.node import Node, NodeDescription, NodeState
from cluster.model.service import Endpoint, Service
from cluster.model.task import Attachment, Task, TaskState, TaskStatus

ABSENT = 0
"""Expected version of an object that must not exist yet."""


@dataclass(frozen=True, slots=True)
class PutCluster:
    """Create or replace the cluster object."""

    cluster: Cluster
    expect: int | None = None
    """Version that the object must have now; ABSENT: it must not exist; None: any."""


@dataclass(frozen=True, slots=True)
class PutNode:
    """Create or replace a node. Refused: one that was removed."""

    node: Node
    expect: int | None = None


@dataclass(frozen=True, slots=True)
class DeleteNode:
    """Delete a node, which stays out from then on; its tasks are ORPHANED."""

    id: NodeId
    expect: int | None = None
    timestamp: float = 0.0
    """Unix time, seconds; 0, in logs of older versions: not told, and nothing keeps it out."""


@dataclass(frozen=True, slots=True)
class PutNetwork:
    """Create or replace a network. Refused: a name that another network has."""

    network: Network
    expect: int | None = None


@dataclass(frozen=True, slots=True)
class DeleteNetwork:
    """Delete a network. Refused while a service or task is attached to it."""

    id: NetworkId


@dataclass(frozen=True, slots=True)
class PutService:
    """Create or replace a service.

    Refused: a name that another service has; an ingress port that another service has. When the
    task spec differs, `spec_version` moves on. The endpoint is kept as it was: the allocator
    replaces what no longer fits.
    """

    service: Service
    expect: int | None = None


@dataclass(frozen=True, slots=True)
class DeleteService:
    """Delete a service; the orchestrator then removes its tasks."""

    id: ServiceId


@dataclass(frozen=True, slots=True)
class PutTask:
    """Create a task; an existing one of the same id is left alone."""

    task: Task


@dataclass(frozen=True, slots=True)
class DeleteTask:
    """Forget a task."""

    id: TaskId


@dataclass(frozen=True, slots=True)
class AllocateNetwork:
    """Give a network its VNI, subnet and gateway."""

    id: NetworkId
    vni: int
    subnet: str
    gateway: str


@dataclass(frozen=True, slots=True)
class AllocateService:
    """Give a service its virtual IPs and published ports.

    Left alone when the service is no longer at `version` (it changed; the allocator looks again).
    """

    id: ServiceId
    endpoint: Endpoint
    version: int


@dataclass(frozen=True, slots=True)
class AllocateTask:
    """Give a NEW task its addresses: it is PENDING from then on."""

    id: TaskId
    attachments: tuple[Attachment, ...]
    timestamp: float


@dataclass(frozen=True, slots=True)
class AssignTask:
    """Give a PENDING task to a node: it is ASSIGNED from then on."""

    id: TaskId
    node: NodeId
    gateway_host: int
    timestamp: float


@dataclass(frozen=True, slots=True)
class SetDesiredState:
    """Raise what a task should become; lowering is ignored."""

    id: TaskId
    state: TaskState


@dataclass(frozen=True, slots=True)
class ReportStatus:
    """Tell what was seen of a task; an earlier state than the known one is ignored.

    `node` must be the task's node (None: a manager speaks for a task without one).
    """

    id: TaskId
    node: NodeId | None
    status: TaskStatus


@dataclass(frozen=True, slots=True)
class SetNodeState:
    """Tell what the managers believe of a node."""

    id: NodeId
    state: NodeState
    message: str
    timestamp: float = 0.0
    """Unix time, seconds; 0: not told."""


@dataclass(frozen=True, slots=True)
class DescribeNode:
    """Tell what a node says of itself at registration."""

    id: NodeId
    description: NodeDescription
    address: str
    gossip_port: int
    data_address: str
    manager_address: str


Change = (
    PutCluster | PutNode | DeleteNode | PutNetwork | DeleteNetwork | PutService | DeleteService
    | PutTask | DeleteTask | AllocateNetwork | AllocateService | AllocateTask | AssignTask
    | SetDesiredState | ReportStatus | SetNodeState | DescribeNode
)  # fmt: skip

CHANGES: tuple[type[Change], ...] = (
    PutCluster, PutNode, DeleteNode, PutNetwork, DeleteNetwork, PutService, DeleteService,
    PutTask, DeleteTask, AllocateNetwork, AllocateService, AllocateTask, AssignTask,
    SetDesiredState, ReportStatus, SetNodeState, DescribeNode,
)  # fmt: skip
"""All kinds, in the order of their tags on the wire: append only."""
