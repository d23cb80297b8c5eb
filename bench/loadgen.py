"""Closed-loop HTTP/1.1 clients on kept-alive connections, lean enough not to be what is measured.

The same clients are used for every peer. They share the machine with the servers: the rates are
of the whole, good for ratios, not for what a server alone can do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

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
        RuntimeError: an answer other than 200.
    """
    latencies: list[float] = []
    end = time.perf_counter() + seconds
    numbers = iter(range(1 << 62))

    async def client() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        while (begin := time.perf_counter()) < end:
            writer.write(request(next(numbers)))
            await _read_answer(reader)
            latencies.append(time.perf_counter() - begin)
        writer.close()

    begin = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    took = time.perf_counter() - begin
    latencies.sort()
    return Result(
        count=len(latencies),
        per_second=len(latencies) / took,
        p50_ms=latencies[len(latencies) // 2] * 1000,
        p99_ms=latencies[int(len(latencies) * 0.99)] * 1000,
    )


async def _read_answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    status, _, fields = head.partition(b"\r\n")
    length = next(
        int(line.partition(b":")[2])
        for line in fields.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    )
    body = await reader.readexactly(length)
    if b" 200 " not in status + b" ":
        raise RuntimeError(f"answer {status!r}: {body[:200]!r}")
    return body
