"""Forgets tasks that nobody needs any more (pure).

Kept: what has not ended, the newest task of every slot (it says whether to restart), and the latest
of the ended ones before it, as many as the cluster's history limit or the restart policy's count of
attempts asks for. A negative limit keeps everything, as Swarm does.

A task whose node has been down for a day is given up: it is ORPHANED, and its addresses are free.
Source: swarmkit manager/orchestrator/taskreaper; dispatcher (orphans).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cluster.control.restart import history_needed
from cluster.control.slots import Slot, is_wanted, slots_of, tasks_by_service
from cluster.model.cluster import TASK_HISTORY_LIMIT
from cluster.model.node import Node, NodeState
from cluster.model.service import Service
from cluster.model.task import Task, TaskState, TaskStatus, is_ended
from cluster.state.apply import apply
from cluster.state.changes import Change, DeleteTask, ReportStatus
from cluster.state.snapshot import Snapshot

ORPHANED_AFTER_S = 24 * 3600.0
"""Down for so long, a node's tasks are given up (swarmkit's default)."""


def decide(snapshot: Snapshot, now: float) -> list[Change]:
    """Return the tasks to give up, and those to forget."""
    given_up = give_up(snapshot, now)
    return given_up + forget(apply(snapshot, given_up, snapshot.index + 1))


def give_up(snapshot: Snapshot, now: float) -> list[Change]:
    """Return the orphans: tasks whose node has been down for too long."""
    lost = {
        n.id
        for n in snapshot.nodes.values()
        if n.state is NodeState.DOWN and n.meta.updated_at and _given_up_at(n) <= now
    }
    error = "the node has been down for too long"
    status = TaskStatus(TaskState.ORPHANED, now, "task was orphaned", error=error)
    return [
        ReportStatus(task.id, task.node, status)
        for task in (snapshot.tasks.values() if lost else ())
        if task.node in lost and not is_ended(task.status.state)
    ]


def forget(snapshot: Snapshot) -> list[Change]:
    """Return the deletion of tasks that nobody needs any more."""
    return [DeleteTask(task.id) for task in _needless(snapshot)]


def next_wakeup(snapshot: Snapshot, now: float) -> float | None:
    """Return the seconds (> 0) until the next node's tasks are given up; None: no node is down."""
    due = [_given_up_at(n) - now for n in snapshot.nodes.values() if n.state is NodeState.DOWN]
    return min((delay for delay in due if delay > 0), default=None)


def _given_up_at(node: Node) -> float:
    return node.meta.updated_at + ORPHANED_AFTER_S


def _needless(snapshot: Snapshot) -> Iterable[Task]:
    """Return the tasks that nobody needs any more."""
    cluster = snapshot.cluster
    limit = cluster.spec.task_history_limit if cluster else TASK_HISTORY_LIMIT
    found: dict[str, Task] = {}
    for service_id, tasks in tasks_by_service(snapshot).items():
        service = snapshot.services.get(service_id)
        if all(is_wanted(t) and not is_ended(t.status.state) for t in tasks):
            continue  # the usual case, at little cost
        for task in tasks:
            if is_ended(task.status.state) and task.desired_state >= TaskState.REMOVE:
                found[task.id] = task
        if service is not None:
            for slot in slots_of(tasks).values():
                found |= {t.id: t for t in _surplus_history(snapshot, slot, service, limit)}
    return found.values()


def _surplus_history(
    snapshot: Snapshot, slot: Slot, service: Service, limit: int
) -> Sequence[Task]:
    """Return the ended tasks of `slot` that are beyond the limit, and those of deleted nodes."""
    ended = [t for t in slot.tasks[:-1] if is_ended(t.status.state)]
    orphans = [
        t for t in ended if t.status.state is TaskState.ORPHANED and t.node not in snapshot.nodes
    ]
    if limit < 0:
        return orphans
    is_newest_ended = is_ended(slot.newest.status.state)
    needed = max(limit, history_needed(service.spec.task.restart)) - is_newest_ended
    return orphans + ended[: max(0, len(ended) - max(0, needed))]
