"""Keeps one live task in each slot of every service (pure).

A replicated service has as many slots as replicas, a global one has one on each eligible node. How
a slot is kept up is told in `upkeep`; here is which slots there are. A task is never restarted:
another one takes its place.

Invariants: a slot has at most one task that is meant to run. What is no longer wanted is either
history (desired SHUTDOWN: its slot goes on) or to be forgotten (REMOVE: its slot, or its service,
is gone).
Source: swarmkit manager/orchestrator (replicated, global, restart, constraintenforcer).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import count
from random import Random

from cluster.control.restart import ENDED_BY_ITSELF, restart_at
from cluster.control.slots import Slot, is_wanted, slots_of, stop, tasks_by_service
from cluster.control.upkeep import Outlook, Places, Upkeep
from cluster.model.ids import NodeId
from cluster.model.node import Availability, Node, NodeState
from cluster.model.service import Service, ServiceMode
from cluster.model.task import Task, TaskState
from cluster.state.changes import Change
from cluster.state.snapshot import Snapshot

CHANGES_MAX = 500
"""About the most changes of one look; services beyond wait for the next."""


def decide(snapshot: Snapshot, now: float, rng: Random) -> list[Change]:
    """Return the tasks to make, and those to stop."""
    by_service = tasks_by_service(snapshot)
    places = Places(snapshot)
    changes: list[Change] = []
    for service in snapshot.services.values():
        tasks = by_service.get(service.id, [])
        upkeep = Upkeep(service, places, now, rng)
        if service.spec.mode is ServiceMode.GLOBAL:
            usable = places.usable(service.spec.task.placement)
            changes += _decide_global(snapshot, usable, tasks, upkeep)
        else:
            changes += _decide_replicated(service, tasks, upkeep)
        if len(changes) >= CHANGES_MAX:
            return changes
    for service_id, tasks in by_service.items():
        if service_id not in snapshot.services:
            changes += [c for task in tasks for c in stop(task, TaskState.REMOVE, now)]
    return changes


def next_wakeup(snapshot: Snapshot, now: float) -> float | None:
    """Return the seconds (> 0) until the next delayed restart; None: there is none."""
    by_service = tasks_by_service(snapshot)
    due = [
        at - now
        for service in snapshot.services.values()
        for slot in _slots_ended(by_service.get(service.id, []))
        if (at := restart_at(service.spec.task.restart, slot, now)) is not None and at > now
    ]
    return min(due, default=None)


def _slots_ended(tasks: Sequence[Task]) -> Iterable[Slot]:
    """Return the slots whose newest task ended by itself."""
    if not any(_ended_by_itself(task) for task in tasks):  # the usual case, at little cost
        return []
    return [slot for slot in slots_of(tasks).values() if _ended_by_itself(slot.newest)]


def _ended_by_itself(task: Task) -> bool:
    return is_wanted(task) and task.status.state in ENDED_BY_ITSELF


def _decide_replicated(service: Service, tasks: Sequence[Task], upkeep: Upkeep) -> list[Change]:
    slots = slots_of(tasks)
    replicas = service.spec.replicas
    kept = [s for s in slots.values() if s.newest.desired_state < TaskState.REMOVE]
    if len(kept) > replicas:
        kept = _best_first(kept, upkeep)[:replicas]
    keys = {slot.key for slot in kept}
    changes: list[Change] = []
    for slot in slots.values():
        if slot.key not in keys:
            changes += upkeep.remove(slot)
    changes += upkeep.tend([slot for slot in slots.values() if slot.key in keys])
    missing = min(replicas - len(keys), CHANGES_MAX)
    free = (key for key in count(1) if key not in keys)
    return changes + [upkeep.fill(next(free)) for _ in range(missing)]


def _best_first(slots: Iterable[Slot], upkeep: Upkeep) -> list[Slot]:
    """Return the slots, those first that a scale-down should keep.

    Running ones, then spread over nodes: the first of each node, the second of each, and so on;
    then the lowest numbers. (Swarm's order.)
    """
    by_key = list(slots)
    running = {s.key for s in by_key if upkeep.outlook(s) is Outlook.RUNNING}
    kept = sorted(by_key, key=lambda slot: slot.key not in running)
    seen: Counter[NodeId | None] = Counter()
    ranked: list[tuple[bool, int, int]] = []
    for position, slot in enumerate(kept):
        node = slot.newest.node
        ranked.append((slot.key not in running, seen[node], position))
        seen[node] += 1
    return [kept[position] for _, _, position in sorted(ranked)]


def _decide_global(
    snapshot: Snapshot, usable: frozenset[NodeId], tasks: Sequence[Task], upkeep: Upkeep
) -> list[Change]:
    changes: list[Change] = []
    tended: list[Slot] = []
    taken: set[NodeId] = set()
    for key, slot in slots_of(tasks).items():
        node = snapshot.nodes.get(NodeId(str(key)))
        if node is None or slot.newest.desired_state >= TaskState.REMOVE:
            changes += upkeep.remove(slot)
            continue
        taken.add(node.id)
        if node.id not in usable:
            changes += upkeep.stop_older(slot) + upkeep.stop_unless_ended(slot.newest)
        elif _takes_new_tasks(node):
            tended.append(slot)
    changes += upkeep.tend(tended)
    vacant = [n for n in sorted(usable - taken) if _takes_new_tasks(snapshot.nodes[n])]
    return changes + [upkeep.fill(node) for node in vacant[:CHANGES_MAX]]


def _takes_new_tasks(node: Node) -> bool:
    return node.state is NodeState.READY and node.spec.availability is Availability.ACTIVE
