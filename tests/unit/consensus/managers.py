"""Whole managers over loopback TLS, for tests: `async with running(...)`."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cluster.consensus.config import RaftConfig
from cluster.consensus.files import Directory
from cluster.consensus.founding import Bootstrap, Founding, Join
from cluster.consensus.members import Address
from cluster.consensus.node import RaftNode
from tests.unit.consensus.certificates import CLUSTER, Authority, client_context, server_context

KEY = bytes(range(32))
FAST = RaftConfig(election_timeout_s_min=0.1, election_timeout_s_max=0.25, heartbeat_s=0.03)


@dataclass(slots=True)
class Register:
    """A state machine that appends commands, to see each exactly once; `boom` raises."""

    applied: list[bytes] = field(default_factory=list[bytes])

    def apply(self, index: int, command: bytes) -> bytes:
        """Append, and answer how many there are."""
        if command == b"boom":
            raise RuntimeError(f"poison at {index}")
        self.applied.append(command)
        return str(len(self.applied)).encode()

    def dump(self) -> Callable[[], bytes]:
        """Return what gives all, newline-separated."""
        return partial(b"\n".join, tuple(self.applied))

    def restore(self, data: bytes) -> None:
        """Become `dump`'s."""
        self.applied = data.split(b"\n") if data else []


@dataclass(slots=True)
class Manager:
    """One running manager."""

    node: RaftNode
    machine: Register
    address: Address
    server: asyncio.Server
    task: asyncio.Task[None] | None = None


class Cluster:
    """Makes managers; each has a directory and a certificate."""

    def __init__(self, path: Path, *, config: RaftConfig = FAST) -> None:
        self.path = path
        self.config = config
        self.authority = Authority(path)
        self.certificates: dict[str, Path] = {}
        self.running: dict[str, Manager] = {}
        self.addresses: dict[str, Address] = {}
        self.disks: dict[str, str] = {}

    async def start(
        self,
        group: asyncio.TaskGroup,
        node_id: str,
        founding: Founding | None,
        *,
        directory: Path | Directory | None = None,
        run: Callable[[Manager], Coroutine[None, None, None]] | None = None,
    ) -> Manager:
        """Start a manager."""
        certificate = self.certificates.setdefault(node_id, self.authority.issue(node_id))
        context: ssl.SSLContext = client_context(self.authority, certificate)
        machine = Register()
        with ExitStack() as unless_started:
            listener = unless_started.enter_context(socket.create_server(("127.0.0.1", 0)))
            address: Address = ("127.0.0.1", listener.getsockname()[1])
            node = RaftNode(
                node_id=node_id,
                cluster_id=CLUSTER,
                directory=directory or self.path / node_id,
                address=address,
                machine=machine,
                client_context=lambda: context,
                data_key=KEY,
                founding=founding,
                config=self.config,
            )
            server = await asyncio.get_running_loop().create_server(
                node.protocol_factory,
                sock=listener,
                ssl=server_context(self.authority, certificate),
            )
            unless_started.pop_all()
        manager = Manager(node, machine, address, server)
        manager.task = group.create_task(run(manager) if run else node.run())
        self.running[node_id] = manager
        self.addresses[node_id] = address
        self.disks[node_id] = node.stats().disk_id
        return manager

    async def stop(self, node_id: str) -> None:
        """End a manager without warning."""
        manager = self.running.pop(node_id)
        for listener in manager.server.sockets:
            asyncio.get_running_loop().remove_reader(listener)
        # Python 3.11 never closes what it has accepted, and has not begun with, when a server ends.
        await asyncio.sleep(0)
        manager.server.close()
        if manager.task is not None:
            manager.task.cancel()
            await asyncio.wait([manager.task])

    async def grow(self, group: asyncio.TaskGroup, size: int) -> list[Manager]:
        """Start `n0` to `n<size - 1>` as one cluster."""
        first = await self.start(group, "n0", Bootstrap())
        for number in range(1, size):
            joiner = await self.start(group, f"n{number}", Join(dict(self.addresses)))
            await first.node.add_member(f"n{number}", joiner.address)
        return list(self.running.values())

    def leader(self) -> Manager:
        """Return the manager that leads."""
        return next(m for m in self.running.values() if m.node.is_leader)


@asynccontextmanager
async def running(
    path: Path, size: int, *, config: RaftConfig = FAST
) -> AsyncGenerator[tuple[Cluster, asyncio.TaskGroup]]:
    """Run a cluster of `size` managers; stop all of it at the end."""
    cluster = Cluster(path, config=config)
    async with asyncio.TaskGroup() as group:
        try:
            await cluster.grow(group, size)
            yield cluster, group
        finally:
            for node_id in list(cluster.running):
                await cluster.stop(node_id)


async def until(condition: Callable[[], bool], *, timeout_s: float = 5.0) -> None:
    """Return when `condition` holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)
