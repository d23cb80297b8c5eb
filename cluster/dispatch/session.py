"""Which part of the replicated state a node is told, and differences of it (pure).

A `View` is one snapshot prepared for many sessions: tasks grouped by node, the cluster's facts. Its
parts are the very same objects as in the view before, as long as nothing in them has changed, so a
session sees by identity that it has nothing to do.

A task's own status is no difference: the node itself reports it. It travels with the task whenever
something else has changed, and with the whole assignment. Nor is it one that a task has no more
allocations: it has ended, or its service is gone, and the node drains it with those it has.

Invariant: `patch(old, difference(old, new))` is `new`, but for statuses and such allocations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import TypeVar

from cluster.allocation.issue import Issuer
from cluster.control.keys import ring_digest
from cluster.dispatch.messages import AssignmentDiff, FullAssignment, ManagerAddress, Removed
from cluster.model.assignment import (
    Allocation,
    Assignment,
    ClusterInfo,
    NodeInfo,
    ServiceInfo,
)
from cluster.model.ids import ClusterId, NodeId, TaskId
from cluster.model.meta import Meta
from cluster.model.node import Node, Role
from cluster.model.service import Endpoint, Service
from cluster.model.task import Task, TaskState, TaskStatus, is_ended
from cluster.state.snapshot import Snapshot

PAGE_OBJECTS = 100
"""Most objects in one message (swarmkit manager/dispatcher, modificationBatchLimit)."""
HEARTBEATS_MISSED_MAX = 3
"""Heartbeat periods without a word after which a session is over (swarmkit's grace)."""
_NO_STATUS = TaskStatus()
_NO_META = Meta()
_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class View:
    """A snapshot, prepared for sessions."""

    snapshot: Snapshot
    info: ClusterInfo
    ring: bytes
    """Digest of the gossip keys in `info`."""
    tasks: Mapping[NodeId, tuple[Task, ...]] = field(default_factory=dict[NodeId, tuple[Task, ...]])


def view_of(snapshot: Snapshot, before: View | None = None) -> View:
    """Return the view of `snapshot`, with all that it can share with `before`."""
    info = _cluster_info(snapshot)
    if before is not None and info == before.info:
        info = before.info
    ring = ring_digest(info.gossip_keys)
    if before is None:
        return View(snapshot, info, ring, _tasks_by_node(snapshot, {}))
    if snapshot.tasks is before.snapshot.tasks:
        return View(snapshot, info, ring, before.tasks)
    return View(snapshot, info, ring, _tasks_by_node(snapshot, before.tasks))


def is_same_for(node: NodeId, view: View, before: View) -> bool:
    """Return whether nothing that may be assigned to the node differs between the views."""
    return (
        view.tasks.get(node) is before.tasks.get(node)
        and view.snapshot.networks is before.snapshot.networks
        and view.snapshot.services is before.snapshot.services
    )


def assignment_of(view: View, node: NodeId, issuer: Issuer) -> Assignment:
    """Return everything that the node is to run, with its networks and services."""
    tasks = {task.id: task for task in view.tasks.get(node, ())}
    wanted_networks = {a.network for task in tasks.values() for a in task.attachments}
    wanted_services = {task.service for task in tasks.values()}
    networks, services = view.snapshot.networks, view.snapshot.services
    assignment = Assignment(
        tasks=tasks,
        networks={i: networks[i] for i in sorted(wanted_networks) if i in networks},
        services={i: _service_info(services[i]) for i in sorted(wanted_services) if i in services},
    )
    assignment.allocations.update(_allocations(view.snapshot, node, assignment, issuer))
    return assignment


@dataclass(frozen=True, slots=True)
class Difference:
    """What makes one assignment of another."""

    changed: Assignment
    """New or different."""
    removed: Removed


def difference(old: Assignment, new: Assignment) -> Difference | None:
    """Return what makes `new` of `old`; None: nothing does."""
    changed = Assignment(
        tasks={
            i: task
            for i, task in new.tasks.items()
            if i not in old.tasks or _content(task) != _content(old.tasks[i])
        },
        networks=_changed(old.networks, new.networks),
        services=_changed(old.services, new.services),
        allocations=_changed(old.allocations, new.allocations),
    )
    removed = Removed(
        tasks=tuple(i for i in old.tasks if i not in new.tasks),
        networks=tuple(i for i in old.networks if i not in new.networks),
        services=tuple(i for i in old.services if i not in new.services),
    )
    if changed == Assignment() and removed == Removed():
        return None
    return Difference(changed, removed)


def patch(old: Assignment, difference: Difference) -> Assignment:
    """Return `old` with what has changed."""
    changed, removed = difference.changed, difference.removed
    return Assignment(
        tasks=_patched(old.tasks, changed.tasks, removed.tasks),
        networks=_patched(old.networks, changed.networks, removed.networks),
        services=_patched(old.services, changed.services, removed.services),
        allocations=_patched(old.allocations, changed.allocations, removed.tasks),
    )


def full_pages(sequence: int, assignment: Assignment) -> Iterator[FullAssignment]:
    """Yield the messages that carry the whole assignment; at least one."""
    pages = list(_pages(assignment)) or [Assignment()]
    for number, page in enumerate(pages, 1):
        yield FullAssignment(sequence, page, is_last=number == len(pages))


def diff_pages(base: int, sequence: int, difference: Difference) -> Iterator[AssignmentDiff]:
    """Yield the messages that carry a difference; at least one."""
    pages = list(_pages(difference.changed)) or [Assignment()]
    for number, page in enumerate(pages, 1):
        is_last = number == len(pages)
        removed = difference.removed if is_last else Removed()
        yield AssignmentDiff(base, sequence, page, removed, is_last=is_last)


def join_pages(left: Assignment, right: Assignment) -> Assignment:
    """Return both pages as one."""
    return patch(left, Difference(right, Removed()))


def managers_in(info: ClusterInfo) -> tuple[ManagerAddress, ...]:
    """Return the managers that a node may have its session with."""
    return tuple(
        ManagerAddress(n.id, n.manager_address)
        for n in info.nodes
        if n.role is Role.MANAGER and n.manager_address
    )


def _cluster_info(snapshot: Snapshot) -> ClusterInfo:
    nodes = tuple(_node_info(snapshot.nodes[i]) for i in sorted(snapshot.nodes))
    cluster = snapshot.cluster
    if cluster is None:
        return ClusterInfo(ClusterId(""), nodes)
    return ClusterInfo(
        cluster=cluster.id,
        nodes=nodes,
        gossip_keys=cluster.gossip_keys,
        allocation_keys=tuple(key.public for key in cluster.allocation_keys),
        removed=tuple(snapshot.removed),
        data_path_port=cluster.data_path_port,
        heartbeat_period_s=cluster.spec.heartbeat_period_s,
    )


def _allocations(
    snapshot: Snapshot, node: NodeId, assignment: Assignment, issuer: Issuer
) -> Iterator[tuple[TaskId, tuple[Allocation, ...]]]:
    cluster, assigned = snapshot.cluster, snapshot.nodes.get(node)
    if cluster is None or assigned is None:
        return
    for task in assignment.tasks.values():
        service = assignment.services.get(task.service)
        if service is None or is_ended(task.status.state):
            continue
        made = issuer.issue(cluster, assigned, task, service, assignment.networks)
        if made:
            yield task.id, made


def _node_info(node: Node) -> NodeInfo:
    return NodeInfo(
        id=node.id,
        index=node.index,
        hostname=node.description.hostname,
        role=node.spec.role,
        state=node.state,
        address=node.address,
        gossip_port=node.gossip_port,
        data_address=node.data_address,
        manager_address=node.manager_address,
    )


def _tasks_by_node(
    snapshot: Snapshot, before: Mapping[NodeId, tuple[Task, ...]]
) -> dict[NodeId, tuple[Task, ...]]:
    grouped: dict[NodeId, list[Task]] = {}
    for task in snapshot.tasks.values():
        # A global service's task has its node from the start, but is nothing to run before that.
        if task.node is not None and task.status.state >= TaskState.ASSIGNED:
            grouped.setdefault(task.node, []).append(task)
    shared: dict[NodeId, tuple[Task, ...]] = {}
    for node, tasks in grouped.items():
        known = before.get(node, ())
        is_same = len(known) == len(tasks) and all(
            a is b for a, b in zip(known, tasks, strict=True)
        )
        shared[node] = known if is_same else tuple(tasks)
    return shared


def _service_info(service: Service) -> ServiceInfo:
    return ServiceInfo(
        id=service.id,
        name=service.spec.name,
        endpoint_mode=service.spec.endpoint_mode,
        endpoint=service.endpoint or Endpoint(),
    )


def _content(task: Task) -> Task:
    return replace(task, status=_NO_STATUS, meta=_NO_META)


def _changed(old: Mapping[_K, _V], new: Mapping[_K, _V]) -> dict[_K, _V]:
    return {key: value for key, value in new.items() if old.get(key) != value}


def _patched(
    old: Mapping[_K, _V], changed: Mapping[_K, _V], removed: tuple[_K, ...]
) -> dict[_K, _V]:
    gone = frozenset(removed)
    return {k: v for k, v in {**old, **changed}.items() if k not in gone}


def _pages(assignment: Assignment) -> Iterator[Assignment]:
    """Yield the assignment in pieces: networks and services before the tasks that need them."""
    pieces = chain(
        (Assignment(networks={i: n}) for i, n in assignment.networks.items()),
        (Assignment(services={i: s}) for i, s in assignment.services.items()),
        (Assignment(tasks={i: t}) for i, t in assignment.tasks.items()),
        (Assignment(allocations={i: a}) for i, a in assignment.allocations.items()),
    )
    while page := list(islice(pieces, PAGE_OBJECTS)):
        yield Assignment(
            tasks={i: t for piece in page for i, t in piece.tasks.items()},
            networks={i: n for piece in page for i, n in piece.networks.items()},
            services={i: s for piece in page for i, s in piece.services.items()},
            allocations={i: a for piece in page for i, a in piece.allocations.items()},
        )
