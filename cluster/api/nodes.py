"""`/nodes`: members of the cluster."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from cluster.api.backend import Backend
from cluster.api.docker_json.node import node_view, read_node_spec
from cluster.api.exchange import (
    Route,
    answer,
    fresh_snapshot,
    query_flag,
    query_version,
    read_body_untrusted,
    require_cluster,
)
from cluster.api.filters import Filters, read_filters_untrusted
from cluster.api.lookup import find_node, node_name
from cluster.api.tls_info import tls_info
from cluster.model.errors import FailedPrecondition
from cluster.model.node import Node, NodeState, Role
from cluster.state.changes import DeleteNode, PutNode

_FILTERS = frozenset({"id", "label", "node.label", "membership", "name", "role"})


class Nodes:
    """Lists and changes nodes."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[Route]:
        """Return the calls that this object answers."""
        return [
            Route("GET", "/nodes", self.list),
            Route("GET", "/nodes/{id}", self.inspect),
            Route("POST", "/nodes/{id}/update", self.update),
            Route("DELETE", "/nodes/{id}", self.delete),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """Answer with all nodes that the filters let through."""
        filters = read_filters_untrusted(request.query.get("filters", ""), _FILTERS)
        snapshot = await fresh_snapshot(self._backend)
        tls = tls_info(require_cluster(snapshot).ca_certificate)
        raft = self._backend.raft_view()
        return answer(
            [
                node_view(node, raft, tls)
                for _, node in sorted(snapshot.nodes.items())
                if _matches(node, filters)
            ]
        )

    async def inspect(self, request: web.Request) -> web.Response:
        """Answer with one node."""
        snapshot = await fresh_snapshot(self._backend)
        node = find_node(snapshot, request.match_info["id"])
        tls = tls_info(require_cluster(snapshot).ca_certificate)
        return answer(node_view(node, self._backend.raft_view(), tls))

    async def update(self, request: web.Request) -> web.Response:
        """Change labels or availability."""
        version = query_version(request, "node")
        body = await read_body_untrusted(request)
        snapshot = await fresh_snapshot(self._backend)
        node = find_node(snapshot, request.match_info["id"])
        changed = replace(
            node,
            spec=read_node_spec(body, node.spec),
            meta=replace(node.meta, updated_at=self._backend.now()),
        )
        await self._backend.propose([PutNode(changed, expect=version)])
        return web.Response()

    async def delete(self, request: web.Request) -> web.Response:
        """Remove a node that is down (with `force`: any worker); it stays out."""
        snapshot = await fresh_snapshot(self._backend)
        node = find_node(snapshot, request.match_info["id"])
        if node.id in self._backend.raft_view().reachability or (
            node.spec.role is Role.MANAGER and node.id == self._backend.membership().node
        ):
            raise FailedPrecondition(
                f"node {node.id} is a cluster manager and is a member of the raft cluster. It "
                "must be demoted to worker before removal"
            )
        if node.state is not NodeState.DOWN and not query_flag(request, "force"):
            raise FailedPrecondition(f"node {node.id} is not down and can't be removed")
        await self._backend.propose([DeleteNode(node.id, timestamp=self._backend.now())])
        return web.Response()


def _matches(node: Node, filters: Filters) -> bool:
    return (
        filters.prefix("id", node.id)
        and filters.prefix("name", node_name(node))
        and filters.exact("role", node.spec.role.value)
        and filters.exact("membership", "accepted")
        and filters.labels("label", node.description.engine_labels)
        and filters.labels("node.label", node.spec.labels)
    )
