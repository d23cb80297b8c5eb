"""A two-way stream of messages, and WebSockets as one.

Sessions see only `Channel`; so they are tested without sockets, and aiohttp stays here.
"""

from __future__ import annotations

import asyncio
import socket
from asyncio import trsock
from enum import IntEnum
from typing import Protocol, cast

import aiohttp
from aiohttp import web

CLOSE_S = 1.0
"""How long the peer may take to agree to a close."""
_REASON_BYTES_MAX = 120
"""A close frame has room for 123 (RFC 6455, section 5.5)."""


UNANSWERED_MS = 10_000
"""A connection whose peer has not acknowledged data for so long is over (TCP_USER_TIMEOUT), and
with keep-alive probes an idle one too. Well above what a retransmission takes, because sessions
have heartbeats of their own; this is for all that has none."""
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT = 5, 2, 3


class CloseCode(IntEnum):
    """Why a channel was closed (RFC 6455, section 7.4.2: 4000.. are ours)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    MALFORMED = 1002
    SUPERSEDED = 4001
    """The node has begun another session."""
    REFUSED = 4003
    """The node's certificate is over."""
    REMOVED = 4004
    """The node was a member, and the managers have removed it."""
    SILENT = 4008
    """Too many heartbeats are missing."""
    BEHIND = 4009
    """This manager's state is older than what the node has."""


class ChannelClosed(Exception):
    """The peer, or the network, has ended the stream."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(reason or f"closed with code {code}")
        self.code = code


class Channel(Protocol):
    """A stream of messages that ends at most once."""

    async def send(self, data: bytes) -> None:
        """Send a message; waits while the peer is slow.

        Raises:
            ChannelClosed: it has ended.
        """
        ...

    async def receive(self) -> bytes:
        """Return the next message.

        Raises:
            ChannelClosed: there is none.
        """
        ...

    async def close(self, code: CloseCode, reason: str) -> None:
        """End the stream."""
        ...


class WebSocketChannel:
    """A WebSocket, of either end."""

    def __init__(self, websocket: web.WebSocketResponse | aiohttp.ClientWebSocketResponse) -> None:
        self._websocket = websocket

    async def send(self, data: bytes) -> None:
        """See `Channel`."""
        try:
            await self._websocket.send_bytes(data)
        except (OSError, aiohttp.ClientError, RuntimeError) as error:
            raise ChannelClosed(self._websocket.close_code, str(error)) from error

    async def receive(self) -> bytes:
        """See `Channel`."""
        message = await self._websocket.receive()
        if message.type is aiohttp.WSMsgType.BINARY and isinstance(message.data, bytes):
            return message.data
        reason = message.extra if isinstance(message.extra, str) else ""
        if message.type is aiohttp.WSMsgType.TEXT:
            reason = "a text message"
        elif message.type is aiohttp.WSMsgType.ERROR:
            reason = str(self._websocket.exception())
        raise ChannelClosed(self._websocket.close_code, reason)

    async def close(self, code: CloseCode, reason: str) -> None:
        """See `Channel`."""
        try:
            async with asyncio.timeout(2 * CLOSE_S):
                cut = reason.encode()[:_REASON_BYTES_MAX].decode(errors="ignore").encode()
                await self._websocket.close(code=code, message=cut)
        except (OSError, aiohttp.ClientError):
            pass


def notice_dead_peer(tcp: object) -> None:
    """Let the kernel end a connection whose other machine is gone.

    tcp: what a transport calls its `socket`; None or another family: nothing is done.
    """
    if not isinstance(tcp, trsock.TransportSocket):
        return
    if tcp.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNANSWERED_MS)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT)


def first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of a group that is no group: why a session's tasks have ended."""
    leaves: list[BaseException] = []
    _collect(errors, leaves)
    return leaves[0]


def _collect(errors: BaseExceptionGroup[BaseException], leaves: list[BaseException]) -> None:
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            _collect(cast("BaseExceptionGroup[BaseException]", error), leaves)
        else:
            leaves.append(error)
