"""One HTTP request, or WebSocket, to a manager, and what can go wrong with it.

Every failure becomes one of `cluster.model.errors` with a sentence that names the manager: what the
manager answered with, or Unavailable when there was no answer, or from somebody else.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import unquote

import aiohttp

from cluster.ca.tls import PeerRefused
from cluster.dispatch.channel import WebSocketChannel, notice_dead_peer
from cluster.dispatch.messages import MalformedMessage
from cluster.dispatch.requests import (
    CONTENT_TYPE,
    ERROR_HEADER,
    RESPONSE_BYTES_MAX,
    Body,
    ErrorBody,
    decode_untrusted,
    encode_body,
)
from cluster.model.errors import ERRORS, Invalid, Unavailable

HttpSession = aiohttp.ClientSession
"""A client of managers, from `http_session`; only this module knows what it is."""
KEPT_S = 5.0
"""How long a connection that is kept waits for the next request."""
CONNECT_S = 2.0
"""TCP and TLS together. Short, because there are other managers to ask."""
REQUEST_S = 10.0
_ERROR_STATUS = 400
_OUTSIDE_ITS_TIMES = (9, 10)
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED (OpenSSL's x509_vfy.h)."""
_T = TypeVar("_T")


class NotThatManager(Unavailable):
    """Someone else answered than the manager that was called."""


@asynccontextmanager
async def http_session() -> AsyncGenerator[HttpSession]:
    """Lend a client."""
    connector = aiohttp.TCPConnector(keepalive_timeout=KEPT_S, limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


async def call(
    session: HttpSession,
    address: str,
    path: str,
    *,
    context: ssl.SSLContext,
    node: str = "",
    body: Body | None = None,
    timeout_s: float = REQUEST_S,
    keep: bool = False,
) -> bytes:
    """Return the body of the answer: of a POST with `body`, without it of a GET.

    node: id of the manager that must answer; empty: whoever `context` takes.
    keep: leave the connection open for the next request. It goes on with the certificate that it
    began with: whoever keeps it must let it go now and then.

    Raises:
        ClusterError: see the module.
    """

    async def exchange() -> bytes:
        async with session.request(
            "GET" if body is None else "POST",
            f"https://{address}{path}",
            data=None if body is None else encode_body(body),
            headers={"Content-Type": CONTENT_TYPE, "Connection": "keep-alive" if keep else "close"},
            ssl=context,
            server_hostname=node or None,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_S),
        ) as response:
            answer = await _read(response)
            if response.status >= _ERROR_STATUS:
                raise _error_untrusted(answer, response.status, address)
            return answer

    return await _explained(exchange(), address, node)


async def connect(
    session: HttpSession,
    address: str,
    path: str,
    *,
    context: ssl.SSLContext,
    node: str,
    message_bytes_max: int,
) -> WebSocketChannel:
    """Return a WebSocket to the manager `node`; its user closes it.

    Raises:
        ClusterError: see the module.
    """

    async def upgrade() -> WebSocketChannel:
        async with asyncio.timeout(2 * CONNECT_S):
            socket = await session.ws_connect(
                f"https://{address}{path}",
                ssl=context,
                server_hostname=node,
                max_msg_size=message_bytes_max,
            )
        notice_dead_peer(socket.get_extra_info("socket"))
        return WebSocketChannel(socket)

    try:
        return await _explained(upgrade(), address, node)
    except aiohttp.WSServerHandshakeError as error:
        header = "" if error.headers is None else error.headers.get(ERROR_HEADER, "")
        kind, _, message = header.partition(" ")
        if kind not in ERRORS:
            raise Unavailable(f"{address} answered with status {error.status}") from error
        raise ERRORS[kind](unquote(message)) from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    answer = bytearray()
    async for piece in response.content.iter_any():
        answer += piece
        if len(answer) > RESPONSE_BYTES_MAX:
            raise Invalid(f"{response.url.host} answered with more than {RESPONSE_BYTES_MAX} bytes")
    return bytes(answer)


def _error_untrusted(answer: bytes, status: int, address: str) -> Exception:
    try:
        body = decode_untrusted(answer, ErrorBody)
    except MalformedMessage:
        return Unavailable(f"{address} answered with status {status}")
    return ERRORS.get(body.kind, Unavailable)(body.message)


async def _explained(work: Awaitable[_T], address: str, node: str) -> _T:
    whom = f"manager {node} at {address}" if node else f"the manager at {address}"
    try:
        return await work
    except aiohttp.WSServerHandshakeError:
        raise
    except (aiohttp.ClientError, OSError) as error:
        raise _explanation(error, whom) from error


def _explanation(error: BaseException, whom: str) -> Unavailable:
    """Return what to tell of a failure below HTTP."""
    cause = _tls_error(error)
    if isinstance(cause, PeerRefused):
        return NotThatManager(f"{whom} is not who was called: {cause.args[0]}")
    if isinstance(cause, ssl.SSLCertVerificationError):
        reason = cause.verify_message or cause.reason
        if cause.verify_code in _OUTSIDE_ITS_TIMES:
            reason += "; is a clock wrong, there or here?"
        return NotThatManager(f"{whom} is not who was called: its certificate is wrong ({reason})")
    if isinstance(error, TimeoutError):
        return Unavailable(f"{whom} did not answer in time")
    if not isinstance(error, aiohttp.ClientConnectorError):
        # A manager that does not take a certificate can only hang up: in TLS 1.3 its check comes
        # when our handshake is done, and asyncio sends no alert.
        return Unavailable(
            f"{whom} closed the connection: it is stopping, or does not accept this node's "
            f"certificate ({error})"
        )
    below = error.os_error
    # Of a failed connect asyncio has words of its own; getaddrinfo's numbers are below 0.
    reason = os.strerror(below.errno) if below.errno and below.errno > 0 else str(below)
    return Unavailable(f"{whom} cannot be reached: {reason}")


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    """Return the TLS error that is behind an error, if there is one.

    Some of aiohttp's own errors are TLS errors too, by inheritance: it is the cause that says more.
    """
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, ssl.SSLError) and not isinstance(behind, aiohttp.ClientError):
            return behind
        behind = behind.__cause__
    return None
