"""Keys rotate under load, loss, partitions and new leaders: nobody is lost, nothing is late."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from gossip.config import GossipConfig
from gossip.events import Event, MemberChanged
from gossip.keyring import KeyState
from gossip.wire import State
from tests.sim.gossip_network import SEEDS, Node, SimNetwork, mode
from tests.sim.key_managers import Managers

SCOPE = "net"
NODES = 4
ROTATION_S = 4.0
MET_S = 1.5
"""By then every node has probed every other: all know what the others seal with."""
VISIBLE_S = 2.0
"""What one node says, all that it reaches see within this."""
Scenario = Callable[["World"], None]


class World:
    """A cluster that has met, its managers, and what its nodes have said."""

    def __init__(
        self, seed: int, *, rotation_s: float = 12 * 3600.0, key_age_s: float = 0.0
    ) -> None:
        self.rng = Random(seed)
        self.net = SimNetwork(NODES, seed=seed, config=GossipConfig.local(), mode=mode(seed))
        for name in self.net.nodes:
            self.net.attach(name, SCOPE)
        assert self.net.run(5, self.net.all_alive)
        self.net.run(MET_S)
        self.managers = Managers(self.net, rotation_s, key_age_s)
        self.deaths: list[tuple[str, str]] = []
        self.net.on_event = self._note
        self._said = 0

    def _note(self, node: Node, event: Event) -> None:
        if isinstance(event, MemberChanged) and event.state in (State.DEAD, State.LEFT):
            self.deaths.append((node.name, event.node_id))

    def unknown_keys(self) -> int:
        """Return how many packets nobody could open."""
        return sum(node.machine.counters.unknown_key for node in self.net.nodes.values())

    def say(self, name: str) -> dict[tuple[str, str], bytes]:
        """Let a node say something new, and return it."""
        self._said += 1
        value = b"%d" % self._said
        self.net.publish(name, SCOPE, "key", value)
        return {(name, "key"): value}

    def check_heard(self, said: dict[tuple[str, str], bytes], *by: str) -> None:
        """Check that these nodes see what was said, soon."""
        names = by or tuple(node.name for node in self.net.up)
        self.check(
            f"{said} is everywhere",
            VISIBLE_S,
            lambda: all(said.items() <= self.net.seen(name, SCOPE).items() for name in names),
        )

    def check(self, what: str, within_s: float, holds: Callable[[], bool]) -> None:
        """Check that something holds soon."""
        assert self.net.run(within_s, holds, every_s=0.05), f"not in {within_s} s: {what}"

    def talk(self, seconds: float) -> None:
        """Let one node after the other say something, and check that all hear it."""
        until = self.net.now + seconds
        while self.net.now < until:
            self.check_heard(self.say(self.rng.choice([n.name for n in self.net.up])))
            self.net.run(self.rng.uniform(0.0, 0.2))

    def check_settled(self, within_s: float) -> None:
        """Check that everybody has one ring, and that it works."""
        self.check("one ring", within_s, lambda: self.managers.is_settled)
        self.check("all alive", within_s, self.net.all_alive)
        for name in [node.name for node in self.net.up]:
            self.check_heard(self.say(name))
        self.check("one primary", within_s, self._has_one_primary)

    def _has_one_primary(self) -> bool:
        # The next rotation may have begun meanwhile.
        primary = [key.id for key in self.managers.ring if key.state == "primary"]
        return all(primaries(node) == primary for node in self.net.up)


def primaries(node: Node) -> list[int]:
    """Return the keys that a node seals with: there is one."""
    ring = node.machine.keys()
    return [key.key_id for key in ring if key.state is KeyState.PRIMARY]


def rotation_while_all_talk(world: World) -> None:
    world.managers.rotate()
    world.talk(world.rng.uniform(0.0, 1.0))
    world.managers.change_leader()
    world.talk(1.0)
    world.check_settled(10)
    world.managers.rotate()
    world.talk(0.5)
    world.check_settled(10)
    assert world.managers.steps == [
        "1 primary", "1 primary, 2 accept", "1 retired, 2 primary",
        "1 retired, 2 primary, 3 accept", "1 retired, 2 retired, 3 primary",
    ]  # fmt: skip
    assert world.deaths == []
    assert world.unknown_keys() == 0


def rotation_with_loss(world: World) -> None:
    faults = world.net.faults
    faults.loss, faults.duplicates, faults.reorder = 0.1, 0.1, 0.3
    for _ in range(2):
        world.managers.rotate()
        if world.rng.random() < 0.5:
            world.managers.change_leader()
        world.talk(1.0)
        world.check("one ring", 10, lambda: world.managers.is_settled)
    faults.loss = faults.duplicates = faults.reorder = 0.0
    world.check_settled(10)
    assert world.unknown_keys() == 0


def two_rotations_during_a_partition(world: World) -> None:
    away = world.rng.sample(list(world.net.nodes), world.rng.randint(1, NODES - 1))
    rest = [name for name in world.net.nodes if name not in away]
    world.net.split(away)
    world.managers.unreachable.update(away)
    for _ in range(2):
        world.managers.rotate()
        if world.rng.random() < 0.5:
            world.managers.change_leader()
        for side in (away, rest):
            world.check_heard(world.say(world.rng.choice(side)), *side)
        world.check("it seals", 15, lambda: world.managers.ring[-1].state == "primary")
    world.net.heal()
    if world.rng.random() < 0.5:  # gossip comes back first
        world.check("all alive", 15, world.net.all_alive)
    world.managers.unreachable.clear()
    world.check_settled(20)
    assert [key.id for key in world.managers.ring] == [1, 2, 3]
    assert world.unknown_keys() == 0


def a_node_that_no_manager_reaches_goes_on_with_its_old_key(world: World) -> None:
    lonely = world.rng.choice(list(world.net.nodes))
    world.managers.unreachable.add(lonely)
    world.talk(0.5)
    world.managers.rotate()
    world.check("it seals", 15, lambda: world.managers.ring[-1].state == "primary")
    others = [node for node in world.net.up if node.name != lonely]
    world.check("told", 5, lambda: all(primaries(node) == [2] for node in others))
    world.talk(1.5)
    for node in others:
        world.check_heard(world.say(node.name), lonely)
    world.check_heard(world.say(lonely))
    if world.rng.random() < 0.3:  # the others forget what it seals with, until they hear it again
        back = world.rng.choice(others).name
        world.net.kill(back)
        world.net.restart(back, join=[n.name for n in others])
        world.net.attach(back, SCOPE)
        world.check("all alive", 15, world.net.all_alive)
        world.talk(1.0)
    else:
        assert world.deaths == []
        assert world.unknown_keys() == 0
    assert primaries(world.net.nodes[lonely]) == [1]
    world.managers.unreachable.clear()
    world.check_settled(10)


def a_node_that_was_off_until_its_keys_were_gone_comes_back(world: World) -> None:
    away = world.rng.choice(list(world.net.nodes))
    world.net.kill(away)
    world.check("its key is gone", 60, lambda: world.managers.ring[0].id > 1)
    world.net.restart(away)
    world.net.attach(away, SCOPE)
    assert primaries(world.net.nodes[away]) == [1]
    world.check_settled(10)


def a_node_that_was_alone_until_its_keys_were_gone_comes_back(world: World) -> None:
    away = world.rng.choice(list(world.net.nodes))
    world.net.split([away])
    world.managers.unreachable.add(away)
    world.check("its key is gone", 60, lambda: world.managers.ring[0].id > 1)
    world.net.heal()
    world.net.run(3.0)
    assert world.unknown_keys() > 0  # not even the others can help it
    world.managers.unreachable.clear()
    world.check_settled(10)


def nodes_are_removed(world: World) -> None:
    """One that goes on, and one that had left in good order: one rotation, and nobody misses it."""
    liar, leaver = world.rng.sample(list(world.net.nodes), 2)
    world.net.do(leaver, lambda m: m.leave(now=world.net.now))
    world.net.run(0.5)
    world.net.kill(leaver)
    world.net.nodes[liar].is_blocked = world.rng.random() < 0.3
    for name in (liar, leaver):
        world.managers.remove(name)
        world.net.run(world.rng.uniform(0.0, 0.4))
    stay = [name for name in world.net.nodes if name not in (liar, leaver)]
    world.check("one ring", 10, lambda: len(world.managers.ring) == 2 and world.managers.is_settled)
    for name in stay:
        world.check_heard(world.say(name), *stay)
    assert world.managers.steps == ["1 primary", "1 primary, 2 accept", "1 retired, 2 primary"]
    assert {name for by, name in world.deaths if by in stay} == {liar, leaver}
    for name in stay:
        assert primaries(world.net.nodes[name]) == [2]
        assert world.net.machine(name).counters.unknown_key == 0


SLOW: tuple[Scenario, ...] = (
    rotation_while_all_talk,
    rotation_with_loss,
    two_rotations_during_a_partition,
    a_node_that_no_manager_reaches_goes_on_with_its_old_key,
)
QUICK: tuple[Scenario, ...] = (
    a_node_that_was_off_until_its_keys_were_gone_comes_back,
    a_node_that_was_alone_until_its_keys_were_gone_comes_back,
)
"""With a rotation every ROTATION_S."""
OLD: tuple[Scenario, ...] = (nodes_are_removed,)
"""With a key that has been primary for an hour."""


def _world(scenario: Scenario, seed: int) -> World:
    rotation_s = ROTATION_S if scenario in QUICK else 12 * 3600.0
    return World(seed, rotation_s=rotation_s, key_age_s=3600.0 if scenario in OLD else 0.0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scenario", [*SLOW, *QUICK, *OLD], ids=lambda scenario: scenario.__name__)
def test_keys(scenario: Scenario, seed: int) -> None:
    scenario(_world(scenario, seed))
