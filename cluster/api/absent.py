"""What a Docker engine has and hivewire has not: empty lists and clean refusals.

`docker inspect X` asks containers, images, networks, volumes and plugins before services, and goes
on only after a 404 of the right form.
"""

from __future__ import annotations

from aiohttp import web

from cluster.api.backend import Backend
from cluster.api.exchange import Handler, Route, answer, read_body_untrusted, require_manager
from cluster.model.errors import NotFound, Unimplemented

_MISSING = (
    ("/containers/{id}/json", "No such container: {}"),
    ("/images/{id:.+}/json", "No such image: {}"),
    ("/volumes/{id}", "get {}: no such volume"),
    ("/plugins/{id:.+}/json", 'plugin "{}" not found'),
)
_EMPTY = ("/containers/json", "/images/json", "/plugins")


class Absent:
    """Answers for kinds of objects that do not exist here."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[Route]:
        """Return the calls that this object answers."""
        routes = [Route("GET", path, self.empty_list) for path in _EMPTY]
        routes.append(Route("GET", "/volumes", self.volumes))
        routes += [Route("GET", path, _missing(text)) for path, text in _MISSING]
        for kind in ("secrets", "configs"):
            routes += [
                Route("GET", f"/{kind}", self.swarm_list),
                Route("POST", f"/{kind}/create", self.not_offered),
                Route("GET", f"/{kind}/{{id}}", _missing(f"{kind[:-1]} {{}} not found")),
                Route("DELETE", f"/{kind}/{{id}}", _missing(f"{kind[:-1]} {{}} not found")),
                Route("POST", f"/{kind}/{{id}}/update", _missing(f"{kind[:-1]} {{}} not found")),
            ]
        routes.append(Route("GET", "/distribution/{name:.+}/json", self.distribution))
        routes.append(Route("POST", "/containers/create", self.no_containers))
        return routes

    async def empty_list(self, _request: web.Request) -> web.Response:
        """Answer that there is none."""
        return answer([])

    async def volumes(self, _request: web.Request) -> web.Response:
        """Answer that there is none."""
        return answer({"Volumes": [], "Warnings": None})

    async def swarm_list(self, _request: web.Request) -> web.Response:
        """Answer that there is none, to those who may ask."""
        require_manager(self._backend.membership())
        return answer([])

    async def not_offered(self, request: web.Request) -> web.Response:
        """Refuse to create a secret or config."""
        require_manager(self._backend.membership())
        await read_body_untrusted(request)
        raise Unimplemented("secrets and configs are not offered yet")

    async def no_containers(self, _request: web.Request) -> web.Response:
        """Refuse to create a container."""
        raise Unimplemented(
            "hivewire runs services, not single containers: use 'docker service create'"
        )

    async def distribution(self, request: web.Request) -> web.Response:
        """Answer as for an image that no registry knows: the CLI warns, and goes on."""
        name = request.match_info["name"]
        raise NotFound(f"{name} is no image in a registry: tasks run as processes")


def _missing(text: str) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        raise NotFound(text.format(request.match_info["id"]))

    return handler
