"""The memory driver keeps the promises that the kernel driver's tests in tests/netns check."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address

from dataplane.memory import MemoryDriver
from dataplane.plan import NodePlan, Protocol
from tests.netns.world import PUBLISHED, TCP_PORT, VIP, Replica, World

WEB = (Replica("a", 1, 11), Replica("b", 2, 12), Replica("c", 3, 13))
WORLD = World(3, WEB, WEB)


async def test_virtual_address_balances_exactly() -> None:
    driver = MemoryDriver()
    await driver.apply(WORLD.plan(1))

    assert Counter(driver.connect(VIP) for _ in range(90)) == dict.fromkeys(
        (replica.address for replica in WEB), 30
    )


async def test_published_port_balances_exactly() -> None:
    driver = MemoryDriver()
    await driver.apply(WORLD.plan(2))
    answers = Counter(driver.connect_port(Protocol.TCP, PUBLISHED) for _ in range(90))

    assert answers == {(replica.gateway_address, TCP_PORT): 30 for replica in WEB}


async def test_without_backends_nothing_answers() -> None:
    driver = MemoryDriver()
    await driver.apply(replace(WORLD, backends=()).plan(1))

    assert driver.connect(VIP) is None
    assert driver.connect(IPv4Address("198.19.0.201")) is None
    assert driver.connect_port(Protocol.UDP, PUBLISHED) is None


async def test_equal_plan_costs_no_operation() -> None:
    driver = MemoryDriver()
    await driver.apply(WORLD.plan(1))
    operations = driver.operations
    await driver.apply(WORLD.plan(1))

    assert operations > 0
    assert (driver.operations, driver.applied) == (operations, 1)


async def test_change_keeps_the_turn() -> None:
    driver = MemoryDriver()
    await driver.apply(WORLD.plan(1))
    first = [driver.connect(VIP) for _ in range(2)]
    await driver.apply(replace(WORLD, backends=WEB[:2]).plan(1))
    second = [driver.connect(VIP) for _ in range(2)]

    a, b, _ = (replica.address for replica in WEB)
    assert first + second == [a, b, a, b]


async def test_sandboxes_come_and_go_with_the_plan() -> None:
    driver = MemoryDriver()
    await driver.apply(WORLD.plan(1))
    assert driver.has_sandbox("a")

    await driver.apply(NodePlan())
    assert not driver.has_sandbox("a")
    assert driver.connect(VIP) is None
    await driver.close()
