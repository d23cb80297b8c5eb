"""The tasks of this node and what they belong to, beyond what the managers still know of them.

A task that the managers deleted stays here until nothing of it is left, and with it its networks
its service and its allocations, for it is still to be drained.
"""

from __future__ import annotations

from cluster.agent.task_runner import TaskRunner
from cluster.allocation.records import Phase
from cluster.model.assignment import Allocation, Assignment, ServiceInfo
from cluster.model.ids import NetworkId, ServiceId, TaskId
from cluster.model.network import Network
from cluster.model.task import Task, TaskStatus


class TaskTable:
    """All tasks of this node."""

    def __init__(self) -> None:
        self.runners: dict[TaskId, TaskRunner] = {}
        self._told: Assignment | None = None
        self._networks: dict[NetworkId, Network] = {}
        self._services: dict[ServiceId, ServiceInfo] = {}
        self._allocations: dict[TaskId, tuple[Allocation, ...]] = {}
        self._reported: dict[TaskId, TaskStatus] = {}

    @property
    def assignment(self) -> Assignment | None:
        """What is assigned or still here; None: no assignment was taken yet."""
        if self._told is None:
            return None
        tasks = {task: runner.local.task for task, runner in sorted(self.runners.items())}
        return Assignment(tasks, self._networks, self._services, self._allocations)

    @property
    def is_adopting(self) -> bool:
        """Whether there are tasks of which it is not known yet whether they run."""
        return any(runner.local.is_adopting for runner in self.runners.values())

    def take(self, told: Assignment) -> list[Task]:
        """Make `told` what is assigned; return the tasks that have no runner yet."""
        self._told = told
        for task_id, runner in self.runners.items():
            task = told.tasks.get(task_id)
            runner.local.is_deleted = task is None
            if task is not None:
                runner.local.task = task
        kept = [r.local.task for r in self.runners.values() if r.local.is_deleted]
        networks = {attachment.network for task in kept for attachment in task.attachments}
        services = {task.service for task in kept}
        self._networks = {n: v for n, v in self._networks.items() if n in networks} | told.networks
        self._services = {s: v for s, v in self._services.items() if s in services} | told.services
        deleted = {task.id for task in kept}
        self._allocations = {
            t: v for t, v in self._allocations.items() if t in deleted
        } | told.allocations
        return [task for task_id, task in told.tasks.items() if task_id not in self.runners]

    def declared_ports(self, task: TaskId) -> set[tuple[str, int]]:
        """Return the ports (protocol, number in its sandbox) that a task's service declares."""
        runner = self.runners.get(task)
        service = None if runner is None else self._services.get(runner.local.task.service)
        ports = () if service is None else service.endpoint.ports
        return {(port.protocol, port.target_port) for port in ports}

    def forget(self, task: TaskId) -> None:
        """Forget a task of which nothing is left."""
        del self.runners[task]
        self._reported.pop(task, None)

    def statuses(self) -> dict[TaskId, TaskStatus]:
        """Return the status of every task."""
        return {task: runner.local.status for task, runner in sorted(self.runners.items())}

    def sandboxes(self) -> frozenset[TaskId]:
        """Return the tasks that need a sandbox."""
        return frozenset(t for t, runner in self.runners.items() if runner.local.needs_sandbox)

    def phases(self) -> dict[TaskId, Phase]:
        """Return what others may do with the tasks that may be reached at all."""
        found = ((task, runner.local.phase) for task, runner in sorted(self.runners.items()))
        return {task: phase for task, phase in found if phase is not None}

    def to_report(self, task: TaskId) -> TaskStatus | None:
        """Return a task's status if it has changed since the last call; None: it has not."""
        status = self.runners[task].local.status
        if self._reported.get(task) == status:
            return None
        self._reported[task] = status
        return status

    def ahead_of(self, told: Assignment) -> dict[TaskId, TaskStatus]:
        """Return the statuses that the managers seem to have missed."""
        return {
            task: runner.local.status
            for task, runner in self.runners.items()
            if task in told.tasks and told.tasks[task].status.state < runner.local.status.state
        }
