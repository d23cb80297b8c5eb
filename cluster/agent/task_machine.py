"""The life of one task on its node: what is known of it -> the next single step (pure).

Driven by `task_runner`, which asks for a step, performs it, and asks again with what it then knows
(after swarmkit's `agent/exec.Do`). Level-triggered: the same view always gives the same step.

Invariants: a reported state is higher than the one before; a task starts only in a sandbox that the
data plane has made, and not before the disk knows of it: a daemon that knew nothing of a running
task would take its sandbox away; a task that serves is drained before it is stopped; nothing is
removed while it runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.model.task import TaskState, is_ended
from cluster.runtime.base import Exit


@dataclass(frozen=True, slots=True)
class TaskView:
    """All that is known of a task here and now."""

    state: TaskState
    """As last reported."""
    desired: TaskState
    is_deleted: bool = False
    """The managers have forgotten it: nothing of it may stay."""
    is_prepared: bool = False
    is_started: bool = False
    """Its process was started, perhaps by a daemon before this one; see `exit` for whether it
    still runs."""
    exit: Exit | None = None
    failure: str = ""
    """Why preparing or starting cannot succeed, or why it will not get a sandbox."""
    has_sandbox: bool = False
    """The data plane has applied a plan with its sandbox."""
    is_remembered: bool = False
    """The next daemon will know of it, whenever this one is killed."""
    is_drained: bool = False
    """No node gives it new connections any more, or it was waited for long enough."""


@dataclass(frozen=True, slots=True)
class Report:
    """Enter a state, and tell the managers."""

    state: TaskState
    message: str
    error: str = ""
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Prepare:
    """Have the runtime prepare it."""


@dataclass(frozen=True, slots=True)
class AwaitSandbox:
    """Wait until the data plane has made its sandbox, or anything else changes."""


@dataclass(frozen=True, slots=True)
class AwaitRecord:
    """Wait until the disk knows of it, or anything else changes."""


@dataclass(frozen=True, slots=True)
class Start:
    """Have the runtime start it."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Tell every node to give it no new connections, and wait until they have obeyed."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Have the runtime stop it."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Have the runtime delete what it keeps of it, and forget it."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing to do until something changes."""


Step = Report | Prepare | AwaitSandbox | AwaitRecord | Start | Drain | Stop | Remove | Rest


def next_step(view: TaskView) -> Step:
    """Return what to do next."""
    if is_ended(view.state):
        return _after_end(view)
    if view.is_deleted or is_ended(view.desired):
        return _towards_shutdown(view)
    return _towards_running(view)


def _is_alive(view: TaskView) -> bool:
    return view.is_started and view.exit is None


def _after_end(view: TaskView) -> Step:
    if _is_alive(view):
        # The managers gave it up while this node was away; its process has survived them.
        return Stop()
    return Remove() if view.is_deleted else Rest()


def _towards_shutdown(view: TaskView) -> Step:
    if not _is_alive(view):
        code = 0 if view.exit is None else view.exit.code
        return Report(TaskState.SHUTDOWN, "shutdown", exit_code=code)
    return Stop() if view.is_drained else Drain()


def _towards_running(view: TaskView) -> Step:  # noqa: PLR0911  (one return per state)
    if view.is_started and view.state < TaskState.RUNNING:
        # Just now, or by a daemon that had no time to write down how far it had come.
        return Report(TaskState.RUNNING, "started")
    match view.state:
        case TaskState.NEW | TaskState.PENDING | TaskState.ASSIGNED:
            return Report(TaskState.ACCEPTED, "accepted")
        case TaskState.ACCEPTED:
            return Report(TaskState.PREPARING, "preparing")
        case TaskState.PREPARING:
            return _prepare(view)
        case TaskState.READY:
            if view.desired <= TaskState.READY:
                return Rest()
            return Report(TaskState.STARTING, "starting")
        case TaskState.STARTING:
            return _start(view)
        case TaskState.RUNNING:
            return Rest() if view.exit is None else _report_exit(view.exit)
        case _:
            raise AssertionError(f"{view.state!r} is an ended state")


def _prepare(view: TaskView) -> Step:
    if view.failure:
        return Report(TaskState.REJECTED, "preparing", view.failure)
    if not view.is_prepared:
        return Prepare()
    return Report(TaskState.READY, "prepared") if view.has_sandbox else AwaitSandbox()


def _start(view: TaskView) -> Step:
    if view.failure:
        return Report(TaskState.FAILED, "starting", view.failure)
    if not view.has_sandbox:
        return AwaitSandbox()
    if not view.is_prepared:
        return Prepare()
    return Start() if view.is_remembered else AwaitRecord()


def _report_exit(end: Exit) -> Step:
    if end.code == 0:
        return Report(TaskState.COMPLETE, "finished")
    reason = f": {end.message}" if end.message else ""
    error = f"task: non-zero exit ({end.code}){reason}"
    return Report(TaskState.FAILED, "started", error, end.code)
