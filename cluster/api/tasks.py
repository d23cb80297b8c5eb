"""`/tasks`: attempts at running replicas."""

from __future__ import annotations

from aiohttp import web

from cluster.api.backend import Backend
from cluster.api.docker_json.task import state_name, task_view
from cluster.api.exchange import Route, answer, fresh_snapshot
from cluster.api.filters import Filters, read_filters_untrusted
from cluster.api.lookup import find_task
from cluster.control.slots import is_outdated
from cluster.model.errors import Invalid
from cluster.model.task import Task, task_name
from cluster.state.snapshot import Snapshot

_FILTERS = frozenset({
    "_up-to-date", "desired-state", "id", "label", "name", "node", "runtime", "service",
})  # fmt: skip
_DESIRED_STATES = frozenset({"running", "shutdown", "accepted", "ready", "complete", "remove"})


class Tasks:
    """Lists tasks."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[Route]:
        """Return the calls that this object answers."""
        return [
            Route("GET", "/tasks", self.list),
            Route("GET", "/tasks/{id}", self.inspect),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """Answer with all tasks that the filters let through."""
        filters = read_filters_untrusted(request.query.get("filters", ""), _FILTERS)
        for state in filters.values("desired-state"):
            if state not in _DESIRED_STATES:
                raise Invalid(f"invalid filter 'desired-state={state}'")
        filters.flag("_up-to-date")
        snapshot = await fresh_snapshot(self._backend)
        return answer(
            [
                task_view(task, snapshot)
                for _, task in sorted(snapshot.tasks.items())
                if _matches(task, snapshot, filters)
            ]
        )

    async def inspect(self, request: web.Request) -> web.Response:
        """Answer with one task."""
        snapshot = await fresh_snapshot(self._backend)
        return answer(task_view(find_task(snapshot, request.match_info["id"]), snapshot))


def _matches(task: Task, snapshot: Snapshot, filters: Filters) -> bool:
    up_to_date = filters.flag("_up-to-date")
    node = snapshot.nodes.get(task.node) if task.node else None
    return (
        filters.prefix("id", task.id)
        and filters.prefix("name", task_name(task))
        and filters.prefix("service", task.service, task.service_name)
        and filters.prefix("node", task.node or "", node.description.hostname if node else "")
        and filters.exact("desired-state", state_name(task.desired_state))
        and filters.exact("runtime", "container")
        and filters.labels("label", task.service_labels)
        and (up_to_date is None or up_to_date is _is_up_to_date(task, snapshot))
    )


def _is_up_to_date(task: Task, snapshot: Snapshot) -> bool:
    service = snapshot.services.get(task.service)
    return service is not None and not is_outdated(service, task)
