"""The HTTP endpoints of port 2377: a table of who may call what.

Anyone: the CA certificate, and joining (by token). Nodes of this cluster: renewal and sessions.
Managers: Raft membership, sightings, logs. Bodies are msgpack, of bounded size; an error is an
ErrorBody, and its text is also in the header ERROR_HEADER, where a refused WebSocket can say why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from ipaddress import ip_address
from typing import TypeVar
from urllib.parse import quote

from aiohttp import web

from cluster.ca.certificates import CertificateError, PeerIdentity
from cluster.ca.tls import identity_of
from cluster.dispatch.admission import Admission
from cluster.dispatch.channel import CLOSE_S, ChannelClosed, CloseCode, WebSocketChannel
from cluster.dispatch.messages import (
    NODE_MESSAGE_BYTES_MAX,
    MalformedMessage,
    ManagerAddress,
)
from cluster.dispatch.requests import (
    CA_PATH,
    CONTENT_TYPE,
    ERROR_HEADER,
    JOIN_PATH,
    LOGS_PATH,
    RAFT_JOIN_PATH,
    RENEW_PATH,
    REPORT_BYTES_MAX,
    REQUEST_BYTES_MAX,
    SESSION_PATH,
    SIGHTINGS_PATH,
    Body,
    ErrorBody,
    JoinRequest,
    LogPage,
    LogQuery,
    RaftJoinRequest,
    RaftJoinResponse,
    RenewRequest,
    RenewResponse,
    SightingReport,
    decode_untrusted,
    encode_body,
)
from cluster.dispatch.server import SessionServer
from cluster.model.errors import ClusterError, Forbidden, Unavailable
from cluster.model.ids import ClusterId
from cluster.store.replica import Replica
from cluster.task_group import TaskGroup

logger = logging.getLogger(__name__)

RENEWAL_GRACE_S = 365 * 24 * 3600.0
"""How long after its end a certificate can still be renewed: a cluster that was off for a season
comes back by itself. The node must still be a member."""
BODY_S = 10.0
"""How long a request's body may take."""
_STATUS = {
    "Invalid": HTTPStatus.BAD_REQUEST,
    "NotFound": HTTPStatus.NOT_FOUND,
    "Conflict": HTTPStatus.CONFLICT,
    "Forbidden": HTTPStatus.FORBIDDEN,
    "FailedPrecondition": HTTPStatus.BAD_REQUEST,
    "OutOfSequence": HTTPStatus.CONFLICT,
    "Unimplemented": HTTPStatus.NOT_IMPLEMENTED,
    "Unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
}
_B = TypeVar("_B", bound=Body)

RaftJoin = Callable[[PeerIdentity, str], Awaitable[tuple[ManagerAddress, ...]]]
"""(who, `host:port`) -> the members; on a follower it asks the leader."""

ReadBarrier = Callable[[], Awaitable[object]]
"""Returns once this manager knows all that was committed before the call; raises Unavailable."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The handlers, and what they need."""

    cluster: ClusterId
    replica: Replica
    admission: Admission
    sessions: SessionServer
    raft_join: RaftJoin
    read_barrier: ReadBarrier
    has_caught_up: Callable[[], bool]
    """Whether this manager, since it was started, has known all that was committed: before that it
    may have been removed itself, and would tell nodes what was true long ago."""
    clock: Callable[[], float]

    def application(self) -> web.Application:
        """Return the web application of port 2377."""
        application = web.Application(
            middlewares=[_errors_as_bodies], client_max_size=REPORT_BYTES_MAX
        )
        application.add_routes(
            [
                web.get(CA_PATH, self._ca),
                web.post(JOIN_PATH, self._join),
                web.post(RENEW_PATH, self._renew),
                web.post(RAFT_JOIN_PATH, self._raft_join),
                web.get(SESSION_PATH, self._session),
                web.post(SIGHTINGS_PATH, self._sightings),
                web.get(LOGS_PATH, self._logs),
            ]
        )
        return application

    # Anyone.

    async def _ca(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self.admission.authority().root.certificate,
            content_type="application/x-pem-file",
        )

    async def _join(self, request: web.Request) -> web.Response:
        body = await _body(request, JoinRequest, REQUEST_BYTES_MAX)
        return _response(await self.admission.join(body, remote_address(request)))

    # Nodes of this cluster.

    async def _renew(self, request: web.Request) -> web.Response:
        identity = self._identity(request, max_expired_s=RENEWAL_GRACE_S)
        body = await _body(request, RenewRequest, REQUEST_BYTES_MAX)
        # A manager that is cut off may not know that the node was removed, and a certificate from
        # it would outlive what the others remember of the node.
        await self.read_barrier()
        return _response(RenewResponse(await self.admission.renew(identity, body.csr)))

    async def _session(self, request: web.Request) -> web.StreamResponse:
        identity = self._identity(request)
        is_removed = await self._is_removed(identity)
        socket = web.WebSocketResponse(
            max_msg_size=NODE_MESSAGE_BYTES_MAX, compress=False, timeout=CLOSE_S
        )
        await socket.prepare(request)
        channel = WebSocketChannel(socket)
        if is_removed:
            await self.sessions.send_away_removed(channel, identity)
        else:
            await self.sessions.serve(channel, identity, remote_address(request))
        return socket

    async def _is_removed(self, identity: PeerIdentity) -> bool:
        """Return whether the cluster has removed the node, perhaps while it was off.

        It stops all its tasks on that word, so a manager that is behind does not give it.

        Raises:
            Unavailable: that cannot be known now.
        """
        if not self.has_caught_up():
            raise Unavailable("this manager has not caught up with the others yet, try again")
        if identity.node in self.replica.snapshot().nodes:
            return False
        await self.read_barrier()
        return identity.node not in self.replica.snapshot().nodes

    # Managers.

    async def _raft_join(self, request: web.Request) -> web.Response:
        identity = self._identity(request)
        self.admission.manager(identity)
        body = await _body(request, RaftJoinRequest, REQUEST_BYTES_MAX)
        return _response(RaftJoinResponse(await self.raft_join(identity, body.address)))

    async def _sightings(self, request: web.Request) -> web.Response:
        identity = self._identity(request)
        self.admission.manager(identity)
        report = await _body(request, SightingReport, REPORT_BYTES_MAX)
        self.sessions.receive_sightings(identity.node, report)
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        self.admission.manager(self._identity(request))
        socket = web.WebSocketResponse(
            max_msg_size=REPORT_BYTES_MAX, compress=False, timeout=CLOSE_S
        )
        await socket.prepare(request)
        channel = WebSocketChannel(socket)
        try:
            async with asyncio.timeout(BODY_S):
                query = decode_untrusted(await channel.receive(), LogQuery)
            await self._send_logs(channel, query)
        except (ChannelClosed, TimeoutError):
            pass
        except MalformedMessage as error:
            await channel.close(CloseCode.MALFORMED, str(error))
        return socket

    async def _send_logs(self, channel: WebSocketChannel, query: LogQuery) -> None:
        tasks = self.replica.snapshot().tasks
        wanted = [
            (task.id, task.node)
            for task in map(tasks.get, query.tasks)
            if task is not None and task.node is not None
        ]

        async def send() -> None:
            async with aclosing(self.sessions.logs.read(wanted, query.options)) as pages:
                async for page in pages:
                    await channel.send(encode_body(LogPage(page)))
            await channel.close(CloseCode.NORMAL, "")

        async with TaskGroup() as group:
            sending = group.create_task(_until_closed(send()))
            await _until_closed(channel.receive())
            sending.cancel()

    def _identity(self, request: web.Request, *, max_expired_s: float = 0.0) -> PeerIdentity:
        try:
            identity = identity_of(
                request.transport,
                cluster=self.cluster,
                now=self.clock(),
                max_expired_s=max_expired_s,
            )
        except CertificateError as error:
            raise Forbidden(str(error)) from error
        if identity is None:
            raise Forbidden("a certificate of this cluster is needed: join it first")
        return identity


def remote_address(request: web.Request) -> str:
    """Return the IP address that a request came from; an IPv4 one as such."""
    peer = None if request.transport is None else request.transport.get_extra_info("peername")
    if not peer:
        return ""
    address = ip_address(str(peer[0]).partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


async def _until_closed(work: Awaitable[object]) -> None:
    with suppress(ChannelClosed, Unavailable):
        await work


async def _body(request: web.Request, kind: type[_B], bytes_max: int) -> _B:
    if request.content_length is None or request.content_length > bytes_max:
        raise MalformedMessage(f"a request's body may have at most {bytes_max} bytes")
    async with asyncio.timeout(BODY_S):
        return decode_untrusted(await request.read(), kind)


def _response(body: Body) -> web.Response:
    return web.Response(body=encode_body(body), content_type=CONTENT_TYPE)


def _error(status: HTTPStatus, kind: str, message: str) -> web.Response:
    return web.Response(
        status=status,
        body=encode_body(ErrorBody(kind, message)),
        content_type=CONTENT_TYPE,
        headers={ERROR_HEADER: f"{kind} {quote(message[:500])}"},
    )


@web.middleware
async def _errors_as_bodies(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    refuse = partial(logger.info, "request refused: path=%s address=%s reason=%s")
    try:
        return await handler(request)
    except ClusterError as error:
        refuse(request.path, remote_address(request), error)
        kind = type(error).__name__
        return _error(_STATUS.get(kind, HTTPStatus.INTERNAL_SERVER_ERROR), kind, str(error))
    except MalformedMessage as error:
        refuse(request.path, remote_address(request), error)
        return _error(HTTPStatus.BAD_REQUEST, "Invalid", f"malformed request: {error}")
    except TimeoutError:
        return _error(HTTPStatus.REQUEST_TIMEOUT, "Invalid", "the request took too long")
