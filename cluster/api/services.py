"""`/services`: what users ask to run."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from cluster.api.backend import Backend, EngineFacts
from cluster.api.cautions import cautions
from cluster.api.docker_json.service_spec import (
    read_service_spec,
    warnings_of,
    with_network_ids,
)
from cluster.api.docker_json.service_view import service_statuses, service_view
from cluster.api.exchange import (
    Route,
    answer,
    fresh_snapshot,
    query_flag,
    query_version,
    read_body_untrusted,
    require_manager,
)
from cluster.api.filters import Filters, read_filters_untrusted
from cluster.api.lookup import find_network, find_service
from cluster.control.admission import check_ingress, check_ports
from cluster.control.constraints import parse_constraints
from cluster.model.errors import (
    Conflict,
    FailedPrecondition,
    Invalid,
    OutOfSequence,
    Unimplemented,
)
from cluster.model.ids import ServiceId, is_same_name, new_id
from cluster.model.meta import Meta
from cluster.model.service import Service, ServiceSpec
from cluster.state.changes import ABSENT, DeleteService, PutService
from cluster.state.snapshot import Snapshot

_FILTERS = frozenset({"id", "label", "mode", "name", "runtime"})


class Services:
    """Lists, creates, changes and deletes services."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[Route]:
        """Return the calls that this object answers."""
        return [
            Route("GET", "/services", self.list),
            Route("POST", "/services/create", self.create),
            Route("GET", "/services/{id}", self.inspect),
            Route("POST", "/services/{id}/update", self.update),
            Route("DELETE", "/services/{id}", self.delete),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """Answer with all services that the filters let through."""
        filters = read_filters_untrusted(request.query.get("filters", ""), _FILTERS)
        snapshot = await fresh_snapshot(self._backend)
        statuses = service_statuses(snapshot) if query_flag(request, "status") else {}
        return answer(
            [
                service_view(service, snapshot, status=statuses.get(service.id))
                for _, service in sorted(snapshot.services.items())
                if _matches(service, filters)
            ]
        )

    async def inspect(self, request: web.Request) -> web.Response:
        """Answer with one service."""
        insert_defaults = query_flag(request, "insertDefaults")
        snapshot = await fresh_snapshot(self._backend)
        service = find_service(snapshot, request.match_info["id"])
        return answer(service_view(service, snapshot, insert_defaults=insert_defaults))

    async def create(self, request: web.Request) -> web.Response:
        """Create a service."""
        require_manager(self._backend.membership())
        body = await read_body_untrusted(request)
        service_id = ServiceId(new_id(self._backend.rng))
        name = next((key for key in body if key.lower() == "name"), "Name")
        if not body.get(name):
            body[name] = f"service-{service_id[:8]}"
        spec = read_service_spec(body)
        snapshot = await fresh_snapshot(self._backend)
        spec = _resolve(spec, snapshot)
        _check(spec, service_id, snapshot)
        now = self._backend.now()
        service = Service(id=service_id, spec=spec, meta=Meta(created_at=now, updated_at=now))
        await self._backend.propose([PutService(service, expect=ABSENT)])
        return answer(
            {"ID": service_id, "Warnings": _warnings(spec, snapshot, self._backend.facts())}, 201
        )

    async def update(self, request: web.Request) -> web.Response:
        """Replace a service's spec, or roll it back to the one before."""
        require_manager(self._backend.membership())
        version = query_version(request, "service")
        rollback = request.query.get("rollback", "")
        if rollback not in ("", "previous"):
            raise Invalid('unrecognized rollback option "' + rollback + '"')
        body = await read_body_untrusted(request)
        snapshot = await fresh_snapshot(self._backend)
        service = find_service(snapshot, request.match_info["id"])
        if service.meta.version != version:
            raise OutOfSequence
        spec = _previous(service) if rollback else _resolve(read_service_spec(body), snapshot)
        _check_unchangeable(service.spec, spec)
        _check(spec, service.id, snapshot)
        changed = replace(
            service,
            spec=spec,
            previous_spec=service.spec,
            meta=replace(service.meta, updated_at=self._backend.now()),
        )
        await self._backend.propose([PutService(changed, expect=version)])
        return answer({"Warnings": _warnings(spec, snapshot, self._backend.facts())})

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a service; its tasks are then stopped."""
        snapshot = await fresh_snapshot(self._backend)
        service = find_service(snapshot, request.match_info["id"])
        await self._backend.propose([DeleteService(service.id)])
        return web.Response()


def _warnings(spec: ServiceSpec, snapshot: Snapshot, facts: EngineFacts) -> list[str] | None:
    return [*warnings_of(spec), *cautions(spec, snapshot, facts)] or None


def _previous(service: Service) -> ServiceSpec:
    if service.previous_spec is None:
        raise FailedPrecondition(f"service {service.id} does not have a previous spec")
    return service.previous_spec


def _resolve(spec: ServiceSpec, snapshot: Snapshot) -> ServiceSpec:
    """Replace names of networks by their ids.

    Raises:
        Invalid, NotFound: a network that is not there, is named twice, or is the ingress network.
    """
    networks = {str(a.target): find_network(snapshot, a.target) for a in spec.task.networks}
    for network in networks.values():
        if network.spec.ingress:
            raise Invalid(
                "rpc error: code = InvalidArgument desc = Service cannot be explicitly attached "
                f'to the ingress network "{network.spec.name}"'
            )
    targets = [networks[str(a.target)].id for a in spec.task.networks]
    if len(targets) != len(set(targets)):
        raise Invalid("a network is given more than once")
    return with_network_ids(spec, {name: network.id for name, network in networks.items()})


def _check(spec: ServiceSpec, service_id: ServiceId, snapshot: Snapshot) -> None:
    """Raise what the state has against a spec."""
    parse_constraints(spec.task.placement.constraints)
    for other in snapshot.services.values():
        if is_same_name(other.spec.name, spec.name) and other.id != service_id:
            raise Conflict(
                "rpc error: code = AlreadyExists desc = name conflicts with an existing object: "
                f"service {other.spec.name} already exists"
            )
    check_ingress(spec, snapshot)
    try:
        check_ports(spec, snapshot, service_id)
    except FailedPrecondition as error:
        raise Invalid(f"rpc error: code = InvalidArgument desc = {error}") from None


def _check_unchangeable(old: ServiceSpec, new: ServiceSpec) -> None:
    if old.name != new.name:
        raise Unimplemented(
            "rpc error: code = Unimplemented desc = renaming services is not supported"
        )
    if old.mode is not new.mode:
        raise Unimplemented(
            "rpc error: code = Unimplemented desc = service mode change is not allowed"
        )


def _matches(service: Service, filters: Filters) -> bool:
    return (
        filters.prefix("id", service.id)
        and filters.prefix("name", service.spec.name)
        and filters.exact("mode", service.spec.mode.value)
        and filters.exact("runtime", "container")
        and filters.labels("label", service.spec.labels)
    )
