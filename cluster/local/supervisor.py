"""Process 1 of a local cluster's namespaces: starts all that is in them, and answers for it.

Run as `python -m cluster.local.supervisor DIRECTORY` by `unshare` (see `cluster.cli.local`).
Invariant: it holds nothing outside its namespaces but files below DIRECTORY, so that its death is
the cluster's end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from pathlib import Path

import msgspec

from cluster.local.control import Answer, NodeStatus, Request
from cluster.local.daemons import LocalCluster, kill, make_underlay, reap, start_daemon
from cluster.local.forming import form, watch_ports
from cluster.local.layout import LocalNode, load
from cluster.model.errors import ClusterError, FailedPrecondition, Invalid
from cluster.task_group import TaskGroup

REQUEST_BYTES_MAX = 64 * 1024
CONNECT_TIMEOUT_S = 5.0


def connect_inside(node: LocalNode, request: Request) -> socket.socket:
    """Return a socket connected from the cluster's bridge to the node's published port."""
    kind = socket.SOCK_DGRAM if request.protocol == "udp" else socket.SOCK_STREAM
    made = socket.socket(socket.AF_INET, kind)
    made.settimeout(CONNECT_TIMEOUT_S)
    try:
        if request.source:
            made.bind((request.source, 0))
        made.connect((node.address, request.port))
    except OSError:
        made.close()
        raise
    return made


async def answer(
    cluster: LocalCluster, request: Request, stop: asyncio.Event
) -> tuple[Answer, socket.socket | None]:
    """Do what was asked.

    Raises:
        ClusterError, OSError: it cannot be done.
    """
    match request.do:
        case "status":
            return _status(cluster), None
        case "ports":
            cluster.unheard = request.unheard
            return Answer(ports=cluster.ports, nodes=_status(cluster).nodes), None
        case "stop":
            stop.set()
            return Answer(), None
        case "kill":
            node = cluster.layout.node(request.node)
            kill(cluster, node, tasks=request.tasks)
            while node.name in cluster.pids:  # noqa: ASYNC110  (the kernel is quick; bounded)
                await asyncio.sleep(0.005)
            return Answer(), None
        case "start":
            node = cluster.layout.node(request.node)
            if node.name in cluster.pids:
                raise FailedPrecondition(f"{node.name} is running")
            start_daemon(cluster, node)
            return Answer(), None
        case "connect":
            node = cluster.layout.node(request.node)
            return Answer(), await asyncio.to_thread(connect_inside, node, request)
        case _:
            raise Invalid(f"unknown request {request.do!r}")


def _status(cluster: LocalCluster) -> Answer:
    return Answer(
        error=cluster.error,
        ready=cluster.ready,
        progress=cluster.progress,
        ports=cluster.ports,
        unheard=cluster.unheard,
        nodes=[
            NodeStatus(
                name=node.name,
                address=node.address,
                host_address=node.host_address,
                socket=str(cluster.layout.socket(node)),
                pid=cluster.pids.get(node.name, 0),
            )
            for node in cluster.layout.nodes
        ],
    )


async def serve(cluster: LocalCluster, stop: asyncio.Event) -> None:
    """Answer on the control socket until cancelled."""
    loop = asyncio.get_running_loop()
    path = cluster.layout.control_socket
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(64)
    listener.setblocking(False)
    async with TaskGroup() as group:
        while True:
            connection, _ = await loop.sock_accept(listener)
            group.create_task(_one(cluster, connection, stop))


async def _one(cluster: LocalCluster, connection: socket.socket, stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    with connection:
        passed: socket.socket | None = None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S * 2):
                data = b""
                while not data.endswith(b"\n") and len(data) < REQUEST_BYTES_MAX:
                    chunk = await loop.sock_recv(connection, 65536)
                    if not chunk:
                        break
                    data += chunk
                reply, passed = await answer(cluster, msgspec.json.decode(data, type=Request), stop)
        except (ClusterError, OSError, TimeoutError, msgspec.MsgspecError) as error:
            reply = Answer(error=str(error) or type(error).__name__)
        with contextlib.suppress(OSError):
            encoded = msgspec.json.encode(reply)
            if passed is not None:
                socket.send_fds(connection, [encoded], [passed.fileno()])
                passed.close()
            else:
                await loop.sock_sendall(connection, encoded)


async def run(directory: Path) -> None:
    """Run the cluster in `directory` until told to stop."""
    cluster = LocalCluster(load(directory))
    make_underlay(cluster)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGCHLD, reap, cluster)
    for node in cluster.layout.nodes:
        start_daemon(cluster, node)
    async with TaskGroup() as group:
        running = [
            group.create_task(serve(cluster, stop)),
            group.create_task(watch_ports(cluster)),
            group.create_task(form(cluster)),
        ]
        await stop.wait()
        for task in running:
            task.cancel()


def main() -> None:
    """Entry point."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(run(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
