"""Asks the upstream resolvers, one after the other, from the network namespace of the daemon.

Driven by `forward`, which returns at once and calls back; there is no task per query. Each
question to an upstream has its own connected socket, so the kernel picks a random port and drops
what does not come from that upstream; the query's id is replaced by a random one.

Invariants: `reply` is called exactly once per `forward` (unless `close` comes first); at most
`EXCHANGES_MAX` questions are under way, and the next are refused.

Source: moby daemon/libnetwork/resolver.go for order, limits and what counts as no answer.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from random import Random

from dataplane.dns.codec import HEADER_BYTES, Rcode, rcode_of_untrusted

UPSTREAM_TIMEOUT_S = 4.0
"""Per upstream; Swarm's."""
EXCHANGES_MAX = 1024
"""Swarm's."""
PORT = 53
_RESPONSE_BYTES_MAX = 65_535
_REFUSALS = (Rcode.SERVFAIL, Rcode.REFUSED)

Upstream = tuple[str, int]


class Forwarder:
    """The upstream resolvers of this machine."""

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        rng: Random,
        *,
        timeout_s: float = UPSTREAM_TIMEOUT_S,
        exchanges_max: int = EXCHANGES_MAX,
    ) -> None:
        """Ask `upstreams` (address, port) in this order."""
        self._upstreams = tuple(upstreams)
        self._rng = rng
        self._timeout_s = timeout_s
        self._exchanges_max = exchanges_max
        self._exchanges: set[_Exchange] = set()
        self.failures = 0
        """Questions that an upstream did not answer usefully."""

    @property
    def has_upstream(self) -> bool:
        """Whether there is anyone to ask."""
        return bool(self._upstreams)

    @property
    def in_flight(self) -> int:
        """Questions under way."""
        return len(self._exchanges)

    def forward(self, query: bytes, reply: Callable[[bytes | Rcode], None]) -> None:
        """Ask about `query` and call `reply` with the response, or with the code of the failure."""
        if len(self._exchanges) >= self._exchanges_max:
            reply(Rcode.REFUSED)
            return

        def finish(result: bytes | Rcode) -> None:
            self._exchanges.discard(exchange)
            self.failures += exchange.failures
            reply(result)

        exchange = _Exchange(query, self._upstreams, self._rng, self._timeout_s, finish)
        self._exchanges.add(exchange)
        exchange.ask_next()

    async def forward_stream(self, query: bytes) -> bytes | Rcode:
        """Ask about a `query` that came over TCP, over TCP."""
        if len(self._exchanges) >= self._exchanges_max:
            return Rcode.REFUSED
        result: bytes | Rcode = Rcode.SERVFAIL
        for upstream in self._upstreams:
            try:
                async with asyncio.timeout(self._timeout_s):
                    response = await _ask_stream(upstream, query)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                self.failures += 1
                continue
            if rcode_of_untrusted(response) not in _REFUSALS:
                return response
            self.failures += 1
            result = response
        return result

    def close(self) -> None:
        """Drop all questions under way."""
        for exchange in self._exchanges:
            exchange.close()
        self._exchanges.clear()


class _Exchange:
    """One question on its way from upstream to upstream."""

    def __init__(
        self,
        query: bytes,
        upstreams: Sequence[Upstream],
        rng: Random,
        timeout_s: float,
        finish: Callable[[bytes | Rcode], None],
    ) -> None:
        self._query = query
        self._upstreams = list(reversed(upstreams))
        self._rng = rng
        self._timeout_s = timeout_s
        self._finish = finish
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._id = b""
        self._last: bytes | Rcode = Rcode.SERVFAIL
        self.failures = 0

    def ask_next(self) -> None:
        """Ask the first upstream that can be asked, or give up."""
        self.close()
        while self._upstreams:
            host, port = self._upstreams.pop()
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            try:
                # The descriptor limit and unreachable networks are ordinary here.
                self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                self._socket.connect((host, port))
                self._id = self._rng.randbytes(2)
                self._socket.send(self._id + self._query[2:])
            except OSError:
                self._fail()
                continue
            self._loop.add_reader(self._socket, self._receive)
            self._timer = self._loop.call_later(self._timeout_s, self._give_up_on_upstream)
            return
        self._finish(self._last)

    def close(self) -> None:
        """Stop waiting."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _fail(self) -> None:
        self.failures += 1
        self.close()

    def _give_up_on_upstream(self) -> None:
        self._fail()
        self.ask_next()

    def _receive(self) -> None:
        if self._socket is None:
            return
        try:
            response = self._socket.recv(_RESPONSE_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:  # nobody listens there (ICMP)
            self._give_up_on_upstream()
            return
        rcode = rcode_of_untrusted(response)
        if rcode is None or response[:2] != self._id:
            return  # not the answer; it may still come
        response = self._query[:2] + response[2:]
        if rcode in _REFUSALS:
            self._last = response
            self._give_up_on_upstream()
            return
        self.close()
        self._finish(response)


async def _ask_stream(upstream: Upstream, query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*upstream)
    try:
        writer.write(len(query).to_bytes(2) + query)
        response = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
    finally:
        writer.close()
    if len(response) < HEADER_BYTES or response[:2] != query[:2]:
        raise OSError("answer to another question")
    return response
