"""The task machine: its table, and that any task gets where it is wanted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.agent import task_machine as machine
from cluster.agent.task_machine import Report, TaskView, next_step
from cluster.model.task import TaskState, is_ended
from cluster.runtime.base import Exit

S = TaskState
READY_TO_RUN = TaskView(
    S.STARTING, S.RUNNING, is_prepared=True, has_sandbox=True, is_remembered=True
)
RUNNING = replace(READY_TO_RUN, state=S.RUNNING, is_started=True)
STEPS_MAX = 20


@pytest.mark.parametrize(
    ("view", "step"),
    [
        (TaskView(S.ASSIGNED, S.RUNNING), Report(S.ACCEPTED, "accepted")),
        (TaskView(S.ACCEPTED, S.RUNNING), Report(S.PREPARING, "preparing")),
        (TaskView(S.PREPARING, S.RUNNING), machine.Prepare()),
        (TaskView(S.PREPARING, S.RUNNING, is_prepared=True), machine.AwaitSandbox()),
        (
            TaskView(S.PREPARING, S.RUNNING, failure="no image"),
            Report(S.REJECTED, "preparing", "no image"),
        ),
        (
            TaskView(S.PREPARING, S.RUNNING, is_prepared=True, has_sandbox=True),
            Report(S.READY, "prepared"),
        ),
        (TaskView(S.READY, S.READY), machine.Rest()),
        (TaskView(S.READY, S.RUNNING), Report(S.STARTING, "starting")),
        (READY_TO_RUN, machine.Start()),
        (replace(READY_TO_RUN, has_sandbox=False), machine.AwaitSandbox()),
        (replace(READY_TO_RUN, is_prepared=False), machine.Prepare()),
        (replace(READY_TO_RUN, is_remembered=False), machine.AwaitRecord()),
        (replace(READY_TO_RUN, failure="no"), Report(S.FAILED, "starting", "no")),
        (replace(READY_TO_RUN, is_started=True), Report(S.RUNNING, "started")),
        (RUNNING, machine.Rest()),
        (replace(RUNNING, exit=Exit(0)), Report(S.COMPLETE, "finished")),
        (
            replace(RUNNING, exit=Exit(1)),
            Report(S.FAILED, "started", "task: non-zero exit (1)", 1),
        ),
        (replace(RUNNING, desired=S.SHUTDOWN), machine.Drain()),
        (replace(RUNNING, desired=S.SHUTDOWN, is_drained=True), machine.Stop()),
        (
            replace(RUNNING, desired=S.SHUTDOWN, exit=Exit(143)),
            Report(S.SHUTDOWN, "shutdown", exit_code=143),
        ),
        (TaskView(S.ASSIGNED, S.SHUTDOWN), Report(S.SHUTDOWN, "shutdown")),
        (TaskView(S.SHUTDOWN, S.SHUTDOWN), machine.Rest()),
        (TaskView(S.SHUTDOWN, S.SHUTDOWN, is_started=True), machine.Stop()),
        (TaskView(S.FAILED, S.RUNNING, is_deleted=True), machine.Remove()),
        (replace(RUNNING, is_deleted=True), machine.Drain()),
    ],
)
def test_step(view: TaskView, step: machine.Step) -> None:
    assert next_step(view) == step


views = st.builds(
    TaskView,
    state=st.sampled_from(S),
    desired=st.sampled_from([S.READY, S.RUNNING, S.SHUTDOWN, S.REMOVE]),
    is_deleted=st.booleans(),
    is_prepared=st.booleans(),
    is_started=st.booleans(),
    exit=st.none() | st.builds(Exit, st.integers(0, 255)),
    failure=st.sampled_from(["", "failed"]),
    has_sandbox=st.booleans(),
    is_remembered=st.booleans(),
    is_drained=st.booleans(),
)


@given(views)
def test_states_only_grow_and_nothing_is_removed_while_it_runs(view: TaskView) -> None:
    step = next_step(view)
    is_alive = view.is_started and view.exit is None
    match step:
        case Report(state=state):
            assert state > view.state
            assert not (is_alive and is_ended(state))
        case machine.Start():
            assert view.has_sandbox
            assert view.is_prepared
            assert view.is_remembered
            assert not view.is_started
        case machine.Remove():
            assert not is_alive
            assert view.is_deleted
        case machine.Stop():
            assert is_alive
        case _:
            pass


@given(views)
def test_every_task_gets_where_it_is_wanted(view: TaskView) -> None:
    for _ in range(STEPS_MAX):
        step = next_step(view)
        if isinstance(step, machine.Rest | machine.Remove):
            break
        view = _performed(view, step)
    else:
        pytest.fail(f"no end in {view}")
    is_alive = view.is_started and view.exit is None
    if view.is_deleted:
        assert isinstance(step, machine.Remove)
    elif is_ended(view.desired):
        assert is_ended(view.state)
        assert not is_alive
    elif not is_ended(view.state):
        assert view.state is (S.RUNNING if view.state > S.READY else view.desired)


def _performed(view: TaskView, step: machine.Step) -> TaskView:  # noqa: PLR0911  (one per step)
    """Return what is known after a step, all going well."""
    match step:
        case Report(state=state):
            return replace(view, state=state)
        case machine.Prepare():
            return replace(view, is_prepared=True)
        case machine.AwaitSandbox():
            return replace(view, has_sandbox=True)
        case machine.AwaitRecord():
            return replace(view, is_remembered=True)
        case machine.Start():
            return replace(view, is_started=True, exit=None)
        case machine.Drain():
            return replace(view, is_drained=True)
        case machine.Stop():
            return replace(view, exit=Exit(143))
        case _:
            raise AssertionError(step)
