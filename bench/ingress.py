"""Throughput of a published port beside HAProxy in TCP mode in the same place.

A client outside fetches 1 MiB answers through node 1; nginx runs in three sandboxes of node 2.
HAProxy listens on another port of node 1 and balances round robin over the same three. Both carry
the bytes over the same links. All of it shares this machine: the ratio compares costs here, it is
no capacity; connections per second are printed too.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from pathlib import Path

from bench.lab import PORT, SERVER_PORT, Lab, inside, lab, node_address
from bench.peers import need, running
from bench.report import ratio, say
from bench.web import SERVERS, servers, wrk
from dataplane.addressing import gateway_subnet

ROUNDS = 5
SECONDS = 2
CONNECTIONS = 16
_HAPROXY_PORT = 8081


def main() -> None:
    """Measure and print."""
    need("haproxy", "haproxy")
    asyncio.run(_main())


async def _main() -> None:
    ports = {"hivewire": PORT, "haproxy": _HAPROXY_PORT}
    bulk: dict[str, list[float]] = {label: [] for label in ports}
    short: dict[str, list[float]] = {label: [] for label in ports}
    with tempfile.TemporaryDirectory(prefix="hivewire-bench-") as name:
        directory = Path(name)
        config = directory / "haproxy.cfg"
        config.write_text(_config())
        async with lab(directory) as made, servers(made):
            command = inside(made.node(1), "haproxy", "-db", "-f", str(config))
            async with running(*command, log=directory / "haproxy.log"):
                await asyncio.sleep(0.5)  # haproxy has no way to say that it listens
                for _ in range(ROUNDS):
                    for label, port in ports.items():
                        bulk[label].append(await _bulk(made, port))
                        short[label].append(await _short(made, port))
    for label in ports:
        say(
            f"{label}: {statistics.median(bulk[label]) * 8 / 1e9:.2f} Gb/s, "
            f"{statistics.median(short[label]):,.0f} connections/s (medians of {ROUNDS})"
        )
    ratio("ingress_connections", statistics.median(short["hivewire"]),
          statistics.median(short["haproxy"]))  # fmt: skip
    ratio("ingress", statistics.median(bulk["hivewire"]), statistics.median(bulk["haproxy"]))


async def _bulk(made: Lab, port: int) -> float:
    url = f"http://{node_address(1)}:{port}/big"
    return (await wrk(made.client, url, connections=CONNECTIONS, seconds=SECONDS))[1]


async def _short(made: Lab, port: int) -> float:
    url = f"http://{node_address(1)}:{port}/"
    rate, _ = await wrk(made.client, url, connections=CONNECTIONS, seconds=SECONDS, close=True)
    return rate


def _config() -> str:
    base = gateway_subnet(2).network_address
    lines = [f"  server {name} {base + 1 + int(name[1:])}:{SERVER_PORT}" for name in SERVERS]
    return "\n".join(
        [
            "global", "  maxconn 8192", "  nbthread 1", "defaults", "  mode tcp",
            "  timeout connect 5s", "  timeout client 30s", "  timeout server 30s",
            "listen web", f"  bind :{_HAPROXY_PORT}", "  balance roundrobin", *lines, "",
        ]
    )  # fmt: skip
