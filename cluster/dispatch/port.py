"""The TLS server of port 2377, shared by HTTP and Raft: the peer says which by ALPN.

Driven by `open`, `run` and `close`. The TLS handshake of a connection has a deadline, and only so
many are under way, of one address even fewer: whoever opens connections by the thousand costs a
bounded amount of memory, and does not shut out nodes with other addresses. Then a connection is
handed to one of two protocol factories and this module is out of its way. A peer without a
certificate can only join, which does not take long: it has a deadline too, and the same bounds.

Invariant: Raft sees only connections whose certificate is a manager's, of this cluster, and valid
now (the TLS context leaves time to us, see `cluster.ca.tls`); whether it is a current member is for
consensus to say.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakSet

from aiohttp import web

from cluster.ca.certificates import CertificateError
from cluster.ca.tls import ALPN_RAFT, identity_of, selected_protocol
from cluster.dispatch.channel import notice_dead_peer
from cluster.model.ids import ClusterId
from cluster.model.node import Role
from cluster.task_group import TaskGroup

logger = logging.getLogger(__name__)

HANDSHAKE_S = 5.0
HANDSHAKES_MAX = 256
"""TLS handshakes under way: each holds about 100 KB."""
HANDSHAKES_PER_ADDRESS_MAX = 64
ANONYMOUS_S = 30.0
"""How long a connection without a certificate may last."""
ANONYMOUS_MAX = 128
"""Connections without a certificate: nodes that join in one moment."""
ANONYMOUS_PER_ADDRESS_MAX = 32
ACCEPT_PAUSE_S = 0.1
"""After the machine had no descriptor left for a connection."""
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
    handshakes: int
    """Under way now."""
    handshakes_failed: int
    """Garbage, foreign certificates, or no handshake in time."""
    shed: int
    """Before the handshake: too many under way, of this address or in all."""
    refused: int
    """After the handshake: too many, or not allowed to speak Raft."""


class ControlPort:
    """The server. `open`, then `run`, then `close`."""

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
        self._listener: socket.socket | None = None
        self._transports: WeakSet[asyncio.BaseTransport] = WeakSet()
        self._anonymous: WeakSet[asyncio.BaseTransport] = WeakSet()
        self._handshakes: Counter[str] = Counter()
        """Under way, by address."""
        self._accepted = self._failed = self._shed = self._refused = 0

    async def open(self, host: str, port: int) -> tuple[str, int]:
        """Listen, and return the address that was bound.

        Raises:
            OSError: the address is taken, or not ours.
        """
        listener = socket.create_server(
            (host, port),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            backlog=BACKLOG,
        )
        listener.setblocking(False)
        self._listener = listener
        await self._runner.setup()
        bound = listener.getsockname()
        logger.info("control port open: address=%s port=%d", bound[0], bound[1])
        return str(bound[0]), int(bound[1])

    async def run(self) -> None:
        """Take connections until cancelled; those that were taken go on until `close`."""
        loop = asyncio.get_running_loop()
        if self._listener is None:
            raise RuntimeError("the port is not open")
        async with TaskGroup() as group:
            while True:
                try:
                    connection, address = await loop.sock_accept(self._listener)
                except OSError as error:  # out of descriptors, or the peer has gone already
                    logger.warning("connection not accepted: error=%s", error)
                    await asyncio.sleep(ACCEPT_PAUSE_S)
                    continue
                self._accepted += 1
                source = str(address[0])
                if self._is_crowded(source):
                    self._shed += 1
                    connection.close()
                else:
                    group.create_task(self._shake_hands(connection, source))

    async def close(self) -> None:
        """Stop listening and end all connections."""
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()
        for transport in list(self._transports):
            _abort(transport)

    def stats(self) -> PortStats:
        """Return counters."""
        connections = sum(not t.is_closing() for t in self._transports)
        return PortStats(
            connections=connections,
            accepted=self._accepted,
            handshakes=self._handshakes.total(),
            handshakes_failed=self._failed,
            shed=self._shed,
            refused=self._refused,
        )

    def _is_crowded(self, source: str) -> bool:
        return (
            self._handshakes.total() >= HANDSHAKES_MAX
            or self._handshakes[source] >= HANDSHAKES_PER_ADDRESS_MAX
        )

    async def _shake_hands(self, connection: socket.socket, source: str) -> None:
        self._handshakes[source] += 1
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _Arrival(self),
                connection,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake_s,
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
        except OSError as error:
            self._failed += 1
            logger.debug("no handshake: address=%s error=%r", source, error)
        finally:
            self._handshakes[source] -= 1
            if not self._handshakes[source]:
                del self._handshakes[source]

    # What an arrival asks.

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
            self._check_anonymous(transport)
            loop = asyncio.get_running_loop()
            loop.call_later(self._anonymous_s, _abort, transport)
            self._anonymous.add(transport)
        return server()

    def _check_anonymous(self, transport: asyncio.Transport) -> None:
        here = [_address_of(t) for t in self._anonymous if not t.is_closing()]
        own = here.count(_address_of(transport))
        if len(here) >= ANONYMOUS_MAX or own >= ANONYMOUS_PER_ADDRESS_MAX:
            raise CertificateError("too many connections without a certificate")


class _Arrival(asyncio.Protocol):
    """A connection until its handshake is done."""

    def __init__(self, port: ControlPort) -> None:
        self._port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("the server is not a stream server")
        protocol = self._port.protocol_for(transport)
        if protocol is None:
            _abort(transport)
            return
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


def _address_of(transport: asyncio.BaseTransport) -> str:
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if peer else ""


def _abort(transport: asyncio.BaseTransport) -> None:
    # One that is closing may have let go of its TLS already; CPython 3.11.2 then fails to abort.
    if isinstance(transport, asyncio.WriteTransport) and not transport.is_closing():
        transport.abort()
