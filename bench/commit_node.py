"""One manager of the commits benchmark: real consensus, real state, a bare HTTP front.

`python -m bench.commit_node DIRECTORY NUMBER`: reads its certificates and ports below DIRECTORY.
`POST /put` proposes one transaction: the status of one of TASKS tasks, with the body as message.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from pathlib import Path

from aiohttp import web

from cluster.ca.files import CertificateDirectory
from cluster.ca.tls import tls_contexts
from cluster.consensus.founding import Bootstrap, Join
from cluster.consensus.node import RaftNode
from cluster.dispatch.port import ControlPort
from cluster.model.ids import NodeId, ServiceId, TaskId
from cluster.model.service import TaskSpec
from cluster.model.task import Task, TaskState, TaskStatus
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


def application(raft: RaftNode, proposer: Proposer) -> web.Application:
    """Return the HTTP front."""
    numbers = itertools.count()

    async def put(request: web.Request) -> web.Response:
        status = TaskStatus(TaskState.RUNNING, 0.0, (await request.read()).decode())
        index = await proposer.propose([ReportStatus(task_id(next(numbers)), NODE, status)])
        return web.Response(text=str(index))

    async def leader(_: web.Request) -> web.Response:
        return web.Response(text=f"{int(raft.is_leader)} {len(raft.members())}")

    async def add(request: web.Request) -> web.Response:
        node, host, port = (await request.read()).decode().split()
        await raft.add_member(node, (host, int(port)))
        return web.Response()

    async def prepare(_: web.Request) -> web.Response:
        await fill(proposer)
        return web.Response()

    made = web.Application()
    made.add_routes(
        [
            web.post("/put", put),
            web.get("/leader", leader),
            web.post("/add", add),
            web.post("/fill", prepare),
        ]
    )
    return made


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
    runner = web.AppRunner(application(raft, Proposer(raft)), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", settings["http"][number]).start()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(raft.run())
        await asyncio.to_thread(sys.stdin.read)
        running.cancel()
    await port.close()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), int(sys.argv[2])))
