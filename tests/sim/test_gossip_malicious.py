"""A worker that holds the gossip key and a valid certificate changes nothing but its own rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from gossip.config import GossipConfig
from gossip.events import EpochRaised, Event, Removed
from gossip.wire import State
from tests.sim.gossip_liar import NAME, Liar, pen_of
from tests.sim.gossip_network import SEEDS, Mode, Node, SimNetwork, size

_SCOPE = "net"
_ATTACKS = 60
_SILENCED_S = 8
_SPENT_PER_S = 10
_HEARD_AGAIN_S = 3
"""How long somebody may be silenced, at most."""


class _World:
    """Honest nodes, a liar among them, and what must stay as it is."""

    def __init__(
        self, seed: int, *, size: int | None = None, config: GossipConfig | None = None
    ) -> None:
        rng = Random(seed)
        honest = size or rng.randint(3, 6)
        self.net = net = SimNetwork(honest, seed=seed, mode=Mode.BYTES, config=config)
        net.workers |= {NAME, "n2"}
        net.add(NAME)
        self.truth: dict[tuple[str, str], bytes] = {}
        self.alarms: Counter[str] = Counter()
        for name in net.nodes:
            net.attach(name, _SCOPE)
            net.publish(name, _SCOPE, "key", name.encode())
            self.truth[name, "key"] = name.encode()
        net.attach("n1", "elsewhere")
        assert net.run(10, lambda: net.all_alive() and self.agrees())
        net.run(2)
        self.addresses = {n.name: n.machine.me.address for n in self.honest}
        self.epochs = {n.name: n.machine.me.epoch for n in self.honest}
        self.liar = Liar(net, rng, _SCOPE)
        net.on_event = self._note

    @property
    def honest(self) -> list[Node]:
        return [node for node in self.net.up if node.name != NAME]

    def agrees(self) -> bool:
        return all(self._seen(node) == self._expected() for node in self.honest)

    def all_say(self, state: State, *names: str) -> bool:
        """Tell whether all honest nodes believe `state` of some."""
        return all(
            self.net.states(node.name)[name] is state
            for node in self.honest
            for name in names
            if node.name != name
        )

    def deltas(self) -> int:
        """Return how many stretches of logs honest nodes have been told."""
        return sum(node.machine.counters.deltas_in for node in self.honest)

    def check(self) -> None:
        """Check that what honest nodes believe of honest nodes is as it was."""
        for node in self.honest:
            assert self._seen(node) == self._expected()
            assert self.net.seen(node.name, "elsewhere") == {}
        self.check_members()

    def check_members(self) -> None:
        """Check that honest nodes believe each other up, as they are and where they are."""
        for node in self.honest:
            views = {view.node_id: view for view in node.machine.members()}
            assert set(views) == {*self.epochs, NAME}
            for name, epoch in self.epochs.items():
                assert views[name].state in {State.ALIVE, State.SUSPECT}
                assert views[name].epoch == epoch
                assert (views[name].address, views[name].port) == self.addresses[name]
        assert not self.alarms

    def seen_of_the_liar(self, node: Node) -> dict[tuple[str, str], bytes]:
        seen = self.net.seen(node.name, _SCOPE)
        return {place: value for place, value in seen.items() if place[0] == NAME}

    def _expected(self) -> dict[tuple[str, str], bytes]:
        return {place: value for place, value in self.truth.items() if place[0] != NAME}

    def _seen(self, node: Node) -> dict[tuple[str, str], bytes]:
        seen = self.net.seen(node.name, _SCOPE)
        return {place: value for place, value in seen.items() if place[0] != NAME}

    def _note(self, node: Node, event: Event) -> None:
        if isinstance(event, EpochRaised | Removed) and node.name != NAME:
            self.alarms[type(event).__name__] += 1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_liar_changes_nothing_but_its_own_rows(seed: int) -> None:
    world = _World(seed)
    net, rng = world.net, Random(seed)
    for _ in range(_ATTACKS):
        world.liar.attack()
        net.run(rng.expovariate(10))
        world.check()
    for node in world.honest:
        value = b"new " + node.name.encode()
        net.publish(node.name, _SCOPE, "key", value)
        world.truth[node.name, "key"] = value

    assert net.run(20, world.agrees, every_s=0.1)
    assert sum(node.machine.counters.refused_forged for node in world.honest) > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_helper_that_lies_keeps_nobody_alive(seed: int) -> None:
    """It is always asked: there are two helpers only."""
    world = _World(seed, size=3)
    net = world.net
    world.liar.keep_up("n1")
    net.kill("n1")

    assert net.run(45, lambda: world.all_say(State.DEAD, "n1"), every_s=0.25)
    assert world.all_say(State.ALIVE, NAME)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_dead_accuse_nobody(seed: int) -> None:
    """Its accomplices are gone; what they sign in time for a fault would shorten suspicions."""
    world = _World(seed)
    net = world.net
    accomplices = ("x1", "x2")
    net.workers.update(accomplices)
    for name in accomplices:
        net.add(name)
    assert net.run(10, net.all_alive, every_s=0.1)
    for name in accomplices:
        net.kill(name)
    assert net.run(60, lambda: world.all_say(State.DEAD, *accomplices), every_s=0.25)
    victim = net.machine("n1").me
    claims = [
        pen_of(name).accuse(state, victim.node_id, victim.epoch, victim.incarnation)
        for name in accomplices
        for state in (State.SUSPECT, State.DEAD)
    ]
    for node in world.honest:
        if node.name != "n1":
            world.liar.tell(node, *claims)
            assert net.states(node.name)["n1"] is State.ALIVE


@pytest.mark.parametrize("seed", SEEDS)
def test_a_liar_that_was_removed_has_no_rows_any_more(seed: int) -> None:
    world = _World(seed)
    net, rng = world.net, Random(seed)
    attacks = size(seed, _ATTACKS, small=(4, 10))
    for _ in range(attacks):
        world.liar.attack()
        net.run(rng.expovariate(10))
    for node in world.honest:
        net.do(node.name, lambda m: m.set_removed([NAME], now=net.now))
    for _ in range(attacks):
        world.liar.attack()
        if rng.random() < 0.2:
            net.restart(NAME, clock_s=rng.choice([0.0, 10.0]))
            net.attach(NAME, _SCOPE)
            net.publish(NAME, _SCOPE, "key", b"lie")
        net.run(rng.expovariate(10))
        world.check()
        for node in world.honest:
            assert net.states(node.name)[NAME] is State.LEFT
            assert world.seen_of_the_liar(node) == {}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_dead_are_not_raised_once_they_are_forgotten(seed: int) -> None:
    """Nor is one that has just joined told that they are there."""
    config = replace(GossipConfig.lan(), tombstone_s=20.0, member_tombstone_s=60.0)
    world = _World(seed, config=config)
    net = world.net
    net.kill("n1")
    assert net.run(150, lambda: all("n1" not in net.states(n.name) for n in world.honest))
    net.add("late")
    net.attach("late", _SCOPE)
    assert net.run(10, net.all_alive)
    for _ in range(20):
        for node in world.honest:
            world.liar.raise_the_dead("n1", node)
        net.run(0.5)
        for node in world.honest:
            assert "n1" not in net.states(node.name)
            assert ("n1", "key") not in net.seen(node.name, _SCOPE)
    net.restart("n1")
    assert net.run(10, net.all_alive)


@pytest.mark.parametrize("seed", SEEDS)
def test_who_spends_anothers_counters_silences_nobody(seed: int) -> None:
    """Ten times a second, to everyone, from the victim's own address as it seems."""
    world = _World(seed)
    net, rng = world.net, Random(seed)
    victim = rng.choice(world.honest)
    for step in range(_SILENCED_S * _SPENT_PER_S):
        if step % _SPENT_PER_S == 0:
            assert step < _HEARD_AGAIN_S * _SPENT_PER_S or world.agrees()
            value = world.truth[victim.name, "key"] = b"%d" % step
            net.publish(victim.name, _SCOPE, "key", value)
        world.liar.spend_counters(victim)
        net.run(1 / _SPENT_PER_S)
        world.check_members()

    assert world.agrees()
    assert sum(node.machine.counters.replayed for node in world.honest) > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_one_that_contradicts_itself_makes_no_traffic_afterwards(seed: int) -> None:
    """It signs several logs of its own for one version, and tells each node another."""
    world = _World(seed)
    net, rng = world.net, Random(seed)
    for _ in range(6):
        world.liar.contradict_itself(rng.choice(world.honest))
        net.run(rng.expovariate(2))
    net.run(45)
    told = world.deltas()
    net.run(10)

    assert world.deltas() == told
    seen = [net.seen(node.name, _SCOPE) for node in world.honest]
    assert all(each == seen[0] for each in seen)
    world.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_one_accuser_is_not_enough_however_often_it_speaks(seed: int) -> None:
    world = _World(seed)
    net = world.net
    (victim, *_) = world.honest
    for _ in range(size(seed, 300, small=(5, 15), full_every=50)):
        me = victim.machine.me
        for node in world.honest:
            if node is not victim:
                world.liar.tell(node, world.liar.accuse(me))
        net.run(0.1)
        world.check()
        assert victim.machine.stats().health <= 2
