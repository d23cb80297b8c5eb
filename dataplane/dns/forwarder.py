"""Asks the upstream resolvers, by turns, from the network namespace of the daemon.

Driven by `forward`, which returns at once and calls back; there is no task per query. Each
question to an upstream has its own connected socket, so the kernel picks a random port and drops
what does not come from that upstream; the query's id is replaced by a random one.

The first upstream has `TURN_S` to itself, then the next is asked as well, and the first useful
answer is taken. One that cannot be reached, or refuses, passes its turn on at once. Swarm asks one
after the other, 4 s each, which is longer than its clients wait; we answer SERVFAIL after
`TIMEOUT_S`, or as soon as nobody is left who might answer.

Invariants: `reply` is called exactly once per `forward` (unless `close` comes first); at most
`EXCHANGES_MAX` questions are under way, and the next are refused.

Source: moby daemon/libnetwork/resolver.go for order, number and what counts as no answer.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from dataplane.dns.codec import HEADER_BYTES, Rcode, rcode_of_untrusted
from dataplane.dns.upstreams import Turns, Upstream, Upstreams

TIMEOUT_S = 2.0
"""From a question to SERVFAIL, however many upstreams there are: below the 5 s of the C library,
which then asks all over again."""
TURN_S = 0.5
"""How long an upstream is the only one that was asked: well above a slow, useful answer."""
DOWN_TIMEOUT_S = 0.3
"""The same as `TIMEOUT_S` where all upstreams are down (see `upstreams`)."""
EXCHANGES_MAX = 1024
"""Swarm's."""
PORT = 53
_RESPONSE_BYTES_MAX = 65_535
_REFUSALS = (Rcode.SERVFAIL, Rcode.REFUSED)
_IP_RECVERR, _IPV6_RECVERR = 11, 25
"""Of linux/in.h and linux/in6.h: without it the kernel keeps "unreachable" to itself (udp(7))."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for upstreams, seconds."""

    timeout_s: float = TIMEOUT_S
    turn_s: float = TURN_S
    down_timeout_s: float = DOWN_TIMEOUT_S

    def total_s(self, turns: Turns) -> float:
        """Return how long one question may take."""
        return self.timeout_s if turns.up else self.down_timeout_s


class Forwarder:
    """The upstream resolvers of this machine."""

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        rng: Random,
        *,
        patience: Patience | None = None,
        exchanges_max: int = EXCHANGES_MAX,
    ) -> None:
        """Ask `upstreams` (address, port) in this order."""
        self._upstreams = Upstreams(upstreams)
        self._rng = rng
        self._patience = patience or Patience()
        self._exchanges_max = exchanges_max
        self._exchanges: set[_Exchange] = set()
        self.failures = 0
        """Questions that an upstream did not answer usefully."""

    @property
    def has_upstream(self) -> bool:
        """Whether there is anyone to ask."""
        return len(self._upstreams) > 0

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

        exchange = _Exchange(query, self._upstreams, self._rng, self._patience, finish)
        self._exchanges.add(exchange)
        exchange.begin()

    async def forward_stream(self, query: bytes) -> bytes | Rcode:
        """Ask about a `query` that came over TCP, over TCP: one after the other."""
        if len(self._exchanges) >= self._exchanges_max:
            return Rcode.REFUSED
        result: bytes | Rcode = Rcode.SERVFAIL
        clock = asyncio.get_running_loop().time
        turns = self._upstreams.turns(clock())
        deadline = clock() + self._patience.total_s(turns)
        order = [*turns.up, *turns.down]
        for number, upstream in enumerate(order):
            share_s = max(0.0, deadline - clock()) / (len(order) - number)
            try:
                async with asyncio.timeout(share_s):
                    response = await _ask_stream(upstream, query)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                self.failures += 1
                self._upstreams.failed(upstream, clock())
                continue
            self._upstreams.answered(upstream)
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


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question that an upstream has been sent, and not answered."""

    upstream: Upstream
    socket: socket.socket
    id: bytes
    at: float


class _Exchange:
    """One question on its way from upstream to upstream."""

    def __init__(
        self,
        query: bytes,
        upstreams: Upstreams,
        rng: Random,
        patience: Patience,
        finish: Callable[[bytes | Rcode], None],
    ) -> None:
        self._query = query
        self._upstreams = upstreams
        self._rng = rng
        self._patience = patience
        self._finish = finish
        self._loop = asyncio.get_running_loop()
        turns = upstreams.turns(self._loop.time())
        self._timeout_s = patience.total_s(turns)
        self._up = list(reversed(turns.up))
        self._down = turns.down
        self._asked: dict[Upstream, _Asked] = {}
        self._turn: asyncio.TimerHandle | None = None
        self._timeout: asyncio.TimerHandle | None = None
        self._last: bytes | Rcode = Rcode.SERVFAIL
        self.failures = 0

    def begin(self) -> None:
        """Ask the first upstream that can be asked."""
        self._timeout = self._loop.call_later(self._timeout_s, self._give_up)
        self._ask_next()

    def close(self) -> None:
        """Stop waiting."""
        for timer in (self._turn, self._timeout):
            if timer is not None:
                timer.cancel()
        self._turn = self._timeout = None
        for asked in list(self._asked.values()):
            self._drop(asked)

    def _ask_next(self) -> None:
        """Ask the next upstream that can be asked; end when nobody is left who might answer."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        while self._up:
            if self._ask(self._up.pop()):
                self._turn = self._loop.call_later(self._patience.turn_s, self._ask_next)
                return
        down, self._down = self._down, ()
        for upstream in down:
            self._ask(upstream)
        if not self._asked:
            self._end(self._last)

    def _ask(self, upstream: Upstream) -> bool:
        """Send the question to `upstream`; return whether it is on its way."""
        is_v6 = ":" in upstream[0]
        family = socket.AF_INET6 if is_v6 else socket.AF_INET
        id_ = self._rng.randbytes(2)
        made: socket.socket | None = None
        try:
            # The descriptor limit and unreachable networks are ordinary here.
            made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            if is_v6:
                made.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
            else:
                made.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
            made.connect(upstream)
            made.send(id_ + self._query[2:])
        except OSError:
            if made is not None:
                made.close()
            self._fail(upstream)
            return False
        asked = _Asked(upstream, made, id_, self._loop.time())
        self._asked[upstream] = asked
        self._loop.add_reader(made, self._receive, asked)
        return True

    def _receive(self, asked: _Asked) -> None:
        try:
            response = asked.socket.recv(_RESPONSE_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:  # nobody listens there, or no way leads there (ICMP)
            self._drop(asked)
            self._fail(asked.upstream)
            self._ask_next()
            return
        rcode = rcode_of_untrusted(response)
        if rcode is None or response[:2] != asked.id:
            return  # not the answer; it may still come
        self._drop(asked)
        self._upstreams.answered(asked.upstream)
        response = self._query[:2] + response[2:]
        if rcode in _REFUSALS:
            self.failures += 1
            self._last = response
            self._ask_next()
            return
        self._end(response)

    def _give_up(self) -> None:
        self._end(self._last)

    def _end(self, result: bytes | Rcode) -> None:
        now = self._loop.time()
        turn_s = min(self._patience.turn_s, self._timeout_s)
        for asked in self._asked.values():
            if now - asked.at >= turn_s:
                self._fail(asked.upstream)
        self.close()
        self._finish(result)

    def _fail(self, upstream: Upstream) -> None:
        self.failures += 1
        self._upstreams.failed(upstream, self._loop.time())

    def _drop(self, asked: _Asked) -> None:
        del self._asked[asked.upstream]
        self._loop.remove_reader(asked.socket)
        asked.socket.close()


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
