"""One manager of the commits benchmark: real consensus, real state, a bare HTTP front.

`python -m bench.commit_node DIRECTORY NUMBER`: reads its certificates and ports below DIRECTORY.
`POST /put` proposes one transaction: the status of one of TASKS tasks, with the body as message.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

from aiohttp import web

from cluster.ca.files import CertificateDirectory
from cluster.ca.tls import tls_contexts
from cluster.consensus.founding import Bootstrap, Join
from cluster.consensus.node import RaftNode
from cluster.dispatch.port import ControlPort
from cluster.model.ids import NodeId, ServiceId, TaskId
from cluster.model.service import TaskSpec
from cluster.model.task import Task, TaskState, TaskStatus
from cluster.node import footprint
from cluster.state.changes import PutTask, ReportStatus
from cluster.store.proposer import Proposer
from cluster.store.replica import Replica

TASKS = 1000
NODE = NodeId("bench")


def task_id(number: int) -> TaskId:
    """Return the id of one of the tasks."""
    return TaskId(f"task{number % TASKS:021d}")


async def fill(proposer: Proposer) -> None:
    """Create the tasks."""
    for start in range(0, TASKS, 100):
        await proposer.propose(
            [
                PutTask(Task(task_id(n), ServiceId("s"), "web", TaskSpec("host"), n, NODE))
                for n in range(start, start + 100)
            ]
        )


class Front(asyncio.Protocol):
    """HTTP/1.1 on kept-alive connections, no more than the benchmark's client needs.

    A web framework costs more than the commit and would be what is measured.
    """

    def __init__(
        self, serve: Callable[[str, bytes], Awaitable[str]], group: asyncio.TaskGroup
    ) -> None:
        self._serve = serve
        self._group = group
        self._received = b""
        self._is_open = True
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to answer."""
        self._transport = cast("asyncio.Transport", transport)
        self._group.create_task(self._answer_all())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Stop answering."""
        self._is_open = False
        self._news.set()

    def data_received(self, data: bytes) -> None:
        """Have it looked at."""
        self._received += data
        self._news.set()

    async def _answer_all(self) -> None:
        while self._is_open:
            head, end, rest = self._received.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            if not end or len(rest) < length:
                self._news.clear()
                await self._news.wait()
                continue
            self._received = rest[length:]
            text = (await self._serve(head.split(b" ", 2)[1].decode(), rest[:length])).encode()
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text)
            self._transport.write(head + text)


def serving(raft: RaftNode, proposer: Proposer) -> Callable[[str, bytes], Awaitable[str]]:
    """Return what answers requests."""
    numbers = itertools.count()

    async def serve(path: str, body: bytes) -> str:
        match path:
            case "/put":
                status = TaskStatus(TaskState.RUNNING, 0.0, body.decode())
                change = ReportStatus(task_id(next(numbers)), NODE, status)
                return str(await proposer.propose([change]))
            case "/add":
                node, host, port = body.decode().split()
                await raft.add_member(node, (host, int(port)))
            case "/fill":
                await fill(proposer)
            case _:
                pass
        return f"{int(raft.is_leader)} {len(raft.members())}"

    return serve


async def run(directory: Path, number: int) -> None:
    """Serve until the standard input closes."""
    settings = json.loads((directory / "settings.json").read_text())
    nodes = settings["nodes"]
    certificates = CertificateDirectory(directory / nodes[number])
    contexts = tls_contexts(certificates, settings["cluster"])
    first = {nodes[0]: ("127.0.0.1", settings["raft"][0])}
    replica = Replica()
    raft_directory = directory / f"raft{number}"
    raft_directory.mkdir()
    raft = RaftNode(
        node_id=nodes[number],
        cluster_id=settings["cluster"],
        directory=raft_directory,
        address=("127.0.0.1", settings["raft"][number]),
        machine=replica,
        client_context=lambda: contexts.raft,
        data_key=bytes(range(32)),
        founding=Join(first) if number else Bootstrap(),
    )
    port = ControlPort(
        context=contexts.server,
        application=web.Application(),
        raft=raft.protocol_factory,
        cluster=settings["cluster"],
        clock=lambda: settings["now"],
    )
    await port.open("127.0.0.1", settings["raft"][number])
    footprint.after_start()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(raft.run())
        accepting = group.create_task(port.run())
        serve = serving(raft, Proposer(raft))
        server = await asyncio.get_running_loop().create_server(
            lambda: Front(serve, group), "127.0.0.1", settings["http"][number]
        )
        await asyncio.to_thread(sys.stdin.read)
        server.close()
        running.cancel()
        accepting.cancel()
    await port.close()


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), int(sys.argv[2])))
