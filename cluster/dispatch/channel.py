"""A two-way stream of messages, and WebSockets as one.

Sessions see only `Channel`; so they are tested without sockets, and aiohttp stays here.
"""

from __future__ import annotations

import asyncio
from enum import IntEnum
from typing import Protocol, cast

import aiohttp
from aiohttp import web

CLOSE_S = 1.0
"""How long the peer may take to agree to a close."""
_REASON_BYTES_MAX = 120
"""A close frame has room for 123 (RFC 6455, section 5.5)."""


class CloseCode(IntEnum):
    """Why a channel was closed (RFC 6455, section 7.4.2: 4000.. are ours)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    MALFORMED = 1002
    SUPERSEDED = 4001
    """The node has begun another session."""
    REFUSED = 4003
    """The node is not (any more) a member, or its certificate is over."""
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

    def __init__(self, socket: web.WebSocketResponse | aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def send(self, data: bytes) -> None:
        """See `Channel`."""
        try:
            await self._socket.send_bytes(data)
        except (OSError, aiohttp.ClientError, RuntimeError) as error:
            raise ChannelClosed(self._socket.close_code, str(error)) from error

    async def receive(self) -> bytes:
        """See `Channel`."""
        message = await self._socket.receive()
        if message.type is aiohttp.WSMsgType.BINARY and isinstance(message.data, bytes):
            return message.data
        reason = message.extra if isinstance(message.extra, str) else ""
        if message.type is aiohttp.WSMsgType.TEXT:
            reason = "a text message"
        elif message.type is aiohttp.WSMsgType.ERROR:
            reason = str(self._socket.exception())
        raise ChannelClosed(self._socket.close_code, reason)

    async def close(self, code: CloseCode, reason: str) -> None:
        """See `Channel`."""
        try:
            async with asyncio.timeout(2 * CLOSE_S):
                cut = reason.encode()[:_REASON_BYTES_MAX].decode(errors="ignore").encode()
                await self._socket.close(code=code, message=cut)
        except (OSError, aiohttp.ClientError):
            pass


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
