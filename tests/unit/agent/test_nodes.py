"""Several workers on one ether: they find each other's tasks, and drain together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from random import Random

import pytest

from cluster.agent.worker import Worker
from cluster.model.assignment import Assignment
from cluster.model.ids import NodeId
from cluster.model.service import EndpointMode
from cluster.model.task import Task, TaskState, is_ended
from dataplane.plan import Protocol
from gossip.wire import State
from tests.unit.agent.bench import Bench, wait_until
from tests.unit.agent.ether import Ether
from tests.unit.agent.objects import (
    A,
    B,
    C,
    assignment,
    desire,
    info,
    published,
    service,
    task,
)
from tests.unit.virtual_time import virtual

S = TaskState
PUBLISHED = service(EndpointMode.VIP, published())


def on(node: NodeId, number: int) -> Task:
    return replace(task(number), node=node)


def benches(directory: Path, *nodes: NodeId) -> dict[NodeId, Bench]:
    ether = Ether(*nodes)
    made = {node: Bench(directory / node, node=node) for node in nodes}
    for bench in made.values():
        bench.ether = ether
    return made


def backends(bench: Bench) -> set[str]:
    networks = bench.driver.plan.networks
    return {str(b) for n in networks for s in n.services for b in s.backends}


def sees(bench: Bench, addresses: set[str]) -> bool:
    return backends(bench) == addresses


def reaches(bench: Bench, remotes: int) -> bool:
    return len(bench.driver.plan.networks[0].remotes) == remotes


def answers_from(bench: Bench, tasks: int) -> bool:
    return len({bench.driver.connect_port(Protocol.TCP, 8080) for _ in range(tasks)}) == tasks


def told(worker: Worker, assigned: Assignment) -> Worker:
    worker.set_cluster_info(info())
    worker.set_assignment(assigned)
    return worker


@virtual
async def test_every_node_reaches_every_task(tmp_path: Path) -> None:
    nodes = benches(tmp_path, A, B, C)
    async with AsyncExitStack() as stack:
        for number, (node, bench) in enumerate(nodes.items(), start=1):
            worker = await stack.enter_async_context(bench.worker())
            told(worker, assignment(on(node, number), services=(PUBLISHED,)))
        everywhere = {"10.0.1.11", "10.0.1.12", "10.0.1.13"}
        for bench in nodes.values():
            await wait_until(partial(sees, bench, everywhere))
            await wait_until(partial(answers_from, bench, 3))
            assert len(bench.driver.plan.networks[0].remotes) == 2
            assert len(bench.driver.plan.peers) == 2


@virtual
async def test_no_node_connects_to_a_task_that_was_sent_its_signal(tmp_path: Path) -> None:
    nodes = benches(tmp_path, A, B, C)
    nodes[B].driver.delay_s = 0.3
    async with AsyncExitStack() as stack:
        workers: dict[NodeId, Worker] = {}
        for number, (node, bench) in enumerate(nodes.items(), start=1):
            workers[node] = await stack.enter_async_context(bench.worker())
            told(workers[node], assignment(on(node, number), services=(PUBLISHED,)))
        await wait_until(lambda: all(len(backends(b)) == 3 for b in nodes.values()))

        one = on(A, 1)
        workers[A].set_assignment(desire(assignment(one, services=(PUBLISHED,)), S.SHUTDOWN, 1))
        took_s = await wait_until(lambda: S.SHUTDOWN in nodes[A].states(one.id))
        assert all("10.0.1.11" not in backends(b) for b in nodes.values())
        assert 0.3 < took_s < 1.5
        assert workers[A].stats().drains_timed_out == 0
        for bench in (nodes[B], nodes[C]):
            await wait_until(partial(reaches, bench, 1))


@virtual
async def test_partition_hides_and_healing_restores(tmp_path: Path) -> None:
    nodes = benches(tmp_path, A, B)
    async with AsyncExitStack() as stack:
        for number, (node, bench) in enumerate(nodes.items(), start=1):
            worker = await stack.enter_async_context(bench.worker())
            told(worker, assignment(on(node, number)))
        await wait_until(lambda: len(backends(nodes[A])) == 2)
        before = nodes[A].driver.plan
        for _ in range(3):
            nodes[A].ether.set_state(B, State.DEAD)
            await wait_until(lambda: backends(nodes[A]) == {"10.0.1.11"})
            await asyncio.sleep(30)
            nodes[A].ether.set_state(B, State.ALIVE)
            await wait_until(lambda: nodes[A].driver.plan == before)


TASKS = 6
ROUNDS = 25


@pytest.mark.parametrize("seed", range(12))
@virtual
async def test_whatever_happens_the_node_ends_as_wanted(tmp_path: Path, seed: int) -> None:
    """Orders, exits, driver failures and restarts at random; then peace, then look."""
    rng = Random(seed)
    numbers = count(1)
    bench = Bench(tmp_path, B)
    wanted = Assignment()
    for _ in range(3):
        async with bench.worker() as worker:
            told(worker, wanted)
            for _ in range(ROUNDS):
                wanted = _disturb(bench, worker, wanted, rng, numbers)
                await asyncio.sleep(rng.choice([0.0, 0.001, 0.02, 0.3, 3.0]))
    bench.driver.failure = ""
    async with bench.worker() as worker:
        told(worker, wanted)
        await asyncio.sleep(60)
        _check(bench, worker, wanted, await bench.runtime.adopt())
        await worker.leave()
        assert await bench.runtime.adopt() == []
        assert bench.driver.plan.sandboxes == ()


def _disturb(
    bench: Bench, worker: Worker, wanted: Assignment, rng: Random, numbers: Iterator[int]
) -> Assignment:
    match rng.randrange(5):
        case 0:
            bench.driver.failure = rng.choice(["", "", "broken"])
        case 1:
            running = [t for t, s in worker.statuses().items() if s.state is S.RUNNING]
            if running:
                bench.runtime.finish(rng.choice(sorted(running)), rng.randrange(2))
        case 2:
            kept = [t for t in wanted.tasks.values() if rng.random() < 0.8]
            wanted = assignment(*kept[-TASKS:], task(next(numbers)), services=(PUBLISHED,))
        case 3:
            chosen = [t.slot for t in wanted.tasks.values() if rng.random() < 0.3]
            wanted = desire(wanted, S.SHUTDOWN, *chosen)
        case _:
            bench.ether.set_state(B, rng.choice([State.ALIVE, State.SUSPECT, State.DEAD]))
    worker.set_assignment(wanted)
    return wanted


def _check(bench: Bench, worker: Worker, wanted: Assignment, kept: Sequence[str]) -> None:
    statuses = worker.statuses()
    assert statuses.keys() == wanted.tasks.keys()
    running = {t for t, status in statuses.items() if status.state is S.RUNNING}
    for task_id, made in wanted.tasks.items():
        is_settled = task_id in running or is_ended(statuses[task_id].state)
        assert is_settled, statuses[task_id]
        assert not (is_ended(made.desired_state) and task_id in running)
    assert {s.id for s in bench.driver.plan.sandboxes} == running
    addresses = {wanted.tasks[t].attachments[0].address for t in running}
    assert backends(bench) == addresses
    assert {t for t in wanted.tasks if t in bench.ether.said_by(A, "net1")} == running
    assert running <= set(kept)
    assert set(kept) <= set(wanted.tasks)
    _check_reports(bench)


def _check_reports(bench: Bench) -> None:
    last: dict[str, TaskState] = {}
    for task_id, status in bench.reports:
        assert status.state >= last.get(task_id, S.NEW), bench.states(task_id)
        last[task_id] = status.state


@virtual
async def test_address_is_free_for_the_next_task(tmp_path: Path) -> None:
    """The managers may give an ended task's addresses to another one at once."""
    bench = Bench(tmp_path)
    async with bench.worker() as worker:
        told(worker, assignment(task(1)))
        await wait_until(lambda: backends(bench) == {"10.0.1.11"})
        heir = replace(task(2), attachments=task(1).attachments, gateway_host=11)
        bench.runtime.finish(task(1).id, 1)
        await wait_until(lambda: S.FAILED in bench.states(task(1).id))
        worker.set_assignment(assignment(task(1), heir))
        await wait_until(lambda: S.RUNNING in bench.states(heir.id))
        await wait_until(partial(sees, bench, {"10.0.1.11"}))
        assert [s.id for s in bench.driver.plan.sandboxes] == [heir.id]
