"""Nodes as network namespaces on a bridge, a client beside them, and servers in sandboxes.

Node I has 198.18.0.I on the underlay bridge, the client has 198.18.0.100. Each node's driver is a
process of its own (`tests.netns.node`), so that it can be killed; servers and clients are sockets
of the test process, opened inside the namespaces.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import socket
import struct
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import cast

import msgspec

from dataplane.kernel import netns
from dataplane.kernel import rtnetlink as rt
from dataplane.kernel.channel import Channel
from dataplane.plan import NodePlan
from tests.netns.wire import Answer, encode_plan
from tests.netns.world import CLIENT, TCP_PORT, UDP_PORT, Replica, World, underlay

_TIMEOUT_S = 5.0


@dataclass
class Node:
    """A node process and the namespace it drives."""

    namespace: Path
    directory: Path
    options: tuple[str, ...] = ()
    process: asyncio.subprocess.Process | None = None
    operations: int = 0

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.netns.node",
            str(self.namespace),
            str(self.directory),
            *self.options,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self.operations = 0

    async def ask(self, line: bytes) -> Answer:
        process = self.process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line)
        await process.stdin.drain()
        answer = msgspec.json.decode(await process.stdout.readline(), type=Answer)
        assert not answer.error, answer.error
        return answer

    async def apply(self, plan: NodePlan) -> int:
        """Apply a plan, all of it, and return how many operations that took."""
        answer = await self.ask(encode_plan(plan))
        assert not answer.broken, answer.broken
        assert not answer.leftovers, answer.leftovers
        made, self.operations = answer.operations - self.operations, answer.operations
        return made

    async def kill(self) -> None:
        """Kill the driver, with no time to clean up."""
        process, self.process = self.process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()


@dataclass
class Lab:
    """Nodes, the client and the servers."""

    directory: Path
    nodes: dict[int, Node] = field(default_factory=dict[int, Node])
    servers: dict[str, list[Callable[[], None]]] = field(
        default_factory=dict[str, list[Callable[[], None]]]
    )
    """How to close the servers of a replica."""

    @property
    def client(self) -> Path:
        return self.directory / "client"

    def sandbox(self, replica: Replica) -> Path:
        return self.nodes[replica.node].directory / "netns" / f"t-{replica.name}"

    async def apply(self, world: World) -> dict[int, int]:
        """Apply the world on every node; return the operations of each."""
        return {number: await node.apply(world.plan(number)) for number, node in self.nodes.items()}

    async def serve(self, *replicas: Replica) -> None:
        """Start a TCP and a UDP server in each sandbox; both answer `NAME CLIENT-ADDRESS`."""
        for replica in replicas:
            self.servers[replica.name] = [
                await serve_tcp(self, replica),
                await serve_udp(self, replica),
            ]

    def stop(self, *names: str) -> None:
        """Close the servers of replicas."""
        for name in names:
            for close in self.servers.pop(name):
                close()


@contextlib.asynccontextmanager
async def lab(
    directory: Path, nodes: int = 3, options: tuple[str, ...] = ()
) -> AsyncGenerator[Lab]:
    """Make the underlay and the nodes' processes; in the end, remove everything."""
    made = Lab(directory)
    bridge = directory / "underlay"
    try:
        netns.create_namespace(bridge)
        netns.run_in_namespace(bridge, _make_underlay)
        for number in [*range(1, nodes + 1), CLIENT]:
            path = made.client if number == CLIENT else directory / f"node{number}"
            netns.create_namespace(path)
            if number != CLIENT:
                made.nodes[number] = Node(path, directory / f"run{number}", options)
            _join(bridge, path, number)
        for node in made.nodes.values():
            await node.start()
        yield made
    finally:
        made.stop(*tuple(made.servers))
        for node in made.nodes.values():
            await node.kill()
            if (node.directory / "netns").exists():
                for path in (node.directory / "netns").iterdir():
                    if not path.is_dir():  # what a test has put in the way
                        netns.delete_namespace(path)
        for path in [node.namespace for node in made.nodes.values()]:
            netns.delete_namespace(path)
        netns.delete_namespace(made.client)
        netns.delete_namespace(bridge)


def _make_underlay() -> None:
    netns.write_sysctl("net/bridge/bridge-nf-call-iptables", "0")
    with Channel() as channel:
        channel.request(rt.set_link(1), rt.make_bridge("ul0", mtu=1500))


def _join(bridge: Path, path: Path, number: int) -> None:
    descriptor = netns.open_namespace(path)

    def cable() -> None:
        with Channel() as channel:
            channel.request(
                rt.make_veth(
                    f"node{number}",
                    master=socket.if_nametoindex("ul0"),
                    mtu=1500,
                    peer_name="eth0",
                    peer_mac=f"02:00:00:00:00:{number:02x}",
                    peer_namespace=descriptor,
                )
            )

    def configure() -> None:
        # As strict as a distribution may be.
        netns.write_sysctl("net/ipv4/conf/all/rp_filter", "1")
        netns.write_sysctl("net/ipv4/conf/default/rp_filter", "1")
        index = socket.if_nametoindex("eth0")
        with Channel() as channel:
            channel.request(
                rt.set_link(1),
                rt.set_address(index, underlay(number), 24),
                rt.set_link(index),
            )

    netns.run_in_namespace(bridge, cable)
    netns.run_in_namespace(path, configure)
    os.close(descriptor)


async def serve_tcp(made: Lab, replica: Replica) -> Callable[[], None]:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            host = writer.get_extra_info("peername")[0]
            writer.write(f"{replica.name} {host}\n".encode())
            while line := await reader.readline():
                writer.write(line)
        except ConnectionError:
            pass
        finally:
            writer.close()

    listener = netns.open_socket_in(made.sandbox(replica), socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", TCP_PORT))
    server = await asyncio.start_server(greet, sock=listener, backlog=512)
    return server.close


class _Greeter(asyncio.DatagramProtocol):
    def __init__(self, name: str) -> None:
        self._name = name
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:  # noqa: ARG002
        assert self._transport is not None
        self._transport.sendto(f"{self._name} {addr[0]}\n".encode(), addr)


async def serve_udp(made: Lab, replica: Replica) -> Callable[[], None]:
    bound = netns.open_socket_in(made.sandbox(replica), socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind(("0.0.0.0", UDP_PORT))
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Greeter(replica.name), sock=bound)
    return transport.close


@contextlib.asynccontextmanager
async def connection(
    place: Path, address: IPv4Address, port: int
) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect from a namespace; closed by reset, so that no client port stays in TIME_WAIT."""
    client = netns.open_socket_in(place, socket.AF_INET, socket.SOCK_STREAM)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await loop.sock_connect(client, (str(address), port))
    except BaseException:
        client.close()
        raise
    reader, writer = await asyncio.open_connection(sock=client)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def tcp_ask(place: Path, address: IPv4Address, port: int) -> tuple[str, str]:
    """Connect once and return who answered and what client address it saw."""
    async with connection(place, address, port) as (reader, _), asyncio.timeout(_TIMEOUT_S):
        name, host = (await reader.readline()).decode().split()
    return name, host


def udp_client(place: Path, address: IPv4Address, port: int, source: int = 0) -> socket.socket:
    """Return a connected datagram socket; source: its port."""
    client = netns.open_socket_in(place, socket.AF_INET, socket.SOCK_DGRAM)
    client.setblocking(False)
    client.bind(("0.0.0.0", source))
    client.connect((str(address), port))
    return client


async def udp_say(client: socket.socket) -> tuple[str, str]:
    """Send one datagram and return who answered and what client address it saw."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_TIMEOUT_S):
        await loop.sock_sendall(client, b"?")
        name, host = (await loop.sock_recv(client, 100)).decode().split()
    return name, host


async def udp_ask(place: Path, address: IPv4Address, port: int, source: int = 0) -> tuple[str, str]:
    """Send one datagram from a new socket and return the same."""
    with udp_client(place, address, port, source) as client:
        return await udp_say(client)


async def udp_count(
    place: Path, address: IPv4Address, port: int, times: int
) -> tuple[dict[str, int], set[str]]:
    """Ask from several ports, none of them twice: each is a new flow."""
    answers = [await udp_ask(place, address, port, 20000 + n) for n in range(times)]
    return dict(collections.Counter(name for name, _ in answers)), {host for _, host in answers}


Ask = Callable[[Path, IPv4Address, int], Awaitable[tuple[str, str]]]


async def count(
    ask: Ask, place: Path, address: IPv4Address, port: int, times: int
) -> tuple[dict[str, int], set[str]]:
    """Ask several times, one after the other: how often each answered, clients they saw."""
    answers = [await ask(place, address, port) for _ in range(times)]
    return dict(collections.Counter(name for name, _ in answers)), {host for _, host in answers}


@dataclass
class Load:
    """Clients that connect one time after the other, and what became of it."""

    answers: collections.Counter[str] = field(default_factory=collections.Counter[str])
    errors: list[str] = field(default_factory=list[str])
    is_over: bool = False

    async def run(self, place: Path, address: IPv4Address, port: int) -> None:
        """Connect until it is over."""
        while not self.is_over:
            try:
                name, _ = await tcp_ask(place, address, port)
            except (OSError, TimeoutError, ValueError) as error:
                self.errors.append(repr(error))
            else:
                self.answers[name] += 1

    async def wait_until_answers(self, more: int) -> None:
        """Wait until so many more connections succeeded."""
        goal = self.answers.total() + more
        async with asyncio.timeout(20):
            while self.answers.total() < goal:
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def load(
    place: Path, address: IPv4Address, port: int, clients: int = 4
) -> AsyncGenerator[Load]:
    """Keep connecting from a namespace while the body runs."""
    made = Load()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(made.run(place, address, port))
        try:
            yield made
        finally:
            made.is_over = True


async def ping(place: Path, address: IPv4Address, timeout_s: float = _TIMEOUT_S) -> None:
    """Wait for the answer to one ICMP echo request.

    Raises:
        TimeoutError: there is none.
    """
    with netns.open_socket_in(place, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.setblocking(False)
        raw.connect((str(address), 0))
        loop = asyncio.get_running_loop()
        request = struct.pack("!BBHHH", 8, 0, 0, 7, 1)
        checksum = ~sum(struct.unpack("!4H", request)) & 0xFFFF
        async with asyncio.timeout(timeout_s):
            await loop.sock_sendall(raw, struct.pack("!BBHHH", 8, 0, checksum, 7, 1))
            while (await loop.sock_recv(raw, 100))[20] != 0:
                pass
