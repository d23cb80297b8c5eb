"""Peers over real loopback sockets, and who harms them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

from gossip.identity import Identity
from gossip.memory import MemoryAuthority
from gossip.peer import Address, GossipConfig, GossipKey, KeyState, Peer, State

CLUSTER = "c"
KEYS = (GossipKey(1, b"k" * 32, KeyState.PRIMARY),)
FAST = replace(
    GossipConfig.local(),
    probe_interval_s=0.05,
    probe_timeout_s=0.03,
    probe_timeout_min_s=0.01,
    suspicion_floor_s=0.1,
)
CALM = replace(GossipConfig.local(), probe_interval_s=2.0, probe_timeout_s=1.0)
MANY = 1500
LOOPBACK = ("127.0.0.1", 0)
Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
"""Of TLS: for streams that come in, and for those that go out."""


def make_peer(
    tmp_path: Path,
    name: str,
    *,
    config: GossipConfig = CALM,
    identity: Identity | None = None,
    contexts: Contexts | None = None,
) -> Peer:
    return Peer(
        node_id=name,
        cluster_id=CLUSTER,
        data_address="127.0.0.1",
        config=config,
        keys=KEYS,
        identity=identity or MemoryAuthority(CLUSTER).identity(name),
        state_directory=tmp_path / name,
        rng=Random(name),
        server_ssl=None if contexts is None else lambda: contexts[0],
        client_ssl=None if contexts is None else lambda: contexts[1],
    )


@asynccontextmanager
async def running(*peers: Peer) -> AsyncGenerator[list[asyncio.Task[None]]]:
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[None]] = []
        for peer in peers:
            tasks.append(group.create_task(peer.run(LOOPBACK, LOOPBACK)))
            await peer.ready.wait()
        for peer in peers[1:]:
            peer.join([address_of(peers[0])])
        yield tasks
        for task in tasks:
            task.cancel()


def address_of(peer: Peer) -> Address:
    assert peer.advertised is not None
    return peer.advertised


async def wait_until(peers: Sequence[Peer], holds: Callable[[], bool]) -> None:
    """Wait for changes of `peers`, one after the other, until `holds()`."""
    for peer in peers:
        with peer.watch() as changed:
            while not holds():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):  # another peer's change may be the last
                        await changed.wait()
                changed.clear()


def states_of(peer: Peer) -> dict[str, State]:
    return {view.node_id: view.state for view in peer.members()}


def records_of(peer: Peer) -> dict[tuple[str, str], bytes]:
    return {(view.owner, view.key): view.value for view in peer.records("net")}


async def send_junk(address: Address, *, context: ssl.SSLContext | None = None) -> None:
    """Send datagrams and streams of junk, these in TLS if there is a context for it."""
    loop, rng = asyncio.get_running_loop(), Random(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        for size in range(0, 2000, 20):
            await loop.sock_sendto(sender, rng.randbytes(size), address)
    for junk in (b"\0", b"\xff" * 50, b"\0\0\0\x10" + rng.randbytes(16), b"GET / HTTP/1.1\r\n"):
        await send_stream(address, junk, context=context)


async def send_stream(
    address: Address, data: bytes, *, context: ssl.SSLContext | None = None
) -> None:
    """Open a connection, send something, and close it."""
    _, writer = await asyncio.open_connection(*address, ssl=context)
    writer.write(data)
    with contextlib.suppress(ConnectionError):
        await writer.drain()
        writer.close()
        await writer.wait_closed()


def fill(a: Peer, b: Peer) -> None:
    """Let `a` have more to tell `b` than datagrams are for: `MANY` records."""
    for peer in (a, b):
        peer.attach("net")
    for number in range(MANY):
        a.publish("net", f"key{number}", b"v" * 200)
