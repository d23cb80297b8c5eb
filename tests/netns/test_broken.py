"""A sandbox that cannot be made hinders no other: the same promises of both drivers."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncGenerator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Protocol

import pytest

from dataplane.driver import Outcome
from dataplane.memory import MemoryDriver
from dataplane.plan import NodePlan
from tests.netns.lab import Lab, lab, tcp_ask
from tests.netns.wire import encode_plan
from tests.netns.world import TCP_PORT, VIP, Replica, World

WEB = (Replica("a", 1, 11), Replica("b", 1, 12))
BOTH = World(1, WEB, WEB)
LATE = Replica("c", 1, 13)
ALL = World(1, (*WEB, LATE), WEB)


def mount_bind(source: str, target: Path) -> None:
    subprocess.run(["mount", "--bind", source, target], check=True)


class Subject(Protocol):
    """A driver with a machine that can be broken."""

    async def apply(self, plan: NodePlan) -> Outcome: ...

    def break_sandbox(self, name: str) -> None: ...

    def mend(self, name: str) -> None: ...

    async def answers(self, replica: Replica) -> bool:
        """Return whether `replica`, and the virtual address, lead to a sandbox that is there."""
        ...


class Memory:
    """The memory driver."""

    def __init__(self) -> None:
        self.driver = MemoryDriver()

    async def apply(self, plan: NodePlan) -> Outcome:
        return await self.driver.apply(plan)

    def break_sandbox(self, name: str) -> None:
        self.driver.obstacles[name] = "there is something in the way"

    def mend(self, name: str) -> None:
        del self.driver.obstacles[name]

    async def answers(self, replica: Replica) -> bool:
        chosen: IPv4Address | None = self.driver.connect(VIP)
        return self.driver.has_sandbox(replica.name) and chosen is not None


class Kernel:
    """The kernel driver: a directory in the place of the namespace's file is in the way."""

    def __init__(self, made: Lab) -> None:
        self.lab = made
        self.node = made.nodes[1]

    async def apply(self, plan: NodePlan) -> Outcome:
        answer = await self.node.ask(encode_plan(plan))
        return Outcome(answer.broken, answer.leftovers)

    def break_sandbox(self, name: str) -> None:
        self._place(name).mkdir(parents=True)

    def mend(self, name: str) -> None:
        self._place(name).rmdir()

    async def answers(self, replica: Replica) -> bool:
        try:
            await self.lab.serve(replica)
        except FileNotFoundError:
            return False
        try:
            name, client = await tcp_ask(self.lab.sandbox(replica), VIP, TCP_PORT)
        except OSError:
            return False
        finally:
            self.lab.stop(replica.name)
        return (name, client) == (replica.name, str(replica.address))

    def _place(self, name: str) -> Path:
        return self.node.directory / "netns" / f"t-{name}"


@pytest.fixture(params=["memory", "kernel"])
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Subject]:
    if request.param == "memory":
        yield Memory()
        return
    async with lab(tmp_path, nodes=1) as made:
        yield Kernel(made)


async def test_what_can_be_applied_is_applied(subject: Subject) -> None:
    world = replace(BOTH, backends=WEB[1:])
    subject.break_sandbox("a")
    outcome = await subject.apply(world.plan(1))
    assert outcome.broken.keys() == {"a"}
    assert outcome.broken["a"]
    assert outcome.leftovers == ()
    assert await subject.answers(WEB[1])


async def test_applying_again_tries_again(subject: Subject) -> None:
    plan = replace(BOTH, backends=WEB[:1]).plan(1)
    subject.break_sandbox("a")
    for _ in range(2):
        assert (await subject.apply(plan)).broken.keys() == {"a"}
    subject.mend("a")
    assert (await subject.apply(plan)).is_whole
    assert await subject.answers(WEB[0])


async def test_the_rest_can_change_meanwhile(subject: Subject) -> None:
    subject.break_sandbox("a")
    await subject.apply(replace(BOTH, backends=WEB[1:]).plan(1))
    world = replace(ALL, backends=(LATE,))
    assert (await subject.apply(world.plan(1))).broken.keys() == {"a"}
    assert await subject.answers(LATE)


async def test_a_sandbox_that_cannot_be_entered_is_left_alone_until_it_goes(three: Lab) -> None:
    node = three.nodes[1]
    place = node.directory / "netns" / "t-a"
    place.parent.mkdir(parents=True)
    place.touch()
    # A namespace, but of another kind.
    await asyncio.to_thread(mount_bind, "/proc/self/ns/uts", place)
    kernel = Kernel(three)
    outcome = await kernel.apply(replace(BOTH, backends=WEB[1:]).plan(1))
    assert outcome.broken.keys() == {"a"}
    assert "cannot be looked at" in outcome.broken["a"]
    assert place.exists()
    assert await kernel.answers(WEB[1])

    assert (await kernel.apply(replace(BOTH, replicas=WEB[1:]).plan(1))).is_whole
    assert not place.exists()


async def test_a_broken_sandbox_that_is_not_wanted_is_not_broken(subject: Subject) -> None:
    subject.break_sandbox("a")
    await subject.apply(BOTH.plan(1))
    outcome = await subject.apply(replace(BOTH, replicas=WEB[1:], backends=WEB[1:]).plan(1))
    assert outcome.broken == {}
    assert await subject.answers(WEB[1])
