"""A service's tasks by slot (pure).

A slot of a replicated service is a number, a slot of a global service is a node. Its newest task
speaks for it; the others are being stopped, or are history.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cluster.model.ids import NodeId, ServiceId
from cluster.model.service import PortSpec, Service, host_ports
from cluster.model.task import Task, TaskState, TaskStatus, is_ended
from cluster.state.changes import Change, ReportStatus, SetDesiredState
from cluster.state.snapshot import Snapshot

SlotKey = int | NodeId
"""1.. for replicated services, the node for global ones."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot's tasks."""

    key: SlotKey
    tasks: tuple[Task, ...]
    """Oldest first; at least one."""

    @property
    def newest(self) -> Task:
        """The task that speaks for the slot."""
        return self.tasks[-1]


def tasks_by_service(snapshot: Snapshot) -> dict[ServiceId, list[Task]]:
    """Return all tasks, by service, in the snapshot's order: that of their creation."""
    found: defaultdict[ServiceId, list[Task]] = defaultdict(list)
    for task in snapshot.tasks.values():
        found[task.service].append(task)
    return found


def slots_of(tasks: Iterable[Task]) -> dict[SlotKey, Slot]:
    """Return the slots of one service's tasks (given in order of creation), sorted by key."""
    found: defaultdict[SlotKey, list[Task]] = defaultdict(list)
    for task in tasks:
        found[slot_key(task)].append(task)
    return {
        key: Slot(key, tuple(sorted(found[key], key=_age) if len(found[key]) > 1 else found[key]))
        for key in sorted(found, key=lambda key: (str(type(key)), key))
    }


def slot_key(task: Task) -> SlotKey:
    """Return the slot that `task` is an attempt at."""
    return task.slot or task.node or NodeId("")


def is_wanted(task: Task) -> bool:
    """Return whether `task` is meant to run."""
    return task.desired_state <= TaskState.RUNNING


def is_live(task: Task) -> bool:
    """Return whether `task` is meant to run and has not ended."""
    return is_wanted(task) and not is_ended(task.status.state)


def is_over(task: Task) -> bool:
    """Return whether nothing of `task` runs, nor will: it ended, or no node will be told of it."""
    is_told = task.status.state >= TaskState.ASSIGNED
    return is_ended(task.status.state) or (not is_wanted(task) and not is_told)


def is_outdated(service: Service, task: Task) -> bool:
    """Return whether `task` was made for another wish than the service has now.

    Host-mode ports are part of it: they are fixed when a task gets its node. Other ports are not:
    they lead to whatever tasks there are. (Swarm replaces tasks for any port, see IsTaskDirty.)
    """
    if task.spec_version < service.spec_version and task.spec != service.spec.task:
        return True
    return task.host_ports is not None and not _fit(host_ports(service.spec.ports), task.host_ports)


def stop(task: Task, desired: TaskState, now: float) -> list[Change]:
    """Return what makes `task` want `desired` (SHUTDOWN or REMOVE).

    A task that no node has been told of ends with it: nobody else would ever report that.
    """
    changes: list[Change] = []
    if task.desired_state < desired:
        changes.append(SetDesiredState(task.id, desired))
    if task.status.state < TaskState.ASSIGNED:
        status = TaskStatus(TaskState.SHUTDOWN, now, "shutdown before it had a node")
        changes.append(ReportStatus(task.id, task.node, status))
    return changes


def _fit(wishes: Sequence[PortSpec], ports: Sequence[PortSpec]) -> bool:
    """Return whether `ports` are what `wishes` ask for; any published port does where none is."""
    return len(wishes) == len(ports) and all(
        port == (wish if wish.published_port else replace(wish, published_port=port.published_port))
        for wish, port in zip(wishes, ports, strict=True)
    )


def _age(task: Task) -> tuple[bool, float]:
    """Sort by creation; the wanted one last whatever the clocks of successive leaders say."""
    return is_wanted(task), task.meta.created_at
