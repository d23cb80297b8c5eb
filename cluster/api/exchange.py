"""One request and its answer: bodies, queries, and who may ask.

Invariants: error bodies are JSON, with the content type exactly `application/json` (with a charset
the docker CLI prints the raw JSON).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from aiohttp import http_exceptions, web

from cluster.api.backend import Backend, LocalState, Membership
from cluster.api.docker_json.fields import UINT64_MAX, Json, decode_object_untrusted
from cluster.api.errors import (
    LOCKED,
    NO_LEADER,
    NOT_A_MANAGER,
    NOT_IN_SWARM,
    PREPARING,
    NotAllowed,
    TooLarge,
)
from cluster.model.cluster import Cluster
from cluster.model.errors import Invalid, Unavailable
from cluster.state.snapshot import Snapshot

BODY_BYTES_MAX = 4 * 1024 * 1024
"""Largest request body; consensus takes less than that anyway."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One call of the API; served with and without a version prefix."""

    method: str
    path: str
    handler: Handler


def answer(value: object, status: int = 200) -> web.Response:
    """Return a JSON response."""
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json"
    )


def refusal(status: int, message: str) -> web.Response:
    """Return an error in Docker's form."""
    return answer({"message": message}, status)


async def read_body_untrusted(request: web.Request) -> Json:
    """Return the request's JSON object.

    Raises:
        Invalid, TooLarge: it is none; or too large.
    """
    if (request.content_length or 0) > BODY_BYTES_MAX:
        raise TooLarge(_TOO_LARGE)
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise TooLarge(_TOO_LARGE) from None
    except (web.RequestPayloadError, http_exceptions.BadHttpMessage) as error:
        raise Invalid(f"the request body cannot be read: {error}") from None
    if body and request.content_type != "application/json":
        raise Invalid(
            f"unsupported Content-Type header ({request.content_type}): must be 'application/json'"
        )
    return decode_object_untrusted(body)


_TOO_LARGE = f"the request body is larger than {BODY_BYTES_MAX} bytes"


def query_flag(request: web.Request, name: str) -> bool:
    """Return a boolean of the query; Docker takes everything but these words as true."""
    return request.query.get(name, "").lower() not in ("", "0", "no", "false", "none")


def query_version(request: web.Request, kind: str) -> int:
    """Return the `version` of the query.

    Raises:
        Invalid: it is missing or no number.
    """
    text = request.query.get("version", "")
    if not (text.isascii() and text.isdecimal()) or len(text) > len(str(UINT64_MAX)):
        raise Invalid(
            f"invalid {kind} version '{text}': strconv.ParseUint: parsing \"{text}\": "
            "invalid syntax"
        )
    return int(text)


def require_manager(membership: Membership) -> None:
    """Raise NotAllowed, with Swarm's words, unless this node is an active manager."""
    match membership.state:
        case LocalState.ACTIVE if membership.is_manager:
            return
        case LocalState.ACTIVE:
            raise NotAllowed(NOT_A_MANAGER)
        case LocalState.LOCKED:
            raise NotAllowed(LOCKED)
        case LocalState.PENDING if membership.node is not None:
            raise NotAllowed(PREPARING)
        case LocalState.INACTIVE | LocalState.PENDING | LocalState.ERROR:
            raise NotAllowed(NOT_IN_SWARM)


async def fresh_snapshot(backend: Backend) -> Snapshot:
    """Return the state with everything committed before this call.

    Raises:
        NotAllowed: this node is no manager. Unavailable: there is no leader.
    """
    require_manager(backend.membership())
    try:
        await backend.read_barrier()
    except Unavailable as error:
        raise Unavailable(NO_LEADER) from error
    return backend.snapshot()


def require_cluster(snapshot: Snapshot) -> Cluster:
    """Return the cluster object; a manager that has just started may not have it yet."""
    if snapshot.cluster is None:
        raise Unavailable("this manager has not caught up with the cluster yet; try again")
    return snapshot.cluster
