"""The TLS server of port 2377, shared by HTTP and Raft: the peer says which by ALPN.

A connection costs nothing beyond its socket until the TLS handshake is done, and that has a
deadline. Then it is handed to one of two protocol factories and this module is out of its way. A
peer without a certificate can only join, which does not take long: it has a deadline too.

Invariant: Raft sees only connections whose certificate is a manager's, of this cluster, and valid
now (the TLS context leaves time to us, see `cluster.ca.tls`); whether it is a current member is for
consensus to say.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakSet

from aiohttp import web

from cluster.ca.certificates import CertificateError
from cluster.ca.tls import ALPN_RAFT, identity_of, selected_protocol
from cluster.dispatch.channel import notice_dead_peer
from cluster.model.ids import ClusterId
from cluster.model.node import Role

logger = logging.getLogger(__name__)

HANDSHAKE_S = 5.0
ANONYMOUS_S = 30.0
"""How long a connection without a certificate may last."""
CONNECTIONS_MAX = 12_000
"""More than the sessions that one manager has (see `server.SESSIONS_MAX`)."""
SHUTDOWN_S = 1.0
"""How long requests under way may take when the port closes."""
BACKLOG = 512

ProtocolFactory = Callable[[], asyncio.BaseProtocol]


@dataclass(frozen=True, slots=True)
class PortStats:
    """Counters since start, and the connections now."""

    connections: int
    accepted: int
    handshakes_failed: int
    """Garbage, foreign certificates, or no handshake in time."""
    refused: int
    """After the handshake: too many, or not allowed to speak Raft."""


class ControlPort:
    """The server. `open`, then `close`."""

    def __init__(
        self,
        *,
        context: ssl.SSLContext,
        application: web.Application,
        raft: ProtocolFactory,
        cluster: ClusterId,
        clock: Callable[[], float],
        handshake_s: float = HANDSHAKE_S,
        anonymous_s: float = ANONYMOUS_S,
    ) -> None:
        """raft: makes the protocol of a connection that asks for Raft. clock: unix time."""
        self._context = context
        self._runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_S
        )
        self._raft = raft
        self._cluster = cluster
        self._clock = clock
        self._handshake_s = handshake_s
        self._anonymous_s = anonymous_s
        self._server: asyncio.Server | None = None
        self._transports: WeakSet[asyncio.BaseTransport] = WeakSet()
        self._accepted = self._failed = self._refused = 0

    async def open(self, host: str, port: int) -> tuple[str, int]:
        """Listen, and return the address that was bound.

        Raises:
            OSError: the address is taken, or not ours.
        """
        await self._runner.setup()
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Arrival(self),
            host,
            port,
            ssl=self._context,
            ssl_handshake_timeout=self._handshake_s,
            ssl_shutdown_timeout=SHUTDOWN_S,
            backlog=BACKLOG,
        )
        bound = self._server.sockets[0].getsockname()
        logger.info("control port open: address=%s port=%d", bound[0], bound[1])
        return str(bound[0]), int(bound[1])

    async def close(self) -> None:
        """Stop listening and end all connections."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()
        for transport in list(self._transports):
            _abort(transport)

    def stats(self) -> PortStats:
        """Return counters."""
        connections = sum(not t.is_closing() for t in self._transports)
        return PortStats(connections, self._accepted, self._failed, self._refused)

    # What an arrival asks.

    def arrived(self, overdue: Callable[[], None]) -> asyncio.TimerHandle:
        """Count a connection, and return the timer that waits for its handshake."""
        self._accepted += 1
        # Asyncio ends a failed or overdue handshake without a word to the protocol, so what has
        # not come by then has failed.
        return asyncio.get_running_loop().call_later(self._handshake_s * 1.2, overdue)

    def failed(self) -> None:
        """Count a handshake that came to nothing."""
        self._failed += 1

    def protocol_for(self, transport: asyncio.Transport) -> asyncio.BaseProtocol | None:
        """Return the protocol that takes over a connection; None: it is refused."""
        try:
            protocol = self._choose(transport)
        except CertificateError as error:
            peer = transport.get_extra_info("peername")
            logger.info("connection refused: address=%s reason=%s", peer and peer[0], error)
            self._refused += 1
            return None
        self._transports.add(transport)
        return protocol

    def _choose(self, transport: asyncio.Transport) -> asyncio.BaseProtocol:
        if len(self._transports) >= CONNECTIONS_MAX:
            raise CertificateError("too many connections")
        if selected_protocol(transport) == ALPN_RAFT:
            identity = identity_of(transport, cluster=self._cluster, now=self._clock())
            if identity is None or identity.role is not Role.MANAGER:
                raise CertificateError("only managers speak Raft")
            return self._raft()
        notice_dead_peer(transport.get_extra_info("socket"))
        server = self._runner.server
        if server is None:
            raise CertificateError("the port is closing")
        if transport.get_extra_info("ssl_object").getpeercert(binary_form=True) is None:
            loop = asyncio.get_running_loop()
            loop.call_later(self._anonymous_s, _abort, transport)
        return server()


class _Arrival(asyncio.Protocol):
    """A connection until its handshake is done."""

    def __init__(self, port: ControlPort) -> None:
        self._port = port
        self._timer = port.arrived(port.failed)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._timer.cancel()
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("the server is not a stream server")
        protocol = self._port.protocol_for(transport)
        if protocol is None:
            _abort(transport)
            return
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


def _abort(transport: asyncio.BaseTransport) -> None:
    # One that is closing may have let go of its TLS already; CPython 3.11.2 then fails to abort.
    if isinstance(transport, asyncio.WriteTransport) and not transport.is_closing():
        transport.abort()
