"""Takes one task through its life: the shell around `task_machine`.

One coroutine per task asks for the next step and performs it; a second one waits for the task's
process. Everything that both know is in `LocalTask`, which the worker reads to plan and publish.

Invariants: a process that ended is known to the worker before anything else happens; a failing
runtime hinders no other task.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGKILL
from typing import Protocol, assert_never

from cluster.agent import task_machine as machine
from cluster.agent.drain import Row
from cluster.agent.execution import execution
from cluster.allocation.records import Phase
from cluster.model.ids import TaskId
from cluster.model.task import Task, TaskState, TaskStatus, is_ended
from cluster.runtime.base import Exit, Runtime, RuntimeFailure

logger = logging.getLogger(__name__)

DRAIN_TIMEOUT_S = 2.0
"""Longest wait for the other nodes; what Swarm always waits."""
DRAIN_SUSPECT_S = 6.0
"""The same where a node is suspected: its daemon may be on its way back (2.5 s, see `node.agent`),
and its kernel still forwards to the task."""
DRAIN_GRACE_S = 0.1
"""After the last node has obeyed: connections made just before reach the process."""
ADOPT_PROBE_S = 0.05
"""How long an adopted task's process may take to turn out not to run."""
LISTEN_TIMEOUT_S = 30.0
"""Longest that a running task is kept from traffic because it does not listen yet."""
LISTEN_POLL_S = (0.02, 0.5)
"""First and longest pause between two looks at whether a task listens."""
RETRY_AFTER_S = 1.0
"""After a failure of the runtime that is not the task's fault."""
_LOST = 128 + SIGKILL


@dataclass(slots=True)
class LocalTask:
    """What is known here of one task of this node."""

    task: Task
    status: TaskStatus
    is_adopting: bool = False
    """It is not known yet whether its process runs."""
    is_deleted: bool = False
    is_prepared: bool = False
    is_started: bool = False
    is_listening: bool = False
    """It has opened the ports that its service says it has, so it can be sent traffic."""
    is_draining: bool = False
    is_drained: bool = False
    exit: Exit | None = None
    failure: str = ""

    @property
    def has_process(self) -> bool:
        """Whether its process runs, as far as is known."""
        return self.is_started and self.exit is None

    @property
    def needs_sandbox(self) -> bool:
        """Whether the node's plan has its sandbox."""
        is_under_way = TaskState.PREPARING <= self.status.state <= TaskState.RUNNING
        return is_under_way or self.has_process

    @property
    def phase(self) -> Phase | None:
        """What other nodes may do with it; None: nothing."""
        match self.status.state:
            case TaskState.READY | TaskState.STARTING:
                return Phase.STARTING
            case TaskState.RUNNING if self.has_process and self.is_draining:
                return Phase.DRAINING
            case TaskState.RUNNING if self.has_process:
                return Phase.SERVING if self.is_listening else Phase.STARTING
            case _:
                return None


class Network(Protocol):
    """The data plane, as a task sees it (`plan_loop`)."""

    def sandbox(self, task: TaskId) -> Path | None:
        """Return where the task's sandbox is; None: it is not there."""
        ...

    def trouble(self, task: TaskId) -> str:
        """Return why a task waits for its sandbox, as far as that is an error; else nothing."""
        ...

    def failure(self, task: TaskId) -> str:
        """Return why a task will not get its sandbox; empty: it may yet."""
        ...

    def is_acknowledged(self, task: TaskId, owing: AbstractSet[Row]) -> bool:
        """Return whether no plan, here or elsewhere, gives a draining task new connections.

        owing: those who must say so themselves, as long as they live.
        """
        ...

    def suspects(self, task: TaskId) -> frozenset[Row]:
        """Return who may be dead, and else still may connect to a draining task."""
        ...


class Memory(Protocol):
    """What the next daemon will know (`worker`)."""

    def holds(self, task: TaskId) -> bool:
        """Return whether the disk has the task's assignment."""
        ...

    @property
    def trouble(self) -> str:
        """Why the disk takes nothing; empty: it does."""
        ...


@dataclass(frozen=True, slots=True)
class Host:
    """What all tasks of a node share."""

    runtime: Runtime
    network: Network
    memory: Memory
    is_listening: Callable[[TaskId], bool]
    """Returns whether all ports that the task's service declares are open in its sandbox."""
    starts: asyncio.Semaphore
    """Bounds how many tasks are prepared or started at one time."""
    now: Callable[[], float]
    """Unix time, seconds."""
    changed: Callable[[TaskId], None]
    """Takes note of whatever changed in a task; returns at once."""
    drained: Callable[[bool], None]
    """Counts a task that was drained, in time or not."""
    spawn: Callable[[Coroutine[None, None, None]], object]
    """Runs a coroutine in the worker's task group."""


class TaskRunner:
    """Runs one task."""

    def __init__(self, host: Host, local: LocalTask) -> None:
        """Begin with what is known; `local` is shared with the worker."""
        self.local = local
        self._host = host
        self._wake = asyncio.Event()
        self._probed = asyncio.Event()

    def wake(self) -> None:
        """Say that something may have changed."""
        self._wake.set()

    async def adopt(self) -> None:
        """Find out whether its process, started by an earlier daemon, still runs."""
        local = self.local
        local.is_started = True
        self._host.spawn(self._watch())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ADOPT_PROBE_S):
                await self._probed.wait()
        local.is_adopting = False
        if not local.has_process:
            return
        # What was sent traffic before the daemon ended goes on being sent, so no old task is asked.
        is_old = self._ran_s() >= LISTEN_TIMEOUT_S
        local.is_listening = is_old or self._host.is_listening(local.task.id)
        if not local.is_listening:
            self._host.spawn(self._await_listening())

    async def run(self) -> None:
        """Take the task through its life; return when nothing of it is left."""
        while True:
            self._wake.clear()
            step = machine.next_step(self._view())
            try:
                await self._perform(step)
            except Exception as error:
                logger.exception("task=%s step=%r failed, will retry", self.local.task.id, step)
                self._note(f"{type(error).__name__}: {error}")
                await asyncio.sleep(RETRY_AFTER_S)
                continue
            if isinstance(step, machine.Remove):
                return

    def _ran_s(self) -> float:
        """Return how long it has run, seconds; 0 if the daemon before did not write that down."""
        status = self.local.status
        return self._host.now() - status.timestamp if status.state is TaskState.RUNNING else 0.0

    async def _watch(self) -> None:
        """Wait for the end of the process, and make it known at once."""
        local = self.local
        while local.has_process:
            try:
                end = await self._host.runtime.wait(local.task.id)
            except RuntimeFailure as error:
                self._lost(str(error))
            except Exception:
                logger.exception("task=%s cannot be waited for, will retry", local.task.id)
                await asyncio.sleep(RETRY_AFTER_S)
            else:
                local.exit = end
        self._probed.set()
        self._host.changed(local.task.id)
        self._wake.set()

    def _lost(self, reason: str) -> None:
        local = self.local
        if local.status.state >= TaskState.RUNNING:
            local.exit = Exit(_LOST, f"the task's process is gone: {reason}")
        else:
            local.is_started = False  # it was only prepared

    def _view(self) -> machine.TaskView:
        local = self.local
        return machine.TaskView(
            state=local.status.state,
            desired=local.task.desired_state,
            is_deleted=local.is_deleted,
            is_prepared=local.is_prepared,
            is_started=local.is_started,
            exit=local.exit,
            failure=local.failure,
            has_sandbox=self._host.network.sandbox(local.task.id) is not None,
            is_drained=local.is_drained,
            is_remembered=self._host.memory.holds(local.task.id),
        )

    async def _perform(self, step: machine.Step) -> None:
        match step:
            case machine.Report():
                self._report(step)
            case machine.Prepare():
                await self._prepare()
            case machine.AwaitSandbox():
                await self._await_sandbox()
            case machine.AwaitRecord():
                trouble = self._host.memory.trouble
                self._note(f"cannot remember the task: {trouble}" if trouble else "")
                await self._wake.wait()
            case machine.Start():
                await self._start()
            case machine.Drain():
                await self._drain()
            case machine.Stop():
                await self._stop()
            case machine.Remove():
                await self._host.runtime.remove(self.local.task.id)
            case machine.Rest():
                await self._wake.wait()
            case _:
                assert_never(step)

    async def _await_sandbox(self) -> None:
        local, network = self.local, self._host.network
        local.failure = network.failure(local.task.id)
        if not local.failure:
            self._note(network.trouble(local.task.id))
            await self._wake.wait()

    def _report(self, step: machine.Report) -> None:
        local = self.local
        local.status = TaskStatus(
            state=step.state,
            timestamp=self._host.now(),
            message=step.message,
            error=step.error,
            exit_code=step.exit_code,
            pid=local.status.pid if step.state is TaskState.RUNNING else 0,
        )
        level = logging.WARNING if step.error else logging.INFO
        logger.log(level, "task=%s state=%s error=%s", local.task.id, step.state.name, step.error)
        self._host.changed(local.task.id)

    def _note(self, error: str) -> None:
        """Tell the managers why the task does not get on; its state stays."""
        local = self.local
        if local.status.error != error and not is_ended(local.status.state):
            local.status = replace(local.status, error=error, timestamp=self._host.now())
            self._host.changed(local.task.id)

    async def _prepare(self) -> None:
        local = self.local
        async with self._host.starts:
            try:
                await self._host.runtime.prepare(execution(local.task))
            except RuntimeFailure as error:
                local.failure = str(error)
            else:
                local.is_prepared = True

    async def _start(self) -> None:
        local = self.local
        async with self._host.starts:
            sandbox = self._host.network.sandbox(local.task.id)
            if sandbox is None:
                return
            try:
                pid = await self._host.runtime.start(execution(local.task), sandbox)
            except RuntimeFailure as error:
                local.failure = str(error)
                return
        local.is_started = True
        local.status = replace(local.status, pid=pid)
        self._host.spawn(self._watch())
        self._host.spawn(self._await_listening())

    async def _await_listening(self) -> None:
        """Let traffic come once the task listens: a process runs before it can be reached."""
        local = self.local
        pause_s, pause_s_max = LISTEN_POLL_S
        try:
            async with asyncio.timeout(LISTEN_TIMEOUT_S):
                while local.has_process and not self._host.is_listening(local.task.id):
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, pause_s_max)
        except TimeoutError:
            logger.warning("task=%s gets traffic, though it does not listen yet", local.task.id)
        if local.has_process:
            local.is_listening = True
            self._host.changed(local.task.id)

    async def _drain(self) -> None:
        local = self.local
        if local.phase is Phase.SERVING:
            local.is_draining = True
            self._host.changed(local.task.id)
            in_time = await self._wait_until_acknowledged()
            if local.has_process:
                self._host.drained(in_time)
                await asyncio.sleep(DRAIN_GRACE_S)
        local.is_drained = True

    async def _wait_until_acknowledged(self) -> bool:
        local, network = self.local, self._host.network
        clock = asyncio.get_running_loop().time
        begun = clock()
        owing: frozenset[Row] = frozenset()
        while local.has_process and not network.is_acknowledged(local.task.id, owing):
            owing |= network.suspects(local.task.id)
            limit_s = DRAIN_SUSPECT_S if owing else DRAIN_TIMEOUT_S
            if clock() >= begun + limit_s:
                logger.warning("task=%s stopped, though other nodes still use it", local.task.id)
                return False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(begun + limit_s):
                    await self._wake.wait()
            self._wake.clear()
        return True

    async def _stop(self) -> None:
        local, runtime = self.local, self._host.runtime
        spec = local.task.spec
        try:
            await runtime.stop(local.task.id, signal=spec.stop_signal, grace_s=spec.stop_grace_s)
        except RuntimeFailure as error:
            logger.warning("task=%s killed, for it cannot be stopped: %s", local.task.id, error)
            await runtime.stop(local.task.id, signal="SIGKILL", grace_s=0.0)
        while local.has_process:
            await self._wake.wait()
            self._wake.clear()
