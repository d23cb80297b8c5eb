"""Bugs of other gossip layers, designed out: each scenario once broke somebody's cluster."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gossip.keyring import GossipKey, KeyState
from gossip.simulation.cluster import cluster
from tests.sim.gossip_network import KEYS, SEEDS, Node, SimNetwork, mode, size

OLD = KEYS[0]
NEW = GossipKey(2, b"fedcba9876543210" * 2, KeyState.ACCEPT)
NEWEST = GossipKey(3, b"0f1e2d3c4b5a6978" * 2, KeyState.PRIMARY)


def _ring(*keys: tuple[GossipKey, KeyState]) -> Sequence[GossipKey]:
    return [GossipKey(key.key_id, key.key, state) for key, state in keys]


def _give(net: SimNetwork, names: Sequence[str], ring: Sequence[GossipKey]) -> None:
    for name in names:
        net.at(net.rng.random(), lambda n=name: net.do(n, lambda m: m.set_keys(ring)))  # type: ignore[misc]


@pytest.mark.parametrize("seed", SEEDS)
def test_delete_that_overtakes_its_create_is_final(seed: int) -> None:
    """NetworkDB left no tombstone, and the create came back (moby PR 49932)."""
    net = cluster(5, seed=seed, mode=mode(seed), scope="net", settle_s=2)
    net.faults.reorder, net.faults.reorder_s = 0.5, 1.0
    net.faults.duplicates = 0.3
    gone: set[str] = set()
    back: set[str] = set()

    def check(node: Node) -> None:
        if node.name in gone and node.machine.holds("net", "n1", "key"):
            back.add(node.name)

    net.publish("n1", "net", "key", b"v")
    net.run(net.rng.random() / 10)
    net.withdraw("n1", "net", "key")
    net.run(4)
    gone.update(net.nodes)
    net.on_step = check
    net.run(4)

    assert not any(net.machine(name).holds("net", "n1", "key") for name in net.nodes)
    assert not back


@pytest.mark.parametrize("seed", SEEDS)
def test_keys_that_rotate_during_a_partition_lose_nobody(seed: int) -> None:
    net = cluster(6, seed=seed, mode=mode(seed), scope="net", settle_s=2)
    inside, outside = ["n0", "n1", "n2", "n3"], ["n4", "n5"]
    net.split(outside)
    _give(net, inside, _ring((OLD, KeyState.PRIMARY), (NEW, KeyState.ACCEPT)))
    net.run(net.rng.uniform(2, 30))
    _give(net, inside, _ring((OLD, KeyState.RETIRED), (NEW, KeyState.PRIMARY)))
    net.run(5)
    net.publish("n0", "net", "key", b"v")
    net.heal()
    net.run(net.rng.uniform(0, 5))
    _give(net, outside, _ring((OLD, KeyState.RETIRED), (NEW, KeyState.PRIMARY)))
    net.run(1)

    def is_healed() -> bool:
        return net.all_alive() and all(m.machine.holds("net", "n0", "key") for m in net.up)

    assert net.run(60, is_healed, every_s=0.1)
    assert all(net.machine(name).counters.unknown_key == 0 for name in inside)


@pytest.mark.parametrize("seed", SEEDS)
def test_two_keys_changed_at_once_cost_a_moment_and_no_member(seed: int) -> None:
    """Swarmkit rotated twice on a change of leaders: "No installed keys" (moby#34141)."""
    net = cluster(6, seed=seed, mode=mode(seed), scope="net", settle_s=2)
    _give(net, list(net.nodes), _ring((NEW, KeyState.ACCEPT), (NEWEST, KeyState.PRIMARY)))
    net.run(1)
    net.publish("n0", "net", "key", b"v")

    assert net.run(5, lambda: all(n.machine.holds("net", "n0", "key") for n in net.up))
    net.run(20)
    assert sum(node.machine.counters.deaths for node in net.up) == 0
    assert net.all_alive()


@pytest.mark.parametrize("seed", SEEDS)
def test_slow_node_is_not_declared_dead(seed: int) -> None:
    net = cluster(8, seed=seed, mode=mode(seed), settle_s=2)
    net.nodes["n3"].service_s = 0.05
    net.run(60)

    assert sum(node.machine.counters.deaths for node in net.up) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_node_that_blocks_in_turn_declares_nobody_dead(seed: int) -> None:
    net = cluster(8, seed=seed, mode=mode(seed), settle_s=5)
    for _ in range(3):
        net.pause("n3")
        net.run(net.rng.uniform(5, 20))
        net.resume("n3")
        net.run(net.rng.uniform(0.1, 1))
    net.run(10)

    assert net.machine("n3").counters.deaths == 0
    assert net.run(30, net.all_alive, every_s=0.1)


@pytest.mark.parametrize("seed", SEEDS)
def test_clock_that_jumps_and_is_corrected_harms_nobody(seed: int) -> None:
    net = cluster(5, seed=seed, mode=mode(seed), scope="net", settle_s=2)
    net.publish("n2", "net", "before", b"1")
    net.run(1)
    net.set_clock("n2", net.rng.choice([-3600.0, -86_400.0, 30.0, 3600.0, 86_400.0]))
    net.publish("n2", "net", "meanwhile", b"2")
    net.publish("n1", "net", "key", b"3")
    truth = {("n2", "before"): b"1", ("n2", "meanwhile"): b"2", ("n1", "key"): b"3"}
    assert net.run(10, lambda: all(net.seen(name, "net") == truth for name in net.nodes))
    net.run(net.rng.uniform(1, 60))
    net.set_clock("n2", 0.0)
    net.publish("n2", "net", "after", b"4")
    truth["n2", "after"] = b"4"

    assert net.run(10, lambda: all(net.seen(name, "net") == truth for name in net.nodes))
    assert sum(node.machine.counters.deaths for node in net.up) == 0
    assert net.all_alive()


@pytest.mark.parametrize("seed", SEEDS)
def test_join_of_a_network_with_ten_thousand_records_makes_no_storm(seed: int) -> None:
    count = size(seed, 2000, small=(100, 200), full_every=50)
    net = SimNetwork(6, seed=seed, mode=mode(seed), seed_nodes=0)
    owners = ["n0", "n1", "n2", "n3", "n4"]
    for name in owners:
        net.attach(name, "net")
        for number in range(count):
            net.publish(name, "net", f"k{number}", b"v" * 20)
    for name in net.nodes:
        net.do(name, lambda m: m.join([net.nodes["n0"].address]))

    def holds_all(name: str) -> bool:
        return all(net.machine(name).holds("net", owner, f"k{count - 1}") for owner in owners)

    assert net.run(60, lambda: all(map(holds_all, owners)), every_s=0.2)
    net.run(20)
    net.sent.clear()
    net.attach("n5", "net")

    assert net.run(30, lambda: holds_all("n5"), every_s=0.1)
    net.run(5)
    assert len(net.machine("n5").records("net")) == count * len(owners)
    assert sum(net.sent.values()) < 400  # a storm: thousands
