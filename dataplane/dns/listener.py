"""The sockets of one sandbox's resolver.

The sockets were opened in the sandbox's network namespace; asyncio serves them from the daemon.
UDP is read without a protocol object: one callback takes all datagrams that wait.

Invariants: a query never raises out of here; junk is counted and dropped. At most
`TCP_CLIENTS_MAX` clients of a sandbox are connected, each idle for at most `TCP_IDLE_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from random import Random

from dataplane.dns.codec import (
    TCP_BYTES_MAX,
    MalformedQuery,
    Query,
    Rcode,
    decode_query_untrusted,
    encode_response,
)
from dataplane.dns.forwarder import Forwarder
from dataplane.dns.zone import Reply, Zone

TCP_CLIENTS_MAX = 32
TCP_IDLE_S = 10.0
_BATCH_MAX = 64
"""Datagrams taken per callback, so that one sandbox does not starve the others."""

Address = tuple[str, int]


class Counters:
    """What all listeners of a server count together."""

    __slots__ = ("answered", "forwarded", "malformed", "queries")

    def __init__(self) -> None:
        self.queries = 0
        self.answered = 0
        self.forwarded = 0
        self.malformed = 0


class Listener:
    """Answers the queries of one sandbox."""

    def __init__(self, zone: Zone, forwarder: Forwarder, rng: Random, counters: Counters) -> None:
        self.zone = zone
        self._forwarder = forwarder
        self._rng = rng
        self._counters = counters
        self._udp: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self, udp: socket.socket, tcp: socket.socket) -> None:
        """Serve these sockets, which belong to the listener from now on."""
        udp.setblocking(False)
        tcp.setblocking(False)
        self._udp = udp
        asyncio.get_running_loop().add_reader(udp, self._read_datagrams, udp)
        self._server = await asyncio.start_server(self._serve_client, sock=tcp)

    async def close(self) -> None:
        """Close the sockets and drop the clients."""
        if self._udp is not None:
            asyncio.get_running_loop().remove_reader(self._udp)
            self._udp.close()
            self._udp = None
        if self._server is not None:
            self._server.close()
            for writer in self._writers:
                writer.close()
            self._server = None

    def _read_datagrams(self, udp: socket.socket) -> None:
        with contextlib.suppress(OSError):  # nothing more, or an error of an earlier answer
            for _ in range(_BATCH_MAX):
                data, client = udp.recvfrom(TCP_BYTES_MAX)
                self._answer_datagram(data, client)

    def _answer_datagram(self, data: bytes, client: Address) -> None:
        decided = self._decide(data)
        if decided is None:
            return
        query, reply = decided

        def send(response: bytes | Rcode) -> None:
            if self._udp is not None:
                with contextlib.suppress(OSError):
                    self._udp.sendto(_response(query, response, query.udp_bytes_max), client)

        if reply is None:
            self._forwarder.forward(data, send)
        else:
            send(encode_response(query, reply.rcode, reply.answer, bytes_max=query.udp_bytes_max))

    def _decide(self, data: bytes) -> tuple[Query, Reply | None] | None:
        """Return the query and our reply (None: ask upstream); None: it is junk."""
        counters = self._counters
        counters.queries += 1
        try:
            query = decode_query_untrusted(data)
        except MalformedQuery:
            counters.malformed += 1
            return None
        reply = self.zone.answer(query, self._rng)
        if isinstance(reply, Reply):
            counters.answered += 1
            return query, reply
        counters.forwarded += 1
        return query, None

    async def _serve_client(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if len(self._writers) >= TCP_CLIENTS_MAX:
            writer.close()
            return
        self._writers.add(writer)
        try:
            while await self._serve_query(reader, writer):
                pass
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _serve_query(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        async with asyncio.timeout(TCP_IDLE_S):
            data = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        decided = self._decide(data)
        if decided is None:
            return False
        query, reply = decided
        if reply is None:
            result = await self._forwarder.forward_stream(data)
            response = _response(query, result, TCP_BYTES_MAX)
        else:
            response = encode_response(query, reply.rcode, reply.answer, bytes_max=TCP_BYTES_MAX)
        async with asyncio.timeout(TCP_IDLE_S):
            writer.write(len(response).to_bytes(2) + response)
            await writer.drain()
        return True


def _response(query: Query, result: bytes | Rcode, bytes_max: int) -> bytes:
    return (
        result if isinstance(result, bytes) else encode_response(query, result, bytes_max=bytes_max)
    )
