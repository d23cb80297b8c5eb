"""`/swarm`: making, joining, leaving and changing the cluster."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from cluster.api.backend import Backend, LocalState, RaftView, Reachability
from cluster.api.docker_json.cluster import (
    cluster_view,
    read_cluster_spec,
    read_init,
    read_join,
    tokens_view,
)
from cluster.api.errors import ALREADY_IN_SWARM, NOT_PART_OF_SWARM, NotAllowed
from cluster.api.exchange import (
    Route,
    answer,
    fresh_snapshot,
    query_flag,
    query_version,
    read_body_untrusted,
    require_cluster,
    require_manager,
)
from cluster.api.tls_info import tls_info
from cluster.model.cluster import JoinTokens
from cluster.model.errors import Conflict, FailedPrecondition, Unimplemented
from cluster.state.changes import PutCluster

LEAVE_WARNING = (
    "The only way to restore a swarm that has lost consensus is to reinitialize it with "
    "`--force-new-cluster`. Use `--force` to suppress this message."
)


class Swarm:
    """This node's membership, and the cluster's settings."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[Route]:
        """Return the calls that this object answers."""
        return [
            Route("GET", "/swarm", self.inspect),
            Route("POST", "/swarm/init", self.init),
            Route("POST", "/swarm/join", self.join),
            Route("POST", "/swarm/leave", self.leave),
            Route("POST", "/swarm/update", self.update),
            Route("GET", "/swarm/unlockkey", self.unlock_key),
            Route("POST", "/swarm/unlock", self.unlock),
        ]

    async def inspect(self, _request: web.Request) -> web.Response:
        """Answer with the cluster and its join tokens."""
        cluster = require_cluster(await fresh_snapshot(self._backend))
        view = cluster_view(cluster, tls_info(cluster.ca_certificate))
        return answer({**view, "JoinTokens": tokens_view(cluster.join_tokens)})

    async def init(self, request: web.Request) -> web.Response:
        """Make a new cluster."""
        wish = read_init(await read_body_untrusted(request))
        if not wish.force_new_cluster:
            self._require_outside()
        try:
            return answer(await self._backend.swarm_init(wish))
        except FailedPrecondition as error:
            raise NotAllowed(str(error)) from None

    async def join(self, request: web.Request) -> web.Response:
        """Join a cluster."""
        wish = read_join(await read_body_untrusted(request))
        self._require_outside()
        try:
            await self._backend.swarm_join(wish)
        except FailedPrecondition as error:
            raise NotAllowed(str(error)) from None
        return web.Response()

    async def leave(self, request: web.Request) -> web.Response:
        """Leave the cluster; a manager must insist."""
        force = query_flag(request, "force")
        membership = self._backend.membership()
        if membership.state is LocalState.INACTIVE:
            raise NotAllowed(NOT_PART_OF_SWARM)
        if membership.is_manager and not force:
            raise NotAllowed(leave_warning(self._backend.raft_view()))
        await self._backend.swarm_leave(force=force)
        return web.Response()

    async def update(self, request: web.Request) -> web.Response:
        """Change the settings, or replace join tokens."""
        require_manager(self._backend.membership())
        version = query_version(request, "swarm")
        body = await read_body_untrusted(request)
        if query_flag(request, "rotateManagerUnlockKey"):
            raise Unimplemented("autolock is not offered yet: there is no unlock key to rotate")
        cluster = require_cluster(await fresh_snapshot(self._backend))
        tokens = cluster.join_tokens
        if query_flag(request, "rotateWorkerToken"):
            tokens = JoinTokens(self._backend.new_join_token(cluster), tokens.manager)
        if query_flag(request, "rotateManagerToken"):
            tokens = JoinTokens(tokens.worker, self._backend.new_join_token(cluster))
        changed = replace(
            cluster,
            spec=read_cluster_spec(body, cluster.spec),
            join_tokens=tokens,
            meta=replace(cluster.meta, updated_at=self._backend.now()),
        )
        await self._backend.propose([PutCluster(changed, expect=version)])
        return web.Response()

    async def unlock_key(self, _request: web.Request) -> web.Response:
        """Answer that there is no unlock key."""
        require_manager(self._backend.membership())
        return answer({"UnlockKey": ""})

    async def unlock(self, _request: web.Request) -> web.Response:
        """Refuse: nothing is ever locked."""
        if self._backend.membership().state is LocalState.INACTIVE:
            raise NotAllowed(NOT_PART_OF_SWARM)
        raise Conflict("swarm is not locked")

    def _require_outside(self) -> None:
        if self._backend.membership().state is not LocalState.INACTIVE:
            raise NotAllowed(ALREADY_IN_SWARM)


def leave_warning(raft: RaftView) -> str:
    """Return Swarm's words for a manager that leaves without `--force`."""
    text = "You are attempting to leave the swarm on a node that is participating as a manager. "
    members = len(raft.reachability)
    reachable = sum(r is Reachability.REACHABLE for r in raft.reachability.values())
    if members <= 1:
        return (
            f"{text}Removing the last manager erases all current state of the swarm. Use "
            "`--force` to ignore this message. "
        )
    if reachable - 1 < members // 2 + 1:
        text += (
            f"Removing this node leaves {reachable - 1} managers out of {members}. Without a Raft "
            "quorum your swarm will be inaccessible. "
        )
    return text + LEAVE_WARNING
