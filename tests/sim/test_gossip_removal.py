"""A node that the managers removed stays out, whoever restarts, parts or lags meanwhile.

What managers know is on their disks: a node that was told of the removal is told again whenever it
restarts. The removed node has its keys and its certificate, and begins new lives.
"""

from __future__ import annotations

from functools import partial

import pytest

from gossip.events import Event, Removed
from gossip.simulation.cluster import cluster
from gossip.wire import NODES, State
from tests.sim.gossip_network import SEEDS, Node, mode

GONE = "n5"
MANAGERS = ("n0", "n1", "n2")
SCOPE = "net"


class World:
    """Three managers and three workers, of which one is removed."""

    def __init__(self, seed: int) -> None:
        self.net = net = cluster(6, seed=seed, mode=mode(seed), scope=SCOPE, settle_s=3)
        net.workers |= {"n3", "n4", GONE}
        for name in ("n3", "n4", GONE):
            net.restart(name)
            net.attach(name, SCOPE)
        assert net.run(10, net.all_alive)
        net.publish(GONE, SCOPE, "key", b"here")
        assert net.run(5, lambda: all(self._holds(node) for node in net.up))
        self.rng = net.rng
        self.told: set[str] = set()
        self.seen: list[str] = []
        """Nodes that were told, and saw it all the same."""
        self.lives_left = 0
        """So many times it ignores that it is told to be gone."""
        self.clocks_s = [0.0, -3600.0, 3600.0]
        """By how much the removed node's clock may be wrong when it starts."""
        net.on_step = self._look
        net.on_event = self._note

    def tell(self, name: str) -> None:
        """Let a node learn of the removal from its manager; a manager from what it replicates."""
        if name not in self.told and self.net.nodes[name].is_up:
            self.net.do(name, lambda m: m.set_removed([GONE], now=self.net.now))
            self.told.add(name)

    def restart(self, name: str) -> None:
        self.net.kill(name)
        self.net.restart(name, join=MANAGERS)
        if name in self.told:
            self.net.do(name, lambda m: m.set_removed([GONE], now=self.net.now))
        self.net.attach(name, SCOPE)

    def begin_life(self) -> None:
        """Start the removed node, with its disk or without."""
        keeps_disk, clock_s = self.rng.random() < 0.5, self.rng.choice(self.clocks_s)
        join = self.rng.choice([MANAGERS, ("n3", "n4")])
        self.net.restart(GONE, keeps_disk=keeps_disk, clock_s=clock_s, join=join)
        self.net.attach(GONE, SCOPE)
        self.net.publish(GONE, SCOPE, "key", b"back")

    def check_gone(self, within_s: float = 30.0) -> None:
        """Check that it is gone for all, and stays so, and that nobody else is."""
        assert self.net.run(within_s, self._is_gone, every_s=0.1)
        self.net.run(5)
        assert self._is_gone()
        assert self.seen == []

    def _is_gone(self) -> bool:
        others = [node for node in self.net.up if node.name != GONE]
        names = {node.name for node in others}
        states = [self.net.states(node.name) for node in others]
        return all(
            said.pop(GONE, State.LEFT) is State.LEFT
            and said == dict.fromkeys(names, State.ALIVE)
            and not self._holds(node)
            for node, said in zip(others, states, strict=True)
        )

    def _holds(self, node: Node) -> bool:
        return node.machine.holds(SCOPE, GONE, "key")

    def _look(self, node: Node) -> None:
        is_there = GONE in node.machine.peers(NODES) or self._holds(node)
        if node.name in self.told and is_there:
            self.seen.append(node.name)

    def _note(self, node: Node, event: Event) -> None:
        if isinstance(event, Removed) and self.lives_left:
            assert node.name == GONE
            self.lives_left -= 1
            self.net.at(self.rng.uniform(0.0, 0.5), self.begin_life)


def removed(seed: int) -> World:
    """Return a world whose managers have just removed a node that is off, or is not."""
    world = World(seed)
    if world.rng.random() < 0.7:
        world.net.kill(GONE)
        world.net.run(world.rng.uniform(0.0, 20.0))
    for name in MANAGERS:
        world.net.at(world.rng.uniform(0.0, 0.5), partial(world.tell, name))
    world.net.run(0.5)
    return world


@pytest.mark.parametrize("seed", SEEDS)
def test_it_stays_out_though_the_managers_restart(seed: int) -> None:
    world = removed(seed)
    for name in ("n3", "n4"):
        if world.rng.random() < 0.7:
            world.net.at(world.rng.uniform(0.0, 4.0), partial(world.tell, name))
    world.net.run(world.rng.uniform(0.0, 4.0))
    for name in MANAGERS:
        world.net.at(world.rng.uniform(0.0, 1.0), partial(world.restart, name))
    world.net.run(world.rng.uniform(0.0, 2.0))
    world.begin_life()

    world.check_gone()
    assert world.net.states(GONE)[GONE] is State.LEFT


@pytest.mark.parametrize("seed", SEEDS)
def test_it_stays_out_however_often_it_begins_anew(seed: int) -> None:
    world = removed(seed)
    world.tell("n3")
    world.clocks_s = [0.0]  # one that must outbid an earlier life takes half a minute for each
    world.lives_left = 10
    world.begin_life()
    assert world.net.run(60, lambda: not world.lives_left, every_s=0.1)

    world.check_gone()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_side_without_managers_learns_of_it_when_the_network_is_whole_again(seed: int) -> None:
    """And only that side, and nobody who was told, believes it to be alive until then."""
    world = World(seed)
    world.net.split(["n3", "n4", GONE])
    world.net.run(world.rng.uniform(0.0, 20.0))
    for name in MANAGERS:
        world.tell(name)
    world.restart("n3")
    world.begin_life()
    world.net.run(world.rng.uniform(0.0, 20.0))
    if world.rng.random() < 0.5:
        for name in MANAGERS:
            world.restart(name)
    world.net.heal()

    world.check_gone(90)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_word_of_a_removed_manager_removes_nobody(seed: int) -> None:
    net = World(seed).net
    for name in net.nodes:
        if name != "n2":
            net.do(name, lambda m: m.set_removed(["n2"], now=net.now))
    net.run(net.rng.uniform(0.0, 3.0))
    net.kill("n2")
    net.restart("n2")
    net.do("n2", lambda m: m.set_removed([n for n in net.nodes if n != "n2"], now=net.now))
    net.run(10)

    for name in ("n0", "n1", "n3", "n4", GONE):
        states = net.states(name)
        assert states.pop("n2", State.LEFT) is State.LEFT
        assert set(states.values()) == {State.ALIVE}, (name, states)
