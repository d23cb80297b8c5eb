"""The forwarder of a local cluster: published ports on one 127.0.x.y address per node.

Runs in the host's network namespace as `python -m cluster.local.forward DIRECTORY`. It asks the
supervisor which ports are published and for sockets connected inside, and copies bytes. It ends
when the supervisor does. The service sees the bridge's own address as client: whoever wants to see
client addresses kept enters the cluster's bridge (`local exec`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Protocol, cast

from cluster.local.control import Answer, NodeStatus, Request, ask, ask_with_socket
from cluster.local.layout import load
from cluster.model.errors import ClusterError, Unavailable
from cluster.task_group import TaskGroup

logger = logging.getLogger(__name__)

POLL_S = 0.25
CONNECTIONS_MAX = 1024
"""Forwarded TCP connections at once; further ones are refused."""
UDP_CLIENTS_MAX = 1024
"""UDP clients remembered; the oldest is forgotten."""
UDP_QUEUE_MAX = 256
"""Datagrams of one port waiting to be forwarded."""
UNHEARD_MAX = 50
"""Ports that the supervisor is told of as not listened for."""
CHUNK_BYTES = 64 * 1024

Listener = tuple[str, str, int]
"""(node's name, protocol, port)."""
_Address = tuple[str, int]


class _Closable(Protocol):
    def close(self) -> None: ...


class Forwarder:
    """Listens where nodes publish."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self._open: dict[Listener, _Closable] = {}
        self._failed: dict[Listener, str] = {}
        """What cannot be listened for, and why."""
        self._connections = 0

    async def run(self) -> None:
        """Follow the supervisor until it is gone."""
        async with TaskGroup() as group:
            while True:
                request = Request(do="ports", unheard=self._unheard())
                try:
                    answer = await asyncio.to_thread(ask, self._control, request)
                except Unavailable:
                    break
                await self._follow(answer, group)
                await asyncio.sleep(POLL_S)
            for listener in self._open.values():
                listener.close()

    async def _follow(self, answer: Answer, group: TaskGroup) -> None:
        wanted = {
            (node.name, protocol, port): node
            for node in answer.nodes
            for protocol, port in answer.ports
        }
        for key in self._open.keys() - wanted.keys():
            self._open.pop(key).close()
        self._failed = {key: why for key, why in self._failed.items() if key in wanted}
        for key in sorted(wanted.keys() - self._open.keys()):
            try:
                self._open[key] = await self._listen(key, wanted[key], group)
                self._failed.pop(key, None)
            except OSError as error:
                if key not in self._failed:
                    logger.warning("cannot listen, will retry: address=%s port=%s error=%s",
                                   wanted[key].host_address, key[2], error)  # fmt: skip
                where = f"port {key[2]}/{key[1]} of {wanted[key].host_address}"
                self._failed[key] = f"{where}: {os.strerror(error.errno or 0)}"

    def _unheard(self) -> list[str]:
        return [why for _, why in sorted(self._failed.items())][:UNHEARD_MAX]

    async def _listen(self, key: Listener, node: NodeStatus, group: TaskGroup) -> _Closable:
        _, protocol, port = key
        if protocol != "udp":
            return await asyncio.start_server(
                partial(self._forward, key), node.host_address, port, backlog=1024
            )
        loop = asyncio.get_running_loop()
        _, forward = await loop.create_datagram_endpoint(
            partial(_UdpForward, self._connect, key), local_addr=(node.host_address, port)
        )
        return _UdpListener(forward, group.create_task(forward.run()))

    async def _connect(self, key: Listener) -> socket.socket:
        name, protocol, port = key
        request = Request(do="connect", node=name, protocol=protocol, port=port)
        _, inside = await asyncio.to_thread(ask_with_socket, self._control, request)
        if inside is None:
            raise Unavailable("the supervisor sent no socket")
        inside.setblocking(False)
        return inside

    async def _forward(
        self, key: Listener, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._connections >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._connections += 1
        try:
            inside = await self._connect(key)
            there_reader, there_writer = await asyncio.open_connection(sock=inside)
            async with TaskGroup() as group:
                group.create_task(_copy(reader, there_writer))
                group.create_task(_copy(there_reader, writer))
        except* (ClusterError, OSError):
            writer.transport.abort()
        finally:
            self._connections -= 1
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


class _UdpListener:
    """An open UDP port and the task that serves it."""

    def __init__(self, forward: _UdpForward, task: asyncio.Task[None]) -> None:
        self._forward = forward
        self._task = task

    def close(self) -> None:
        """Stop listening."""
        self._task.cancel()
        if self._forward.transport is not None:
            self._forward.transport.close()


class _UdpForward(asyncio.DatagramProtocol):
    """One published UDP port of one node: a connected socket inside for every client.

    Datagrams wait in a bounded queue for one worker, which makes the sockets in turn.
    """

    def __init__(
        self, connect: Callable[[Listener], Awaitable[socket.socket]], key: Listener
    ) -> None:
        self._connect = connect
        self._key = key
        self._clients: dict[_Address, asyncio.DatagramTransport] = {}
        self.arrived: asyncio.Queue[tuple[bytes, _Address]] = asyncio.Queue(UDP_QUEUE_MAX)
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the listening transport."""
        # Not isinstance: CPython's own transport became a DatagramTransport only in 3.12.
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: _Address) -> None:
        """Queue it; a full queue drops it, as UDP may."""
        with contextlib.suppress(asyncio.QueueFull):
            self.arrived.put_nowait((data, addr))

    async def run(self) -> None:
        """Forward what arrives until cancelled."""
        try:
            while True:
                data, client = await self.arrived.get()
                with contextlib.suppress(ClusterError, OSError):
                    (await self._inside(client)).sendto(data)
        finally:
            for inside in self._clients.values():
                inside.close()

    async def _inside(self, client: _Address) -> asyncio.DatagramTransport:
        known = self._clients.pop(client, None)
        if known is None or known.is_closing():
            while len(self._clients) >= UDP_CLIENTS_MAX:
                self._clients.pop(next(iter(self._clients))).close()
            made = await self._connect(self._key)
            loop = asyncio.get_running_loop()
            known, _ = await loop.create_datagram_endpoint(
                partial(_UdpReturn, self, client), sock=made
            )
        self._clients[client] = known  # the most recently used is last
        return known


class _UdpReturn(asyncio.DatagramProtocol):
    """What comes back for one client."""

    def __init__(self, forward: _UdpForward, client: _Address) -> None:
        self._forward = forward
        self._client = client

    def datagram_received(self, data: bytes, addr: _Address) -> None:
        """Hand it to the client."""
        del addr
        if self._forward.transport is not None:
            self._forward.transport.sendto(data, self._client)


def main() -> None:
    """Entry point."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(Forwarder(load(Path(sys.argv[1])).control_socket).run())


if __name__ == "__main__":
    main()
