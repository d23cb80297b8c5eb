"""Random faults, then none: nothing impossible is seen meanwhile, and everything heals after."""

from __future__ import annotations

from random import Random

import pytest

from gossip.config import GossipConfig
from gossip.machine import Machine
from gossip.wire import NODES, DigestEntry, State
from tests.sim.gossip_network import SEEDS, Node, SimNetwork, mode

_FAULTS_S = 50.0
_HEAL_S = 120.0
_STAYS_S = 10.0


class _World:
    """A cluster under random faults and writes, and what its owners have said."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        config = self.rng.choice([GossipConfig.lan(), GossipConfig.local()])
        self.net = SimNetwork(
            self.rng.randint(3, 8), seed=seed, mode=mode(seed), config=config, duplicates=0.02
        )
        self.truth: dict[str, dict[str, bytes]] = {}
        self.said: set[tuple[str, str, bytes]] = set()
        self.positions: dict[tuple[Machine, str, str], tuple[int, ...]] = {}
        self.steps = 0
        self.unhealed_at = 0.0
        for name in self.net.nodes:
            self._enter(name)
        self.net.on_step = self.check
        self.net.run(5)

    def _enter(self, name: str) -> None:
        self.truth[name] = {}
        self.net.attach(name, "net")

    def fault(self) -> None:
        net, rng = self.net, self.rng
        name = rng.choice(list(net.nodes))
        node = net.nodes[name]
        match rng.randint(0, 9):
            case 0:
                net.split(rng.sample(list(net.nodes), rng.randint(1, len(net.nodes) - 1)))
            case 1:
                net.heal()
            case 2:
                net.faults.loss = rng.choice([0.0, 0.1, 0.3])
            case 3 if node.is_up:
                net.kill(name)
                self.truth.pop(name)
            case 4 if not node.is_up:
                keeps_disk, clock_s = rng.random() < 0.5, rng.choice([0.0, -3600.0, 60.0])
                net.restart(name, keeps_disk=keeps_disk, clock_s=clock_s)
                self._enter(name)
            case 5 if node.is_up:
                net.resume(name) if node.is_paused else net.pause(name)
            case 6:
                net.cut.add((name, rng.choice(list(net.nodes))))
            case _:
                pass

    def write(self) -> None:
        name = self.rng.choice([n for n in self.truth if not self.net.nodes[n].is_paused] or [""])
        if not name:
            return
        self.steps += 1
        key, value = f"k{self.rng.randint(0, 4)}", b"%d" % self.steps
        if self.rng.random() < 0.3:
            self.truth[name].pop(key, None)
            self.net.withdraw(name, "net", key)
        else:
            self.truth[name][key] = value
            self.said.add((name, key, value))
            self.net.publish(name, "net", key, value)

    def check(self, node: Node) -> None:
        """Check what must hold at every step of every node."""
        if self.rng.random() < 0.9:
            return  # a sample is enough, and ten times as fast
        states = self.net.states(node.name)
        for view in node.machine.records("net"):
            assert states[view.owner] in {State.ALIVE, State.SUSPECT}
            assert (view.owner, view.key, view.value) in self.said
        for scope in (NODES, "net"):
            for entry in node.machine.positions(scope):
                held = (node.machine, scope, entry.owner)  # an id may be used again
                position = _position(entry)
                if scope == NODES or position[3:] != (0, 0):  # a hollow log shows none
                    assert self.positions.get(held, ()) <= position
                    self.positions[held] = position

    def stays_healed(self) -> bool:
        """Tell whether all has been well for a while.

        At first it may be so by chance: a node that slept has not heard yet of what died meanwhile,
        and of that the sides of a partition may each have buried another incarnation, which they
        then hear of and have to suspect once more.
        """
        if not self.is_healed():
            self.unhealed_at = self.net.now
        return self.net.now >= self.unhealed_at + _STAYS_S

    def is_healed(self) -> bool:
        if not self.net.all_alive():
            return False
        truth = {
            (owner, key): value
            for owner, records in self.truth.items()
            for key, value in records.items()
        }
        return all(self.net.seen(node.name, "net") == truth for node in self.net.up)


def _position(entry: DigestEntry) -> tuple[int, ...]:
    return (entry.stamp.epoch, entry.stamp.attachment, entry.mark // 4, entry.maximum, entry.gc)


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_heals_after_random_faults(seed: int) -> None:
    world = _World(seed)
    net = world.net
    end = net.now + _FAULTS_S
    while net.now < end:
        world.fault()
        for _ in range(world.rng.randint(0, 3)):
            world.write()
        net.run(world.rng.expovariate(0.3))
    net.heal()
    net.faults.loss = 0.0
    for name, node in net.nodes.items():
        if node.is_paused:
            net.resume(name)

    assert net.run(_HEAL_S, world.stays_healed, every_s=0.25)
