"""When the core ticks, and what waits meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from typing import cast

from cluster.consensus.core import RaftCore
from cluster.consensus.driver import WAITING_MAX, Driver
from cluster.consensus.errors import StorageFailure
from tests.unit.consensus.managers import until


class Core:
    """Ticks as a RaftCore does; each waits for the jobs that are there by then."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []
        self.ticks = 0
        """That have ended."""

    def begin_tick(self) -> Generator[Callable[[], None], None, bool]:
        jobs, self.jobs = self.jobs, []
        yield from jobs
        self.ticks += 1
        return False

    def next_deadline(self) -> float:
        return float("inf")


class Bench:
    def __init__(self) -> None:
        self.core = Core()
        self.said: list[str] = []
        self.disk_answers = threading.Event()
        self.driver = Driver(
            after_tick=lambda: self.said.append("tick"),
            pause_reading=lambda: self.said.append("pause"),
            resume_reading=lambda: self.said.append("resume"),
        )

    def enter(self, name: str, *, is_tick_due: bool = False) -> None:
        def call() -> bool:
            self.said.append(name)
            return is_tick_due

        self.driver.enter(call)

    async def stall(self) -> None:
        """Begin a tick that waits for the disk."""

        def wait() -> None:
            assert self.disk_answers.wait(20)

        self.core.jobs = [wait]
        self.driver.start(cast("RaftCore", self.core))
        await until(lambda: self.driver.disk_wait_s > 0.0)


async def test_what_comes_during_a_tick_enters_after_it_in_order() -> None:
    bench = Bench()
    await bench.stall()
    bench.enter("a", is_tick_due=True)
    bench.enter("b")
    bench.driver.kick()
    await asyncio.sleep(0.02)
    assert bench.said == []

    bench.disk_answers.set()
    await until(lambda: bench.core.ticks == 2)
    assert bench.said == ["tick", "a", "b", "tick"]
    bench.driver.stop()


async def test_peers_are_held_back_while_much_waits() -> None:
    bench = Bench()
    await bench.stall()
    for _ in range(WAITING_MAX - 1):
        bench.enter("a")
    assert bench.said == []
    bench.enter("a")
    assert bench.said == ["pause"]
    bench.enter("a")

    bench.disk_answers.set()
    await until(lambda: bench.core.ticks == 1)
    assert bench.said == ["pause", "tick", "resume", *["a"] * (WAITING_MAX + 1)]
    bench.driver.stop()


async def test_a_disk_that_fails_ends_it_and_nothing_enters_any_more() -> None:
    bench = Bench()

    def fail() -> None:
        raise StorageFailure("no space left on device")

    bench.core.jobs = [fail]
    bench.driver.start(cast("RaftCore", bench.core))
    bench.driver.kick()
    assert "no space left" in str(await bench.driver.failure)
    bench.enter("a", is_tick_due=True)
    await asyncio.sleep(0.01)
    assert (bench.core.ticks, bench.said) == (0, [])
