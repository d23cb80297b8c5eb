"""Throughput through an overlay network beside a VXLAN made by hand between the same nodes.

Both go sandbox - bridge - VXLAN - node - switch - node - VXLAN - bridge - sandbox over the same
veth pairs, one TCP stream (iperf3), rounds interleaved, best of each: the ratio says what our
devices' set-up costs, nothing about real links.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path

from bench.lab import Lab, inside, ip_batch, lab, node_address, sandbox_address
from bench.peers import need, running
from bench.report import ratio, say
from dataplane.kernel.netns import create_namespace, delete_namespace

ROUNDS = 4
SECONDS = 3
_PORT = 5201
_HAND_PORT = 4790


def main() -> None:
    """Measure and print."""
    need("iperf3", "iperf3")
    asyncio.run(_main())


async def _main() -> None:
    with tempfile.TemporaryDirectory(prefix="hivewire-bench-") as name:
        directory = Path(name)
        async with lab(directory) as made, _by_hand(made) as hand:
            paths = {
                "hivewire": (made.sandbox("c1"), made.sandbox("s1"), sandbox_address("s1")),
                "by hand": (hand[0], hand[1], IPv4Address("10.98.0.2")),
            }
            best = dict.fromkeys(paths, 0.0)
            async with contextlib.AsyncExitStack() as stack:
                for label, (_, server, _address) in paths.items():
                    log = directory / f"{label[:2]}.log"
                    await stack.enter_async_context(
                        running(*inside(server, "iperf3", "-s"), log=log)
                    )
                await asyncio.sleep(0.5)  # iperf3 has no way to say that it listens
                for _ in range(ROUNDS):
                    for label, (client, _, address) in paths.items():
                        best[label] = max(best[label], await _stream(client, address))
    for label, gigabits in best.items():
        say(f"{label}: {gigabits:.2f} Gb/s (best of {ROUNDS} x {SECONDS} s)")
    ratio("overlay", best["hivewire"], best["by hand"])


async def _stream(client: Path, address: IPv4Address) -> float:
    command = inside(client, "iperf3", "-c", str(address), "-t", str(SECONDS), "-J")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return float(json.loads(output)["end"]["sum_received"]["bits_per_second"]) / 1e9


@asynccontextmanager
async def _by_hand(made: Lab) -> AsyncGenerator[tuple[Path, Path]]:
    """Make the peer: on each node a namespace with bridge and VXLAN, and one with a host."""
    hosts = [made.directory / f"hand{i}" for i in (1, 2)]
    networks = [made.directory / f"handnet{i}" for i in (1, 2)]
    try:
        for index, (host, network) in enumerate(zip(hosts, networks, strict=True), start=1):
            create_namespace(host)
            create_namespace(network)
            ip_batch(
                made.node(index),
                [
                    (
                        f"link add hand type vxlan id 99 dstport {_HAND_PORT} "
                        f"local {node_address(index)} remote {node_address(3 - index)} nolearning"
                    ),
                    f"link set hand netns {network}",
                ],
            )
            ip_batch(
                network,
                [
                    "link add br0 type bridge",
                    "link set br0 mtu 1450 up",
                    "link set hand mtu 1450 master br0 up",
                    f"link add h0 type veth peer name eth0 netns {host}",
                    "link set h0 mtu 1450 master br0 up",
                ],
            )
            ip_batch(
                host,
                ["link set eth0 mtu 1450 up", f"addr add 10.98.0.{index}/24 dev eth0"],
            )
        yield hosts[0], hosts[1]
    finally:
        for path in (*hosts, *networks):
            delete_namespace(path)
