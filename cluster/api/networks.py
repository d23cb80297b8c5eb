"""`/networks`: overlay networks."""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import web

from cluster.api.backend import Backend
from cluster.api.docker_json.network import network_view, network_warning, read_network_spec
from cluster.api.errors import NotAllowed
from cluster.api.exchange import (
    Route,
    answer,
    fresh_snapshot,
    query_flag,
    read_body_untrusted,
    require_manager,
)
from cluster.api.filters import Filters, read_filters_untrusted
from cluster.api.lookup import find_network
from cluster.control.admission import validate_network
from cluster.model.errors import (
    Conflict,
    FailedPrecondition,
    Forbidden,
    NotFound,
    Unimplemented,
)
from cluster.model.ids import NetworkId, is_same_name, new_id
from cluster.model.meta import Meta
from cluster.model.network import Network, NetworkSpec
from cluster.model.task import TaskState
from cluster.state.changes import ABSENT, DeleteNetwork, PutNetwork
from cluster.state.snapshot import Snapshot

ENDING_TASKS_TIMEOUT_S = 20.0
"""Twice the default grace period of a task that is told to stop."""
_FILTERS = frozenset({"driver", "id", "label", "name", "scope", "type", "dangling"})
_PRUNE_FILTERS = frozenset({"label", "label!", "until"})


class Networks:
    """Lists, creates and deletes networks."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[Route]:
        """Return the calls that this object answers."""
        return [
            Route("GET", "/networks", self.list),
            Route("POST", "/networks/create", self.create),
            Route("POST", "/networks/prune", self.prune),
            Route("GET", "/networks/{id}", self.inspect),
            Route("DELETE", "/networks/{id}", self.delete),
            Route("POST", "/networks/{id}/connect", self.connect),
            Route("POST", "/networks/{id}/disconnect", self.connect),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """Answer with all networks that the filters let through; none outside a cluster."""
        filters = read_filters_untrusted(request.query.get("filters", ""), _FILTERS)
        filters.flag("dangling")
        if not self._backend.membership().is_manager:
            return answer([])
        snapshot = await fresh_snapshot(self._backend)
        return answer(
            [
                network_view(network, snapshot)
                for network in snapshot.networks.values()
                if _matches(network, snapshot, filters)
            ]
        )

    async def inspect(self, request: web.Request) -> web.Response:
        """Answer with one network."""
        name = request.match_info["id"]
        if not self._backend.membership().is_manager:
            raise NotFound(f"network {name} not found")
        snapshot = await fresh_snapshot(self._backend)
        network = find_network(snapshot, name)
        if request.query.get("scope", "swarm") not in ("", "swarm", "global"):
            raise NotFound(f"network {name} not found")
        verbose = query_flag(request, "verbose")
        return answer(network_view(network, snapshot, detail=True, verbose=verbose))

    async def create(self, request: web.Request) -> web.Response:
        """Create a network."""
        body = await read_body_untrusted(request)
        try:
            require_manager(self._backend.membership())
        except NotAllowed as error:
            raise Forbidden(str(error)) from None  # Docker answers 403 here
        spec = read_network_spec(body)
        snapshot = await fresh_snapshot(self._backend)
        _check_network(spec, snapshot)
        now = self._backend.now()
        network = Network(
            id=NetworkId(new_id(self._backend.rng)),
            spec=spec,
            meta=Meta(created_at=now, updated_at=now),
        )
        await self._backend.propose([PutNetwork(network, expect=ABSENT)])
        return answer({"Id": network.id, "Warning": network_warning(spec)}, 201)

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a network that nothing uses; waits for tasks that are just being stopped.

        `docker stack rm` deletes the services, and then at once their networks.
        """
        snapshot = await fresh_snapshot(self._backend)
        network = find_network(snapshot, request.match_info["id"])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ENDING_TASKS_TIMEOUT_S):
                await self._wait_for_ending_tasks(network.id)
        await self._backend.propose([DeleteNetwork(network.id)])
        return web.Response(status=204)

    async def _wait_for_ending_tasks(self, network_id: NetworkId) -> None:
        with self._backend.watch() as changed:
            while _is_kept_by_ending_tasks(self._backend.snapshot(), network_id):
                await changed.wait()
                changed.clear()

    async def prune(self, request: web.Request) -> web.Response:
        """Delete all networks that nothing uses, but ingress."""
        filters = read_filters_untrusted(request.query.get("filters", ""), _PRUNE_FILTERS)
        if filters.values("until") or filters.values("label!"):
            raise Unimplemented("network prune: only the label filter is offered")
        deleted: list[str] = []
        if self._backend.membership().is_manager:
            snapshot = await fresh_snapshot(self._backend)
            for network in snapshot.networks.values():
                if network.spec.ingress or not filters.labels("label", network.spec.labels):
                    continue
                if await self._delete_if_unused(network.id):
                    deleted.append(network.spec.name)
        return answer({"NetworksDeleted": deleted or None})

    async def _delete_if_unused(self, network_id: NetworkId) -> bool:
        try:
            await self._backend.propose([DeleteNetwork(network_id)])
        except (FailedPrecondition, NotFound):
            return False
        return True

    async def connect(self, request: web.Request) -> web.Response:
        """Refuse: there are no single containers to connect."""
        await read_body_untrusted(request)
        find_network(await fresh_snapshot(self._backend), request.match_info["id"])
        raise Unimplemented("there are no single containers here to connect to a network")


def _check_network(spec: NetworkSpec, snapshot: Snapshot) -> None:
    """Raise what the state has against a new network."""
    for other in snapshot.networks.values():
        if is_same_name(other.spec.name, spec.name):
            raise Conflict(f"network with name {other.spec.name} already exists")
        if other.spec.ingress and spec.ingress:
            raise Conflict(
                f"rpc error: code = AlreadyExists desc = ingress network ({other.id}) is already "
                "present"
            )
    validate_network(spec, snapshot)


def _is_kept_by_ending_tasks(snapshot: Snapshot, network_id: NetworkId) -> bool:
    """Return whether nothing keeps a network but tasks that are to stop."""
    tasks = [
        task
        for task in snapshot.tasks.values()
        if task.status.state <= TaskState.RUNNING
        and any(a.network == network_id for a in task.attachments)
    ]
    return (
        bool(tasks)
        and not _is_used(network_id, snapshot)
        and all(
            task.service not in snapshot.services or task.desired_state > TaskState.RUNNING
            for task in tasks
        )
    )


def _is_used(network_id: NetworkId, snapshot: Snapshot) -> bool:
    return any(
        attachment.target == network_id
        for service in snapshot.services.values()
        for attachment in service.spec.task.networks
    )


def _matches(network: Network, snapshot: Snapshot, filters: Filters) -> bool:
    dangling = filters.flag("dangling")
    return (
        filters.prefix("id", network.id)
        and filters.contains("name", network.spec.name)
        and filters.exact("driver", network.spec.driver)
        and filters.exact("scope", "swarm", "global")
        and filters.exact("type", "builtin" if network.spec.ingress else "custom")
        and filters.labels("label", network.spec.labels)
        and (dangling is None or dangling is not _is_used(network.id, snapshot))
    )
