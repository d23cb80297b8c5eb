"""Two nodes and a client in namespaces of their own, their data planes driven by plans.

The same topology as a cluster of two machines: a bridge as the switch, one namespace per node with
one interface, sandboxes below. Each node's `KernelDriver` runs in a process of its own inside the
node's namespace (`python -m bench.lab DIRECTORY INDEX`), applies the node's plan and waits.
Everything is on this machine, so "the wire" is a veth pair: no number here says what a real network
card does.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from dataplane.addressing import endpoint_mac, gateway_subnet
from dataplane.kernel.driver import KernelDriver
from dataplane.kernel.netns import (
    create_namespace,
    delete_namespace,
    run_in_namespace,
    write_sysctl,
)
from dataplane.plan import (
    IngressBackend,
    Interface,
    Network,
    NodePlan,
    Peer,
    Protocol,
    PublishedPort,
    RemoteEndpoint,
    Sandbox,
    Underlay,
    VirtualService,
)

PORT = 8080
SERVER_PORT = 80
VIP = IPv4Address("10.99.0.200")
_SUBNET = IPv4Network("10.99.0.0/24")
_NETWORK = "bench"
_VNI = 4200
_LAYOUT: dict[int, tuple[str, ...]] = {1: ("c1",), 2: ("s1", "s2", "s3")}
"""Node -> its sandboxes: one client, three servers."""
CLIENT_ADDRESS = IPv4Address("198.18.9.100")


def node_address(index: int) -> IPv4Address:
    """Return a node's address on the underlay."""
    return IPv4Address("198.18.9.0") + index


def sandbox_address(name: str) -> IPv4Address:
    """Return a sandbox's overlay address."""
    return _SUBNET.network_address + (10 if name[0] == "c" else 20) + int(name[1:])


def _gateway_host(name: str) -> int:
    return 1 + int(name[1:])


def lab_plan(index: int) -> NodePlan:
    """Return the plan of node `index`."""
    servers = _LAYOUT[2]
    return NodePlan(
        underlay=Underlay(index, node_address(index)),
        peers=tuple(Peer(other, node_address(other)) for other in _LAYOUT if other != index),
        networks=(
            Network(
                id=_NETWORK,
                name=_NETWORK,
                vni=_VNI,
                subnet=_SUBNET,
                gateway=_SUBNET.network_address + 1,
                remotes=tuple(
                    RemoteEndpoint(
                        sandbox_address(name),
                        endpoint_mac(sandbox_address(name)),
                        node_address(other),
                    )
                    for other, names in _LAYOUT.items()
                    if other != index
                    for name in names
                ),
                services=(VirtualService(VIP, tuple(sandbox_address(s) for s in servers)),),
            ),
        ),
        sandboxes=tuple(
            Sandbox(
                id=name,
                interfaces=(
                    Interface(_NETWORK, sandbox_address(name), endpoint_mac(sandbox_address(name))),
                ),
                gateway_address=gateway_subnet(index).network_address + _gateway_host(name),
            )
            for name in _LAYOUT[index]
        ),
        ports=(
            PublishedPort(
                Protocol.TCP,
                PORT,
                tuple(
                    IngressBackend(
                        2, gateway_subnet(2).network_address + _gateway_host(s), SERVER_PORT
                    )
                    for s in servers
                ),
            ),
        ),
    )


@dataclass(frozen=True, slots=True)
class Lab:
    """A running lab."""

    directory: Path

    def node(self, index: int) -> Path:
        """Return the namespace of a node."""
        return self.directory / f"node{index}"

    @property
    def client(self) -> Path:
        """Return the namespace of the client outside."""
        return self.directory / "client"

    def sandbox(self, name: str) -> Path:
        """Return the namespace of a sandbox."""
        index = next(i for i, names in _LAYOUT.items() if name in names)
        return KernelDriver(self.directory / f"run{index}").sandbox_path(name)

    def forget_closed_connections(self) -> None:
        """Keep no TIME_WAIT anywhere.

        A client soon reuses its ports, and whoever has fewer addresses to go to would wait: direct
        connections to one replica, and HAProxy's, were measured at a fraction of what they can do.
        """
        places = [self.client, *map(self.node, _LAYOUT)]
        places += [self.sandbox(name) for names in _LAYOUT.values() for name in names]
        for place in places:
            run_in_namespace(place, partial(write_sysctl, "net/ipv4/tcp_max_tw_buckets", "0"))


def inside(path: Path, *command: str) -> tuple[str, ...]:
    """Return a command that runs in a namespace."""
    return ("nsenter", f"--net={path}", *command)


def ip_batch(path: Path | None, lines: Sequence[str]) -> None:
    """Run `ip -batch` in a namespace (None: this one)."""
    text = "\n".join(lines).encode()
    run = partial(subprocess.run, ["ip", "-force", "-batch", "-"], input=text, check=True)
    run_in_namespace(path, run)


@asynccontextmanager
async def lab(directory: Path) -> AsyncGenerator[Lab]:
    """Make the lab while the block runs."""
    made = Lab(directory)
    switch = directory / "switch"
    namespaces = [switch, made.client, *(made.node(i) for i in _LAYOUT)]
    try:
        for path in namespaces:
            create_namespace(path)
        _wire(made, switch)
        async with contextlib.AsyncExitStack() as stack:
            for index in _LAYOUT:
                await stack.enter_async_context(_node(made, index))
            yield made
    finally:
        for index in _LAYOUT:
            for pinned in (directory / f"run{index}").rglob("*"):
                with contextlib.suppress(OSError):
                    delete_namespace(pinned)
        for path in namespaces:
            delete_namespace(path)


def _wire(made: Lab, switch: Path) -> None:
    ends = {"client": (made.client, CLIENT_ADDRESS)}
    ends |= {f"node{i}": (made.node(i), node_address(i)) for i in _LAYOUT}
    ip_batch(switch, ["link add br0 type bridge", "link set br0 up", "link set lo up"])
    for name, (path, address) in ends.items():
        ip_batch(
            switch,
            [
                f"link add {name} type veth peer name eth0 netns {path}",
                f"link set {name} master br0 up",
            ],
        )
        ip_batch(path, ["link set lo up", f"addr add {address}/24 dev eth0", "link set eth0 up"])


@asynccontextmanager
async def _node(made: Lab, index: int) -> AsyncGenerator[None]:
    command = inside(
        made.node(index), sys.executable, "-m", "bench.lab", str(made.directory), str(index)
    )
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(30):
            line = await process.stdout.readline() if process.stdout else b""
        if line != b"ready\n":
            raise RuntimeError(f"node {index} did not come up: {line!r}")
        yield
    finally:
        if process.stdin:
            process.stdin.close()
        await process.wait()


async def _run_node(directory: Path, index: int) -> None:
    driver = KernelDriver(directory / f"run{index}")
    await driver.apply(lab_plan(index))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await driver.apply(NodePlan())
    await driver.close()


if __name__ == "__main__":
    asyncio.run(_run_node(Path(sys.argv[1]), int(sys.argv[2])))
