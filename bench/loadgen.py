"""Closed-loop HTTP/1.1 clients on kept-alive connections, lean enough not to be what is measured.

The same clients are used for every peer. They share the machine with the servers: the rates are
of the whole, good for ratios, not for what a server alone can do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

Request = Callable[[int], bytes]
"""Number of the request -> the whole HTTP request."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a run measured."""

    count: int
    per_second: float
    p50_ms: float
    p99_ms: float

    def __str__(self) -> str:
        return f"{self.per_second:,.0f}/s, p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms"


def post(path: str, body: bytes) -> bytes:
    """Return a POST request."""
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def run(host: str, port: int, request: Request, *, clients: int, seconds: float) -> Result:
    """Return what `clients` in a closed loop got in `seconds`.

    Raises:
        RuntimeError: an answer other than 200, or a connection that ended.
    """
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    numbers = iter(range(1 << 62))
    begin = time.perf_counter()
    running: list[_Client] = []
    for _ in range(clients):
        client = _Client(lambda: request(next(numbers)), latencies, end=begin + seconds)
        await loop.create_connection(lambda made=client: made, host, port)  # type: ignore[misc]
        running.append(client)
    for client in running:
        await client.ended
    took = time.perf_counter() - begin
    latencies.sort()
    return Result(
        count=len(latencies),
        per_second=len(latencies) / took,
        p50_ms=latencies[len(latencies) // 2] * 1000,
        p99_ms=latencies[int(len(latencies) * 0.99)] * 1000,
    )


class _Client(asyncio.Protocol):
    """One connection: asks, waits for the whole answer, asks again.

    A protocol, because asyncio's streams and a task for each client cost as much again.
    """

    def __init__(self, request: Callable[[], bytes], latencies: list[float], *, end: float) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._latencies = latencies
        self._end = end
        self._received = b""
        self._asked_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or len(body) < _content_length(head):
            return
        if b" 200 " not in head.partition(b"\r\n")[0] + b" ":
            self._end_with(RuntimeError(f"answer {self._received[:200]!r}"))
            return
        self._received = b""
        self._latencies.append(time.perf_counter() - self._asked_at)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_with(exc or RuntimeError("the connection ended"))

    def _ask(self) -> None:
        self._asked_at = time.perf_counter()
        if self._asked_at < self._end:
            self._transport.write(self._request())
        else:
            self._end_with(None)

    def _end_with(self, error: Exception | None) -> None:
        if not self.ended.done():
            self._transport.close()
            if error is None:
                self.ended.set_result(None)
            else:
                self.ended.set_exception(error)


def _content_length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
