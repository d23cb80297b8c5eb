"""Tasks: attempts at running one replica of a service (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from cluster.model.ids import NetworkId, NodeId, ServiceId, TaskId
from cluster.model.meta import Meta
from cluster.model.service import PortSpec, TaskSpec

SHORT_ID_LENGTH = 12
"""Docker: a container's default host name is the start of its id."""


class TaskState(IntEnum):
    """A task's life, in order, with Swarm's numbers. A task's state never goes back."""

    NEW = 0
    PENDING = 64
    ASSIGNED = 192
    ACCEPTED = 256
    PREPARING = 320
    READY = 384
    STARTING = 448
    RUNNING = 512
    COMPLETE = 576
    SHUTDOWN = 640
    FAILED = 704
    REJECTED = 768
    REMOVE = 800
    ORPHANED = 832


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """What was last seen of a task."""

    state: TaskState = TaskState.NEW
    timestamp: float = 0.0
    """Unix time, seconds, by the clock of whoever saw it."""
    message: str = ""
    error: str = ""
    exit_code: int = 0
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Attachment:
    """A task's interface in one network."""

    network: NetworkId
    address: str
    """IP address without prefix length."""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt at one replica; never restarted: a new task replaces it in its slot."""

    id: TaskId
    service: ServiceId
    service_name: str
    spec: TaskSpec
    slot: int = 0
    """1.. for replicated services; 0 for global ones, where the node takes its place."""
    node: NodeId | None = None
    """None: not scheduled yet."""
    spec_version: int = 0
    """`Service.spec_version` that it was made from."""
    desired_state: TaskState = TaskState.RUNNING
    status: TaskStatus = TaskStatus()
    attachments: tuple[Attachment, ...] = ()
    allocation: int = 0
    """Raft index of its addresses' allocation, which tells who had an address last; set by
    `state.apply`."""
    host_ports: tuple[PortSpec, ...] | None = None
    """The host-mode ports that it answers on its node, published ports filled in; they are its own
    for life. None: not allocated yet."""
    gateway_host: int = 0
    """Host part (2..254) of its address in its node's gateway subnet; given with the node."""
    service_labels: dict[str, str] = field(default_factory=dict[str, str])
    meta: Meta = Meta()


def task_name(task: Task) -> str:
    """Return `<service>.<slot>.<task id>` (global services: the node's id for the slot)."""
    return f"{task.service_name}.{task.slot or task.node or '?'}.{task.id}"


def hostname(task: Task) -> str:
    """Return the host name that the task has."""
    return task.spec.hostname or task.id[:SHORT_ID_LENGTH]


def is_ended(state: TaskState) -> bool:
    """Return whether nothing of a task in this state runs any more."""
    return state > TaskState.RUNNING
