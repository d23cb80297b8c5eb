"""The agent of one node: runs the tasks that it is told to run.

Driven by `set_assignment` and `set_cluster_info`, by gossip and by the tasks themselves. Each task
has a runner of its own; what they have in common, data plane and gossip, is `plan_loop`'s.

Invariants: without managers everything goes on, over a restart too; a process that this node does
not know is stopped only when a manager has said what should run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.agent.hosts import Answers
from cluster.agent.plan_loop import Local, OpenPorts, PlanLoop, PlanStats
from cluster.agent.publisher import Gossip
from cluster.agent.state_file import StateFile, WorkerState
from cluster.agent.task_runner import Host, LocalTask, TaskRunner
from cluster.agent.task_table import TaskTable
from cluster.model.assignment import Assignment, ClusterInfo
from cluster.model.ids import NodeId, TaskId
from cluster.model.task import Task, TaskState, TaskStatus
from cluster.runtime.base import Runtime
from cluster.task_group import TaskGroup
from dataplane.driver import Driver
from dataplane.plan import NodePlan

logger = logging.getLogger(__name__)

STARTS_MAX = 8
"""Tasks that are prepared or started at one time."""
SAVE_AFTER_S = 1.0
"""The state file is written at most once in this time, unless tasks wait for it."""
UNKNOWN_GRACE_S = 10.0
"""Between the signal to a task that no assignment knows, and its end."""
UNKNOWN_RETRY_S = 5.0
UNKNOWN_ATTEMPTS_MAX = 5


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """What the agent counts, and how things stand."""

    tasks: Mapping[TaskState, int]
    adopted: int
    """Tasks that ran already when the agent started."""
    drains: int
    drains_timed_out: int
    plan: PlanStats


class _Memory:
    """Which tasks the state file knows of: those may start (see `task_machine`)."""

    def __init__(self, saved: Assignment | None) -> None:
        self.saved = saved
        self.trouble = ""

    def holds(self, task: TaskId) -> bool:
        return self.saved is not None and task in self.saved.tasks


class Worker:
    """The agent of one node."""

    def __init__(
        self,
        *,
        node_id: NodeId,
        runtime: Runtime,
        driver: Driver,
        gossip: Gossip,
        apply_names: Callable[[NodePlan], Awaitable[None]],
        report: Callable[[TaskId, TaskStatus], None],
        state_directory: Path,
        remembered: Callable[[ClusterInfo], None],
        host_answers: Answers,
        now: Callable[[], float],
        open_ports: OpenPorts | None = None,
    ) -> None:
        """Wire up, and read what an earlier agent left; nothing else happens before `run`.

        Args:
            node_id: this node.
            runtime: where its tasks run.
            driver: its data plane.
            gossip: this node's gossip peer, which somebody else runs.
            apply_names: makes the DNS server answer from a plan that the driver has applied;
                it is tried again after OSError and DriverError.
            report: takes a task's new status, for the managers; must not block.
            state_directory: what the agent remembers; made if missing.
            remembered: is told which facts of the cluster are on the disk; told anything again
                at times; must not block.
            host_answers: whether the host of a dead member lives (see `hosts`).
            now: Unix time, seconds.
            open_ports: what processes listen on in a sandbox; None: that cannot be known, and
                every running task is taken to listen.
        """
        self._runtime = runtime
        self._report = report
        self._remembered = remembered
        self._file = StateFile(state_directory)
        self._saved = self._file.load()
        self._tasks = TaskTable()
        self._info = self._saved.info
        self._told: Assignment | None = None
        """The last assignment from a manager."""
        self._unknown = set[str]()
        """Tasks that the runtime keeps and no assignment has named yet."""
        self._has_begun = False
        """What was saved is taken up."""
        self._is_leaving = False
        self._group: TaskGroup | None = None
        self._unsaved = asyncio.Event()
        self._awaited = asyncio.Event()
        """A task waits for the state file."""
        self._memory = _Memory(self._saved.assignment)
        self._emptied = asyncio.Event()
        self._adopted = 0
        self._drains: Counter[bool] = Counter()
        self._plans = PlanLoop(
            node_id,
            driver=driver,
            gossip=gossip,
            apply_names=apply_names,
            open_ports=open_ports,
            on_change=self._wake,
            remembered=self._saved.sightings,
            host_answers=host_answers,
            has_predecessor=self._saved.assignment is not None,
        )
        self._host = Host(
            runtime=runtime,
            network=self._plans,
            memory=self._memory,
            is_listening=lambda task: self._plans.is_listening(
                task, self._tasks.declared_ports(task)
            ),
            starts=asyncio.Semaphore(STARTS_MAX),
            now=now,
            changed=self._changed,
            drained=self._count_drain,
            spawn=self._spawn,
        )

    async def run(self) -> None:
        """Run until cancelled; tasks and their connections outlive it. Only once."""
        try:
            async with TaskGroup() as group:
                self._group = group
                self._unknown.update(await self._runtime.adopt())
                self._has_begun = True
                if self._saved.assignment is not None:
                    self._take(self._saved.assignment)
                if self._told is not None:
                    self._take(self._told)
                group.create_task(self._plans.run())
                group.create_task(self._save_changes())
        finally:
            self._group = None
            if (state := self._unsaved_state()) is not None:
                self._file.save(state)

    def set_assignment(self, assignment: Assignment) -> None:
        """Take a whole assignment from a manager; before `run` too. A leaving node takes none."""
        if self._is_leaving:
            return
        self._told = assignment
        if self._group is not None and self._has_begun:
            self._take(assignment)

    def set_cluster_info(self, info: ClusterInfo) -> None:
        """Take the cluster's common facts from a manager; before `run` too."""
        self._info = info
        self._update()

    async def leave(self) -> None:
        """Stop and remove all tasks, then everything of the data plane; return when it is done.

        `run` must be running, and goes on.
        """
        self.set_assignment(Assignment())
        self._is_leaving = True
        self._update()
        await self._emptied.wait()

    def statuses(self) -> dict[TaskId, TaskStatus]:
        """Return the status of every task here: what a new session with a manager begins with."""
        return self._tasks.statuses()

    @property
    def has_spoken(self) -> bool:
        """Whether gossip has been given what this node has to say, what runs already included."""
        return self._plans.has_spoken

    def plan(self) -> NodePlan | None:
        """Return the plan that was applied last; None: none yet."""
        return self._plans.plan

    def stats(self) -> WorkerStats:
        """Return counts."""
        return WorkerStats(
            tasks=Counter(status.state for status in self._tasks.statuses().values()),
            adopted=self._adopted,
            drains=self._drains.total(),
            drains_timed_out=self._drains[False],
            plan=self._plans.stats(),
        )

    def _take(self, assignment: Assignment) -> None:
        """Make the tasks here those of `assignment`."""
        for task in self._tasks.take(assignment):
            self._begin(task)
        if any(not self._memory.holds(task) for task in assignment.tasks):
            self._awaited.set()
        for task_id, status in self._tasks.ahead_of(assignment).items():
            self._report(task_id, status)
        if self._told is not None:
            for unknown in sorted(self._unknown):
                self._spawn(self._remove_unknown(unknown))
            self._unknown.clear()
        self._wake()
        self._update()

    def _begin(self, task: Task) -> None:
        saved = self._saved.statuses.get(task.id, task.status)
        status = max(saved, task.status, key=lambda s: s.state)
        local = LocalTask(task, status)
        local.is_adopting = task.id in self._unknown or status.state is TaskState.RUNNING
        self._unknown.discard(task.id)
        runner = TaskRunner(self._host, local)
        self._tasks.runners[task.id] = runner
        self._spawn(self._run(runner))

    async def _run(self, runner: TaskRunner) -> None:
        local = runner.local
        if local.is_adopting:
            await runner.adopt()
            self._adopted += local.has_process
            self._update()
        await runner.run()
        self._tasks.forget(local.task.id)
        self._update()

    async def _remove_unknown(self, task_id: str) -> None:
        logger.warning("task=%s is in no assignment, removing it", task_id)
        for _ in range(UNKNOWN_ATTEMPTS_MAX):
            try:
                await self._runtime.stop(task_id, signal="SIGTERM", grace_s=UNKNOWN_GRACE_S)
                await self._runtime.remove(task_id)
            except Exception:
                logger.exception("task=%s cannot be removed, will retry", task_id)
                await asyncio.sleep(UNKNOWN_RETRY_S)
            else:
                return

    def _changed(self, task_id: TaskId) -> None:
        if task_id not in self._tasks.runners:
            return  # gone, while something still watched it
        status = self._tasks.to_report(task_id)
        if status is not None:
            self._report(task_id, status)
        self._update()

    def _count_drain(self, in_time: bool) -> None:
        self._drains[in_time] += 1

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        if self._group is None:
            raise RuntimeError("the worker does not run")
        self._group.create_task(coroutine)

    def _update(self) -> None:
        """Tell the plan loop how things stand here, once that is known."""
        self._unsaved.set()
        self._see_whether_emptied()
        assignment = self._tasks.assignment
        if assignment is None or self._info is None or self._tasks.is_adopting:
            return
        self._plans.update(
            Local(
                assignment,
                self._info,
                self._tasks.sandboxes(),
                self._tasks.phases(),
                self._is_leaving,
            )
        )

    def _wake(self) -> None:
        """Let every task look again."""
        self._unsaved.set()
        self._see_whether_emptied()
        for runner in self._tasks.runners.values():
            runner.wake()

    def _see_whether_emptied(self) -> None:
        has_plan = self._info is not None and self._plans.plan != NodePlan()
        if self._is_leaving and not self._tasks.runners and not has_plan:
            self._emptied.set()

    async def _save_changes(self) -> None:
        while True:
            await self._unsaved.wait()
            self._unsaved.clear()
            self._awaited.clear()
            if (state := self._unsaved_state()) is not None:
                await self._save(state)
            if self._saved.info is not None:
                self._remembered(self._saved.info)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SAVE_AFTER_S):
                    await self._awaited.wait()

    async def _save(self, state: WorkerState) -> None:
        try:
            await asyncio.to_thread(self._file.save, state)
        except OSError as error:
            logger.warning("worker state not saved, will retry: %s", error)
            self._memory.trouble = str(error)
            self._wake()
        else:
            self._saved, self._memory.saved, self._memory.trouble = state, state.assignment, ""
            for runner in self._tasks.runners.values():
                runner.wake()

    def _unsaved_state(self) -> WorkerState | None:
        """Return what is worth remembering; None: it is remembered already."""
        if not self._has_begun:
            return None
        state = WorkerState(
            self._told or self._saved.assignment,
            self._info,
            self._tasks.statuses(),
            self._plans.sightings,
        )
        return None if state == self._saved else state
