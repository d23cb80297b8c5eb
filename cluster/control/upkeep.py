"""What is to become of a slot: restarts, lost tasks, and the rollout of a changed spec (pure).

`Upkeep.outlook` says in one word what a slot's newest task means for it; `Upkeep.tend` acts on it.
A task is lost when its node may not, or cannot, run it: the node is down, drained, deleted, or does
not meet the constraints any more. A lost task is replaced at once, though it may still run where
nobody sees it; any other task is replaced when it has ended.

A changed spec rolls out one slot at a time, each when the one before runs: a replacement that does
not come up stops the rollout. Slots where nothing runs do not wait for their turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum, auto
from random import Random

from cluster.control.constraints import matches, parse_constraints
from cluster.control.restart import ENDED_BY_ITSELF, restart_at
from cluster.control.slots import Slot, SlotKey, is_outdated, is_over, is_wanted, stop
from cluster.model.errors import Invalid
from cluster.model.ids import NodeId, TaskId, new_id
from cluster.model.meta import Meta
from cluster.model.node import Availability, Node, NodeState
from cluster.model.service import Placement, RestartCondition, Service
from cluster.model.task import Task, TaskState, TaskStatus, is_ended
from cluster.state.changes import Change, PutTask
from cluster.state.snapshot import Snapshot


class Outlook(Enum):
    """What is to become of a slot."""

    RUNNING = auto()
    """Nothing: its task runs."""
    STARTING = auto()
    """Its task is on its way."""
    STOPPING = auto()
    """Its task was told to stop; the next one waits for that."""
    REPLACE = auto()
    """The next task is due now."""
    DELAYED = auto()
    """The next task is due later."""
    OVER = auto()
    """There will be no other task."""


class Places:
    """Where tasks may stay; asked once for each set of constraints."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._nodes = snapshot.nodes
        self._usable: dict[tuple[str, ...], frozenset[NodeId]] = {}

    def is_lost(self, task: Task) -> bool:
        """Return whether `task` has a node that may not, or cannot, run it."""
        return task.node is not None and task.node not in self.usable(task.spec.placement)

    def usable(self, placement: Placement) -> frozenset[NodeId]:
        """Return the nodes that tasks with this placement may stay on."""
        texts = placement.constraints
        if texts not in self._usable:
            self._usable[texts] = frozenset(self._find(texts))
        return self._usable[texts]

    def _find(self, texts: tuple[str, ...]) -> Iterable[NodeId]:
        try:
            constraints = parse_constraints(texts)
        except Invalid:  # the API lets none pass; what cannot be read cannot be met
            return []
        nodes = self._nodes.values()
        return [n.id for n in nodes if _may_keep_tasks(n) and matches(constraints, n)]


def _may_keep_tasks(node: Node) -> bool:
    is_up = node.state is not NodeState.DOWN
    return is_up and node.spec.availability is not Availability.DRAIN


class Upkeep:
    """One look at the slots of one service."""

    def __init__(self, service: Service, places: Places, now: float, rng: Random) -> None:
        self._service = service
        self._places = places
        self._now = now
        self._rng = rng

    def tend(self, slots: Sequence[Slot]) -> list[Change]:
        """Return what replaces lost and ended tasks, and rolls out a changed spec."""
        changes: list[Change] = []
        outdated: list[Slot] = []
        is_settled = True
        for slot in slots:
            task = slot.newest
            outlook = self.outlook(slot)
            changes += self.stop_older(slot)
            if outlook is Outlook.REPLACE:
                changes += self._replace(slot)
            elif not is_wanted(task) or self._places.is_lost(task):
                changes += self.stop_unless_ended(task)
            if outlook in (Outlook.RUNNING, Outlook.STARTING) and is_outdated(self._service, task):
                outdated.append(slot)
            elif outlook not in (Outlook.RUNNING, Outlook.OVER):
                is_settled = False
        return changes + self._roll_out(outdated, is_settled=is_settled)

    def outlook(self, slot: Slot) -> Outlook:
        """Return what is to become of `slot`."""
        task = slot.newest
        policy = self._service.spec.task.restart
        if not is_over(task) and not self._places.is_lost(task):
            return _under_way(task)
        if is_outdated(self._service, task):
            return Outlook.REPLACE
        if policy.condition is RestartCondition.NONE:
            return Outlook.OVER
        if not is_wanted(task) or task.status.state not in ENDED_BY_ITSELF:
            return Outlook.REPLACE
        due_at = restart_at(policy, slot, self._now)
        return _when(due_at, self._now)

    def fill(self, key: SlotKey, *, after: float = 0.0) -> Change:
        """Return a new task for the slot `key`, made no earlier than `after`."""
        spec = self._service.spec
        task = Task(
            id=TaskId(new_id(self._rng)),
            service=self._service.id,
            service_name=spec.name,
            spec=spec.task,
            slot=key if isinstance(key, int) else 0,
            node=None if isinstance(key, int) else key,
            spec_version=self._service.spec_version,
            status=TaskStatus(TaskState.NEW, self._now, "created"),
            service_labels=spec.labels,
            meta=Meta(created_at=max(self._now, after), updated_at=self._now),
        )
        return PutTask(task)

    def stop(self, task: Task) -> list[Change]:
        """Return what shuts `task` down and keeps it as history."""
        return stop(task, TaskState.SHUTDOWN, self._now)

    def stop_unless_ended(self, task: Task) -> list[Change]:
        """Return what shuts `task` down; one that ended stays as it is, for the restart policy."""
        return [] if is_ended(task.status.state) else self.stop(task)

    def stop_older(self, slot: Slot) -> list[Change]:
        """Return what shuts down all tasks of `slot` but the newest."""
        return [change for task in slot.tasks[:-1] for change in self.stop(task)]

    def remove(self, slot: Slot) -> list[Change]:
        """Return what does away with `slot` and its history."""
        return [c for task in slot.tasks for c in stop(task, TaskState.REMOVE, self._now)]

    def _replace(self, slot: Slot) -> list[Change]:
        task = slot.newest
        return [*self.stop(task), self.fill(slot.key, after=task.meta.created_at)]

    def _roll_out(self, outdated: Sequence[Slot], *, is_settled: bool) -> list[Change]:
        """Return the next step from the old spec to the new.

        outdated: slots with a live task of the old one. is_settled: no other slot is under way.
        """
        unplaced = [s for s in outdated if s.newest.status.state < TaskState.ASSIGNED]
        changes = [change for slot in unplaced for change in self._replace(slot)]
        placed = [s for s in outdated if s not in unplaced]
        if placed and is_settled and not unplaced:
            starting = [s for s in placed if s.newest.status.state is not TaskState.RUNNING]
            changes += self.stop((starting or placed)[0].newest)
        return changes


def _under_way(task: Task) -> Outlook:
    """Return what a task means that has not ended."""
    if not is_wanted(task):
        return Outlook.STOPPING
    return Outlook.RUNNING if task.status.state is TaskState.RUNNING else Outlook.STARTING


def _when(due_at: float | None, now: float) -> Outlook:
    """Return what it means that the next task is due then."""
    if due_at is None:
        return Outlook.OVER
    return Outlook.REPLACE if due_at <= now else Outlook.DELAYED
