"""`/hivewire/gossip/...`: what this node believes, since when and from whom; hivewire's own calls.

They are answered on every node, workers included, from what the node has in memory: no manager is
asked, so that nodes can be compared when they disagree.
"""

from __future__ import annotations

from aiohttp import web

from cluster.api.backend import Backend, LocalGossip, LocalState
from cluster.api.docker_json.fields import Json
from cluster.api.docker_json.text import timestamp
from cluster.api.errors import NOT_PART_OF_SWARM, NotAllowed
from cluster.api.exchange import Route, answer
from cluster.model.errors import NotFound, Unavailable
from gossip.peer import KeyView, LogView, MemberView, State, StoredView

PREFIX = "/hivewire/gossip"
_ADVICE = 'use "swarm init" or "swarm join" to make it part of one'


class Gossip:
    """Shows the gossip layer of this node."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[Route]:
        """Return the calls that this object answers."""
        return [
            Route("GET", f"{PREFIX}/members", self.members),
            Route("GET", f"{PREFIX}/tables", self.tables),
            Route("GET", f"{PREFIX}/tables/{{scope}}", self.records),
            Route("GET", f"{PREFIX}/keys", self.keys),
        ]

    async def members(self, _request: web.Request) -> web.Response:
        """Answer with all members that this node knows of, itself first."""
        local = self._local()
        return answer([_member(view, local) for view in local.peer.members()])

    async def tables(self, _request: web.Request) -> web.Response:
        """Answer with the logs held: one for each owner in each scope."""
        local = self._local()
        return answer([_log(view, local) for view in local.peer.logs()])

    async def records(self, request: web.Request) -> web.Response:
        """Answer with the records held in one scope, which the id or the name of a network is."""
        local = self._local()
        wanted = request.match_info["scope"]
        for scope in {view.scope for view in local.peer.logs()}:
            if wanted in (scope, local.names.get(scope)):
                return answer([_record(view, local) for view in local.peer.stored(scope)])
        raise NotFound(f"this node holds no table {wanted!r}")

    async def keys(self, _request: web.Request) -> web.Response:
        """Answer with the key ring, without the keys."""
        local = self._local()
        ring = local.peer.keys()
        return answer([_key(view, local) for view in ring])

    def _local(self) -> LocalGossip:
        local = self._backend.gossip()
        if local is not None:
            return local
        if self._backend.membership().state is LocalState.INACTIVE:
            raise NotAllowed(f"{NOT_PART_OF_SWARM}: {_ADVICE}")
        raise Unavailable("no manager has told this node about its swarm yet; try again")


def _member(view: MemberView, local: LocalGossip) -> Json:
    ends_at, source = view.suspicion_ends_at, view.accuser or view.node_id
    if view.state is State.LEFT and view.accuser is None:
        source = ""  # a manager said so over the session, and none in gossip yet
    return {
        "ID": view.node_id,
        "Name": local.names.get(view.node_id, ""),
        "Self": view.node_id == local.peer.node_id,
        "State": view.state.name.lower(),
        "Since": timestamp(local.peer.unix_s(view.since)),
        "From": source,
        "FromName": local.names.get(source, ""),
        "SuspicionEnds": None if ends_at is None else timestamp(local.peer.unix_s(ends_at)),
        "Address": f"{view.address}:{view.port}",
        "DataAddress": view.data_address,
        "Epoch": view.epoch,
        "Incarnation": view.incarnation,
        "RoundTripSeconds": view.round_trip_s,
        "RelayOnly": view.is_relay_only,
    }


def _log(view: LogView, local: LocalGossip) -> Json:
    return {
        "Scope": view.scope,
        "ScopeName": local.names.get(view.scope, view.scope),
        "Owner": view.owner,
        "OwnerName": local.names.get(view.owner, ""),
        "Epoch": view.epoch,
        "Attachment": view.attachment,
        "Version": view.version,
        "CollectedVersion": view.gc,
        "Records": view.records,
        "Tombstones": view.tombstones,
        "SizeBytes": view.size_bytes,
        "Visible": view.is_visible,
        "Written": timestamp(view.written_at),
    }


def _record(view: StoredView, local: LocalGossip) -> Json:
    return {
        "Owner": view.owner,
        "OwnerName": local.names.get(view.owner, ""),
        "Key": view.key,
        "Version": view.version,
        "SizeBytes": view.size_bytes or 0,
        "Deleted": view.size_bytes is None,
        "Visible": view.is_visible,
        "Written": timestamp(view.written_at),
    }


def _key(view: KeyView, local: LocalGossip) -> Json:
    return {
        "ID": view.key_id,
        "State": view.state.value,
        "Since": None if view.since is None else timestamp(local.peer.unix_s(view.since)),
        "Opened": view.opened,
    }
