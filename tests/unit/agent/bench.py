"""A worker on a test bench: memory runtime, memory driver, ether."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from cluster.agent.worker import Worker
from cluster.model.assignment import ClusterInfo
from cluster.model.ids import NodeId, TaskId
from cluster.model.task import TaskState, TaskStatus
from cluster.runtime.memory import MemoryRuntime
from dataplane.driver import Driver, DriverError, Outcome
from dataplane.memory import MemoryDriver
from dataplane.plan import NodePlan
from tests.unit.agent.ether import Ether, EtherPeer
from tests.unit.agent.objects import A

TIMEOUT_S = 60.0


class FlakyDriver(MemoryDriver):
    """A memory driver that fails when told to, and takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.failure = ""
        self.delay_s = 0.001
        self.plans: list[NodePlan] = []

    async def apply(self, plan: NodePlan) -> Outcome:
        await asyncio.sleep(self.delay_s)
        if self.failure:
            raise DriverError(self.failure)
        outcome = await super().apply(plan)
        self.plans.append(plan)
        return outcome


_: type[Driver] = FlakyDriver


class Bench:
    """Keep it over a simulated restart: processes and the kernel's state survive."""

    def __init__(self, directory: Path, *others: NodeId, node: NodeId = A) -> None:
        self.node = node
        self.directory = directory
        self.ether = Ether(node, *others)
        self.runtime = MemoryRuntime(clock_ns=lambda: 0)
        self.driver = FlakyDriver()
        self.named: list[NodePlan] = []
        self.open_ports: set[tuple[str, int]] | None = None
        """What every task listens on; None: nobody can tell."""
        self.started_at = 1000.0
        """Unix time when the loop's clock is 0."""
        self.hosts_answer = False
        """Whether dead nodes' hosts live."""
        self.reports: list[tuple[TaskId, TaskStatus]] = []
        self.remembered: list[ClusterInfo] = []
        self.peer = EtherPeer(self.ether, node)

    def states(self, task: TaskId) -> list[TaskState]:
        """Return the states that were reported of a task, in order, without repetitions."""
        states: list[TaskState] = []
        for reported, status in self.reports:
            if reported == task and status.state not in states[-1:]:
                states.append(status.state)
        return states

    def status(self, task: TaskId) -> TaskStatus:
        """Return what was last reported of a task."""
        return [status for reported, status in self.reports if reported == task][-1]

    async def _host_answers(self, address: str, port: int) -> bool:  # noqa: ARG002
        await asyncio.sleep(0.01)
        return self.hosts_answer

    @asynccontextmanager
    async def worker(self) -> AsyncGenerator[Worker]:
        """Run a worker; at the end its daemon is killed, as it were."""
        self.peer = EtherPeer(self.ether, self.node)

        async def apply_names(plan: NodePlan) -> None:
            self.named.append(plan)

        worker = Worker(
            node_id=self.node,
            runtime=self.runtime,
            driver=self.driver,
            gossip=self.peer,
            apply_names=apply_names,
            report=lambda task, status: self.reports.append((task, status)),
            state_directory=self.directory / "worker",
            remembered=self.remembered.append,
            host_answers=self._host_answers,
            now=lambda: self.started_at + asyncio.get_running_loop().time(),
            open_ports=None if self.open_ports is None else lambda _: self.open_ports or set(),
        )
        async with asyncio.TaskGroup() as group:
            running = group.create_task(worker.run())
            yield worker
            running.cancel()


async def wait_until(condition: Callable[[], object]) -> float:
    """Return once `condition` holds: the (virtual) seconds that it took."""
    clock = asyncio.get_running_loop().time
    begun = clock()
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():
            await asyncio.sleep(0.001)
    return clock() - begun
