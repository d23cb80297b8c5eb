"""The failure detector among many: refused packets, broken ways and forged errors."""

from __future__ import annotations

import statistics
from dataclasses import replace
from functools import partial
from random import Random

import pytest

from gossip.config import GossipConfig
from gossip.events import Event, MemberChanged, PathChanged
from gossip.wire import State
from tests.sim.gossip_network import SEEDS, SimNetwork, mode, size

Happened = list[tuple[str, Event]]


def _listen(net: SimNetwork) -> Happened:
    """Return what the nodes notice from now on, by whom."""
    happened: Happened = []
    net.on_event = lambda node, event: happened.append((node.name, event))
    return happened


def _changes(happened: Happened) -> list[tuple[str, MemberChanged]]:
    return [(n, e) for n, e in happened if isinstance(e, MemberChanged)]


def _paths(happened: Happened) -> list[tuple[str, str, bool]]:
    return [(n, e.node_id, e.is_relay_only) for n, e in happened if isinstance(e, PathChanged)]


def test_death_of_a_process_on_a_live_host_is_known_within_two_and_a_half_seconds() -> None:
    """The target for 30 nodes: 2.5 s for the 95th percentile."""
    times: list[float] = []
    for seed in range(20):
        net = SimNetwork(30, seed=seed, mode=mode(seed))
        net.run(6 + net.rng.random() * 3)
        started = net.now
        net.kill_process("n7")
        assert net.run(10, partial(net.say, "n7", State.DEAD), every_s=0.02)
        times.append(net.now - started)

    assert statistics.quantiles(times, n=20)[-1] <= 2.5, sorted(times)


@pytest.mark.parametrize("seed", SEEDS)
def test_death_of_a_process_on_a_live_host_is_known_soon_in_smaller_clusters(seed: int) -> None:
    net = SimNetwork(Random(seed).randint(4, 10), seed=seed, mode=mode(seed))
    net.run(6 + net.rng.random() * 3)
    net.kill_process("n2")

    assert net.run(2.5, partial(net.say, "n2", State.DEAD), every_s=0.02)


@pytest.mark.parametrize("seed", SEEDS)
def test_process_that_is_back_soon_was_not_dead(seed: int) -> None:
    """With the setting of daemons on one machine: back within 2.5 s."""
    config = replace(
        GossipConfig.local(),
        probe_interval_s=0.4,
        suspicion_floor_s=2.5,
        refused_suspicion_s=2.5,
        suspicion_max_multiplier=3,
    )
    net = SimNetwork(5, seed=seed, mode=mode(seed), config=config, latency_s=(0.0001, 0.001))
    net.run(5)
    net.kill_process("n2")
    net.run(2.4)
    net.restart("n2")
    net.run(10)

    assert net.all_alive()
    assert sum(node.machine.counters.deaths for node in net.up) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_forged_refusals_kill_nobody(seed: int) -> None:
    """Every packet that anybody sends to n2 is answered by a forged error, and arrives as well."""
    nodes, seconds = size(seed, 8, small=(6, 7)), size(seed, 120, small=(55, 60))
    net = SimNetwork(nodes, seed=seed, mode=mode(seed))
    net.run(5)
    net.refusing.add(net.nodes["n2"].address)
    happened = _listen(net)
    net.run(seconds)

    assert sum(node.machine.counters.deaths for node in net.up) == 0
    changes_max = 200 * nodes / 8 * seconds / 120
    assert len(_changes(happened)) <= changes_max, (
        "the disbelief of what was refuted ends the storm"
    )
    net.refusing.clear()
    assert net.run(10, net.all_alive)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_way_links_make_no_storm(seed: int) -> None:
    """n1 hears n2 but cannot reach it, n3 hears nobody."""
    nodes, seconds = size(seed, 8, small=(4, 5)), size(seed, 120, small=(30, 40))
    net = SimNetwork(nodes, seed=seed, mode=mode(seed))
    net.run(5)
    net.cut.add(("n1", "n2"))
    net.cut |= {(f"n{i}", "n3") for i in range(nodes) if i != 3}
    net.run(90)
    happened = _listen(net)
    net.sent.clear()
    net.run(seconds)

    told = [(n, e) for n, e in _changes(happened) if n != "n3"]
    assert len(told) <= 20 * seconds / 120, told
    assert max(net.sent.values()) / seconds <= 8
    net.heal()
    assert net.run(60, net.all_alive, every_s=0.1)


@pytest.mark.parametrize("seed", SEEDS)
def test_whoever_hears_nobody_for_45_seconds_buries_nobody(seed: int) -> None:
    """n3 sends, and what it should have heard is lost: without patience it buried five of 15."""
    net = SimNetwork(16, seed=seed, mode=mode(seed))
    net.run(5)
    net.cut = {(name, "n3") for name in net.nodes if name != "n3"}
    net.run(45)

    assert net.machine("n3").counters.deaths == 0
    net.heal()
    assert net.run(60, net.all_alive, every_s=0.1)


@pytest.mark.parametrize("seed", SEEDS)
def test_member_behind_a_broken_way_is_flagged_by_those_who_cannot_reach_it(seed: int) -> None:
    net = SimNetwork(6, seed=seed, mode=mode(seed))
    net.run(10)
    net.cut |= {("n1", "n2"), ("n2", "n1")}
    happened = _listen(net)
    net.run(60)
    flagged = {n.name: [v.node_id for v in n.machine.members() if v.is_relay_only] for n in net.up}
    assert flagged == {"n0": [], "n1": ["n2"], "n2": ["n1"], "n3": [], "n4": [], "n5": []}
    assert sorted(_paths(happened)) == [("n1", "n2", True), ("n2", "n1", True)]
    assert net.machine("n1").stats().relay_only == 1
    assert net.all_alive()
    net.heal()
    net.run(30)

    assert sorted(_paths(happened))[0::2] == [("n1", "n2", False), ("n2", "n1", False)]


@pytest.mark.parametrize("seed", SEEDS)
def test_few_lost_packets_flag_nobody(seed: int) -> None:
    net = SimNetwork(8, seed=seed, mode=mode(seed), loss=0.01)
    happened = _listen(net)
    net.run(size(seed, 120, small=(20, 50)))

    assert _paths(happened) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_wrong_advertised_port_makes_no_storm(seed: int) -> None:
    """Everyone sends n2's packets where nobody listens; what n2 asks is answered, though."""
    nodes, seconds = size(seed, 8, small=(4, 5)), size(seed, 150, small=(20, 30))
    net = SimNetwork(nodes, seed=seed, mode=mode(seed))
    net.run(5)
    net.misdirect("n2")
    net.run(seconds)

    deaths = sum(node.machine.counters.deaths for node in net.up)
    # What it refuted is not believed again soon, and a suspicion of the usual kind lasts 4 s at
    # least. (With refusals believed each time there were 384 to 428 deaths.)
    assert deaths <= (nodes - 1) * 20 * seconds / 150
    assert net.machine("n2").counters.refutations >= 1
