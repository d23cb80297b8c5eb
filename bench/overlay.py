"""Throughput through an overlay network beside a VXLAN made by hand between the same namespaces.

Both go sandbox - bridge - VXLAN - node - switch - node - VXLAN - bridge - sandbox, from the same
sandbox to the same sandbox (so both pass the sandboxes' own firewall tables) over the same veth
pairs, one TCP stream (iperf3), rounds interleaved, best of each: the ratio says what our devices'
set-up costs, nothing about real links.
"""

from __future__ import annotations

import asyncio
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
        async with lab(directory) as made, _by_hand(made):
            addresses = {"hivewire": sandbox_address("s1"), "by hand": IPv4Address("10.98.0.2")}
            best = dict.fromkeys(addresses, 0.0)
            server = inside(made.sandbox("s1"), "iperf3", "-s")
            async with running(*server, log=directory / "iperf3.log"):
                await asyncio.sleep(0.5)  # iperf3 has no way to say that it listens
                for _ in range(ROUNDS):
                    for label, address in addresses.items():
                        rate = await _stream(made.sandbox("c1"), address)
                        best[label] = max(best[label], rate)
    for label, gigabits in best.items():
        say(f"{label}: {gigabits:.2f} Gb/s (best of {ROUNDS} x {SECONDS} s)")
    ratio("overlay", best["hivewire"], best["by hand"])


async def _stream(client: Path, address: IPv4Address) -> float:
    command = inside(client, "iperf3", "-c", str(address), "-t", str(SECONDS), "-J")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return float(json.loads(output)["end"]["sum_received"]["bits_per_second"]) / 1e9


@asynccontextmanager
async def _by_hand(made: Lab) -> AsyncGenerator[None]:
    """Make the peer: on each node a namespace with bridge and VXLAN, with a port in the sandbox."""
    networks = [made.directory / f"handnet{i}" for i in (1, 2)]
    try:
        for index, network in enumerate(networks, start=1):
            sandbox = made.sandbox("c1" if index == 1 else "s1")
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
                    f"link add h0 type veth peer name hand0 netns {sandbox}",
                    "link set h0 mtu 1450 master br0 up",
                ],
            )
            ip_batch(
                sandbox,
                ["link set hand0 mtu 1450 up", f"addr add 10.98.0.{index}/24 dev hand0"],
            )
        yield
    finally:
        for path in networks:
            delete_namespace(path)
