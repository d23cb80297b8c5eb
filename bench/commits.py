"""Committed writes per second beside etcd, in the same run on the same disk.

Ours: three managers with TLS between them and every acknowledged write fsynced on a majority and
encrypted at rest; a write is a transaction of the replicated state (a task's status of 200 bytes
among 1,000 tasks), asked for over HTTP at the leader. etcd: three members with TLS between them,
a put of 200 bytes among 1,000 keys over its HTTP gateway, at the leader. The same client, closed
loop, 1 and 64 connections, shares the two cores with all of it: no capacity of either, and etcd's
own gRPC clients cost it less than its gateway does.
"""

from __future__ import annotations

import asyncio
import base64
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp

from bench import loadgen, peers
from bench.certificates import CLUSTER, NOW, make_certificates
from bench.loadgen import Result
from bench.report import ratio, say

ROUNDS = 3
SECONDS = 4.0
CLIENTS = (1, 64)
VALUE = b"x" * 200


def main() -> None:
    """Measure and print."""
    asyncio.run(_main())


async def _main() -> None:
    results: dict[tuple[str, int], list[Result]] = {}
    async with peers.etcd() as etcd_ports, _managers() as our_port:
        etcd_port = await _etcd_leader(etcd_ports)
        paths = {"hivewire": (our_port, _our_put), "etcd": (etcd_port, _etcd_put)}
        for _ in range(ROUNDS):
            for clients in CLIENTS:
                for name, (port, put) in paths.items():
                    result = await loadgen.run(
                        "127.0.0.1", port, put, clients=clients, seconds=SECONDS
                    )
                    results.setdefault((name, clients), []).append(result)
    for clients in CLIENTS:
        rates: dict[str, float] = {}
        for name in paths:
            best = sorted(results[name, clients], key=lambda r: r.per_second)[ROUNDS // 2]
            rates[name] = statistics.median(r.per_second for r in results[name, clients])
            say(f"{name}, {clients} clients: {best} (median of {ROUNDS})")
        suffix = "" if clients == max(CLIENTS) else f"_{clients}_client"
        ratio(f"commits{suffix}", rates["hivewire"], rates["etcd"])


def _our_put(_: int) -> bytes:
    return loadgen.post("/put", VALUE)


def _etcd_put(number: int) -> bytes:
    key = base64.b64encode(f"key{number % 1000}".encode()).decode()
    body = json.dumps({"key": key, "value": base64.b64encode(VALUE).decode()})
    return loadgen.post("/v3/kv/put", body.encode())


async def _etcd_leader(ports: list[int]) -> int:
    async with aiohttp.ClientSession() as session:
        while True:
            for port in ports:
                url = f"http://127.0.0.1:{port}/v3/maintenance/status"
                async with session.post(url, json={}) as response:
                    status = await response.json()
                if status.get("leader") and status["leader"] == status["header"]["member_id"]:
                    return port
            await asyncio.sleep(0.1)


@asynccontextmanager
async def _managers() -> AsyncGenerator[int]:
    """Run three managers and yield the HTTP port of their leader."""
    with tempfile.TemporaryDirectory(prefix="hivewire-bench-") as name:
        directory = Path(name)
        ports = peers.free_ports(6)
        nodes = make_certificates(directory, 3)
        settings = {
            "cluster": CLUSTER,
            "nodes": nodes,
            "raft": ports[:3],
            "http": ports[3:],
            "now": NOW,
        }
        (directory / "settings.json").write_text(json.dumps(settings))
        async with AsyncExitStack() as stack:
            for number in range(3):
                await stack.enter_async_context(_manager(directory, number))
            for port in ports[3:]:
                await peers.wait_for_port(port)
            await _form(nodes, ports)
            yield ports[3]


async def _form(nodes: Sequence[str], ports: Sequence[int]) -> None:
    url = f"http://127.0.0.1:{ports[3]}"
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        for number in (1, 2):
            body = f"{nodes[number]} 127.0.0.1 {ports[number]}"
            async with session.post(f"{url}/add", data=body):
                pass
        async with session.post(f"{url}/fill"):
            pass
        async with session.get(f"{url}/leader") as response:
            if await response.text() != "1 3":
                raise RuntimeError("the first manager does not lead three")


@asynccontextmanager
async def _manager(directory: Path, number: int) -> AsyncGenerator[None]:
    with (directory / f"manager{number}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.commit_node", str(directory), str(number),
            stdin=subprocess.PIPE, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield
    finally:
        if process.stdin:
            process.stdin.close()
        await process.wait()
        text = (directory / f"manager{number}.log").read_text()
        if "Traceback" in text:
            say(text)
