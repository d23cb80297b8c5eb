"""When a task that ended by itself is replaced: Swarm's restart policy (pure).

Attempts are counted from the slot's history, so a new leader counts as the old one did (Swarm keeps
the count in memory and starts anew); the reaper keeps enough of it. The window ends when the task
did, not now: what was refused stays refused.
"""

from __future__ import annotations

from itertools import pairwise

from cluster.control.slots import Slot
from cluster.model.service import RestartCondition, RestartPolicy
from cluster.model.task import Task, TaskState

ENDED_BY_ITSELF = frozenset({TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED})
"""States of a task that nobody stopped."""


def restart_at(policy: RestartPolicy, slot: Slot, now: float) -> float | None:
    """Return when to replace the newest task of `slot`, which ended by itself; None: never."""
    task = slot.newest
    if policy.condition is RestartCondition.NONE:
        return None
    if policy.condition is RestartCondition.ON_FAILURE and task.status.state is TaskState.COMPLETE:
        return None
    ended_at = _ended_at(task, now)
    if policy.attempts_max and _attempts(policy, slot, ended_at) >= policy.attempts_max:
        return None
    return ended_at + policy.delay_s


def history_needed(policy: RestartPolicy) -> int:
    """Return how many ended tasks of a slot the count of attempts needs."""
    return policy.attempts_max + 1 if policy.attempts_max else 0


def _attempts(policy: RestartPolicy, slot: Slot, ended_at: float) -> int:
    """Count the restarts of the current spec that the policy's window sees."""
    spec = slot.newest.spec
    tasks = [t for t in slot.tasks if t.spec == spec and t.desired_state < TaskState.REMOVE]
    since = ended_at - policy.window_s if policy.window_s else float("-inf")
    return sum(
        previous.status.state in ENDED_BY_ITSELF and task.meta.created_at >= since
        for previous, task in pairwise(tasks)
    )


def _ended_at(task: Task, now: float) -> float:
    """Return when `task` ended, by our clock as well as it can be told.

    The node's clock said so. One that is ahead would postpone the restart for as long, one that is
    behind would skip the delay: the time of creation, by a manager's clock, bounds both.
    """
    created_at = task.meta.created_at
    return created_at if task.status.timestamp > now else max(task.status.timestamp, created_at)
