"""Nodes and managers together, over real TLS on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from cluster.ca.certificates import new_request
from cluster.ca.files import CertificateDirectory
from cluster.ca.tls import pinning_context
from cluster.dispatch.client import SessionClient
from cluster.dispatch.messages import LogRecord, ManagerAddress
from cluster.dispatch.port import ANONYMOUS_PER_ADDRESS_MAX, HANDSHAKES_PER_ADDRESS_MAX
from cluster.dispatch.requests import LogQuery
from cluster.model.errors import Forbidden
from cluster.model.ids import NodeId, ServiceId, TaskId
from cluster.model.logs import LogOptions, LogStream
from cluster.model.node import Role
from cluster.model.service import TaskSpec
from cluster.model.task import Task, TaskState, TaskStatus
from cluster.state.changes import DeleteNode, PutNode, PutTask
from tests.unit.dispatch.control_plane import (
    REGISTRATION,
    Certified,
    Manager,
    RecordingAgent,
    World,
    join_with,
    running,
    running_managers,
    wait_until,
)

T1 = TaskId("t1")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, lambda: datetime.now(UTC).timestamp())


@asynccontextmanager
async def session_of(
    certified: Certified, managers: Sequence[ManagerAddress]
) -> AsyncGenerator[tuple[SessionClient, RecordingAgent]]:
    agent = RecordingAgent()
    async with certified.peers() as peers, asyncio.TaskGroup() as group:
        client = SessionClient(
            agent=agent,
            connect=peers.open_session,
            registration=lambda: REGISTRATION,
            managers=managers,
            rng=Random(3),
        )
        running_client = group.create_task(client.run())
        yield client, agent
        running_client.cancel()


async def joined_worker(world: World, manager: Manager) -> Certified:
    joined = await join_with(world, [manager.address], world.cluster.join_tokens.worker)
    directory = CertificateDirectory(world.state / "joined")
    directory.save(joined.credentials)
    return Certified(world, joined.identity.node, directory)


def task_on(node: NodeId) -> Task:
    status = TaskStatus(TaskState.ASSIGNED)
    return Task(T1, ServiceId("s"), "web", TaskSpec("host", ("true",)), 1, node, status=status)


async def test_from_the_token_to_a_running_task(world: World) -> None:
    async with running(Manager(world)) as manager:
        worker = await joined_worker(world, manager)
        async with session_of(worker, [manager.at]) as (client, agent):
            await wait_until(lambda: bool(agent.assignments))
            await world.propose(PutTask(task_on(worker.node)))
            await wait_until(lambda: T1 in agent.assignments[-1].tasks)
            client.report({T1: TaskStatus(TaskState.RUNNING, 1.0, pid=42)})
            await wait_until(lambda: world.snapshot().tasks[T1].status.pid == 42)
            await wait_until(lambda: client.stats().statuses_waiting == 0)
            assert manager.sessions.sightings()[worker.node].has_session
        await wait_until(lambda: not manager.sessions.has_session(worker.node))
        assert not manager.sessions.sightings()[worker.node].has_session


async def test_a_session_moves_when_its_manager_stops(world: World) -> None:
    worker = world.certify(Role.WORKER)
    async with running_managers(world, 2) as (first, second):
        await world.add_node(worker, Role.WORKER)
        async with session_of(worker, [first.at]) as (client, agent):
            await wait_until(lambda: len(client.managers) == 2)
            await wait_until(lambda: bool(agent.assignments))
            assert client.stats().manager == first.node
            await first.port.close()
            await wait_until(lambda: client.stats().manager == second.node)
            await world.propose(PutTask(task_on(worker.node)))
            await wait_until(lambda: T1 in agent.assignments[-1].tasks)


async def test_a_removed_node_hears_it(world: World) -> None:
    async with running(Manager(world)) as manager:
        worker = world.certify(Role.WORKER)
        node = await world.add_node(worker, Role.WORKER)
        async with session_of(worker, [manager.at]) as (client, agent):
            await wait_until(lambda: bool(agent.assignments))
            await world.propose(DeleteNode(node.id))
            await wait_until(client.removed.is_set)
            await wait_until(lambda: client.stats().manager is None)
            assert "was removed from the cluster" in client.stats().last_error


async def test_a_node_that_was_removed_while_it_was_off_hears_it(world: World) -> None:
    async with running(Manager(world)) as manager:
        worker = world.certify(Role.WORKER)
        node = await world.add_node(worker, Role.WORKER)
        await world.propose(DeleteNode(node.id))
        async with session_of(worker, [manager.at]) as (client, agent):
            await wait_until(client.removed.is_set)
            assert "was removed from the cluster" in client.stats().last_error
            assert agent.assignments == []
            assert manager.barriers > 0


async def test_a_manager_that_is_behind_does_not_call_a_node_removed(world: World) -> None:
    async with running(Manager(world)) as manager:
        worker = world.certify(Role.WORKER)
        node = await world.add_node(worker, Role.WORKER)
        await world.propose(DeleteNode(node.id))  # as if it had not come yet
        manager.committed_elsewhere = (PutNode(node),)
        async with session_of(worker, [manager.at]) as (client, agent):
            await wait_until(lambda: bool(agent.assignments))
            assert not client.removed.is_set()
            assert manager.barriers == 1


async def test_a_manager_that_is_behind_does_not_renew_for_a_removed_node(world: World) -> None:
    async with running(Manager(world)) as manager:
        worker = world.certify(Role.WORKER)
        node = await world.add_node(worker, Role.WORKER)
        manager.committed_elsewhere = (DeleteNode(node.id, timestamp=world.clock()),)
        async with worker.peers() as peers:
            with pytest.raises(Forbidden, match="was removed from this cluster"):
                await peers.renew([manager.at], new_request().csr)


async def test_a_manager_that_has_not_caught_up_has_no_sessions(world: World) -> None:
    async with running(Manager(world)) as manager:
        manager.has_caught_up = False
        worker = world.certify(Role.WORKER)
        async with session_of(worker, [manager.at]) as (client, agent):
            await wait_until(lambda: "has not caught up" in client.stats().last_error)
            assert not client.removed.is_set()
            await world.add_node(worker, Role.WORKER)
            manager.has_caught_up = True
            await wait_until(lambda: bool(agent.assignments))


async def test_logs_are_read_through_any_manager(world: World) -> None:
    worker = world.certify(Role.WORKER)
    records = [LogRecord(T1, LogStream.STDOUT, n, b"line %d\n" % n) for n in range(500)]
    async with running_managers(world, 2) as (here, there):
        await world.add_node(worker, Role.WORKER)
        await world.propose(PutTask(task_on(worker.node)))
        async with session_of(worker, [there.at]) as (_, agent):
            agent.logs[T1] = records
            await wait_until(lambda: there.sessions.has_session(worker.node))
            async with here.certified.peers() as peers:
                for follow in (False, True):
                    query = LogQuery((T1, TaskId("unknown")), LogOptions(follow=follow))
                    pages = here.sessions.logs.read(
                        [(T1, worker.node)], query.options, [peers.logs(there.at, query)]
                    )
                    read: list[LogRecord] = []
                    async with asyncio.timeout(5), aclosing(pages) as source:
                        async for page in source:
                            read.extend(page)
                            if len(read) == len(records):
                                break
                    assert read == records
                    await wait_until(lambda: agent.open_logs == 0)


async def test_one_address_has_only_so_many_handshakes_under_way(world: World) -> None:
    """And other addresses are let in meanwhile: the worker calls from 127.0.0.1."""
    manager = Manager(world)
    worker = world.certify(Role.WORKER)
    async with running(manager), AsyncExitStack() as stack:
        await world.add_node(worker, Role.WORKER)
        host, _, port = manager.address.rpartition(":")
        for number in range(HANDSHAKES_PER_ADDRESS_MAX + 10):
            made = stack.enter_context(socket.socket())
            made.bind(("127.0.0.2", 0))
            made.connect((host, int(port)))
            await wait_until(lambda number=number: manager.port.stats().accepted > number)  # type: ignore[misc]
        stats = manager.port.stats()
        assert (stats.handshakes, stats.shed) == (HANDSHAKES_PER_ADDRESS_MAX, 10)
        async with session_of(worker, [manager.at]) as (_, agent):
            await wait_until(lambda: bool(agent.assignments))


async def test_strangers_without_a_certificate_are_few(world: World) -> None:
    manager = Manager(world)
    async with running(manager), AsyncExitStack() as stack:
        host, _, port = manager.address.rpartition(":")
        for _ in range(ANONYMOUS_PER_ADDRESS_MAX):
            _, writer = await asyncio.open_connection(host, int(port), ssl=pinning_context())
            stack.callback(writer.close)
        await wait_until(lambda: manager.port.stats().connections == ANONYMOUS_PER_ADDRESS_MAX)
        reader, writer = await asyncio.open_connection(host, int(port), ssl=pinning_context())
        stack.callback(writer.close)
        assert await reader.read() == b""
        assert manager.port.stats().refused == 1


async def test_closing_the_port_ends_all_connections(world: World) -> None:
    manager = Manager(world)
    worker = world.certify(Role.WORKER)
    async with running(manager):
        await world.add_node(worker, Role.WORKER)
        async with session_of(worker, [manager.at]) as (client, agent):
            await wait_until(lambda: bool(agent.assignments))
            assert manager.port.stats().connections == 1
            await manager.port.close()
            await wait_until(lambda: client.stats().manager is None)
            await wait_until(lambda: manager.port.stats().connections == 0)
