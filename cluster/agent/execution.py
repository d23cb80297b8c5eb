"""A task as the runtime wants it (pure)."""

from __future__ import annotations

from cluster.model.task import Task, hostname, task_name
from cluster.runtime.base import Execution


def identity(task: Task) -> tuple[tuple[str, str], ...]:
    """Return the variables by which a task knows who it is; the spec's own come after them."""
    return (
        ("HIVEWIRE_SERVICE_NAME", task.service_name),
        ("HIVEWIRE_TASK_ID", task.id),
        ("HIVEWIRE_TASK_NAME", task_name(task)),
        ("HIVEWIRE_TASK_SLOT", str(task.slot)),
    )


def execution(task: Task) -> Execution:
    """Return what the runtime needs to run `task`."""
    spec = task.spec
    own = tuple((attachment.address, hostname(task)) for attachment in task.attachments)
    return Execution(
        task_id=task.id,
        name=task_name(task),
        image=spec.image,
        command=spec.command,
        environment=(*identity(task), *spec.environment),
        working_directory=spec.working_directory,
        hostname=hostname(task),
        user=spec.user,
        stop_signal=spec.stop_signal,
        stop_grace_s=spec.stop_grace_s,
        init_hosts=(*own, *spec.hosts),
        memory_bytes_max=spec.limits.memory_bytes,
        nano_cpus_max=spec.limits.nano_cpus,
    )
