"""Logs of thousands of records and deletions: joins, outages and loss while they are written."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from gossip.config import GossipConfig
from tests.sim.gossip_network import SEEDS, SimNetwork, mode, size

_SCOPE = "net"
_SETTLED_S = 3.0
"""What was written longer ago than this is to be seen as it is."""


class _Writer:
    """One node with a large log, which it changes all the time."""

    def __init__(self, net: SimNetwork, name: str, count: int, *, pause_s: float = 0.2) -> None:
        """`pause_s`: between what `write_for` writes."""
        self.truth: dict[str, bytes] = {}
        self._net = net
        self._name = name
        self._pause_s = pause_s
        self._rng = Random(net.seed)
        self._touched: dict[str, float] = {}
        for number in range(count):
            self._publish(f"k{number}")

    def write(self) -> None:
        """Replace, add or delete something."""
        key = self._rng.choice(list(self.truth))
        if self._rng.random() < 0.5:
            self._publish(f"k{self._rng.randrange(2 * len(self.truth))}")
        else:
            del self.truth[key]
            self._touched[key] = self._net.now
            self._net.withdraw(self._name, _SCOPE, key)

    def write_for(self, seconds: float) -> None:
        """Write one thing after another."""
        end = self._net.now + seconds
        while self._net.now < end:
            self.write()
            self._net.run(self._pause_s)

    def is_seen_by(self, name: str) -> bool:
        """Tell whether a node sees all that was not changed just now, and nothing else."""
        seen = {key: value for (owner, key), value in self._net.seen(name, _SCOPE).items()
                if owner == self._name}  # fmt: skip
        then = self._net.now - _SETTLED_S
        fresh = {key for key, at in self._touched.items() if at > then}
        differing = {key for key, _ in seen.items() ^ self.truth.items()}
        return differing <= fresh

    def _publish(self, key: str) -> None:
        value = self.truth[key] = b"%d " % self._rng.getrandbits(64) + b"v" * 80
        self._touched[key] = self._net.now
        self._net.publish(self._name, _SCOPE, key, value)


def _pause_s(count: int) -> float:
    """Return a pause with which a log of so many records is not all deleted meanwhile."""
    return 0.2 if count >= 1000 else 0.4


def _network(nodes: int, *, seed: int, loss: float, tombstone_s: float = 20.0) -> SimNetwork:
    config = replace(GossipConfig.lan(), tombstone_s=tombstone_s)
    net = SimNetwork(nodes, seed=seed, mode=mode(seed), config=config, loss=loss)
    for name in net.nodes:
        net.attach(name, _SCOPE)
    assert net.run(10, net.all_alive)
    return net


@pytest.mark.parametrize("seed", SEEDS)
def test_whoever_was_away_learns_a_log_that_is_written_all_the_time(seed: int) -> None:
    """For so long that it let the records go, and the owner its tombstones."""
    count, seconds = size(seed, 1500, small=(100, 200)), size(seed, 70, small=(25, 30))
    net = _network(4, seed=seed, loss=0.1, tombstone_s=seconds / 3.5)
    writer = _Writer(net, "n1", count, pause_s=_pause_s(count))
    assert net.run(20, lambda: all(writer.is_seen_by(n.name) for n in net.up), every_s=0.5)
    net.split(["n3"])
    writer.write_for(seconds)
    assert net.seen("n3", _SCOPE) == {}
    net.heal()
    before = net.machine("n3").counters.bytes_in
    healed = net.now
    while not net.all_alive():
        assert net.now < healed + 65
        writer.write_for(1)
    writer.write_for(6)

    # One log from each, at most, and what it hears anyway.
    bytes_max = min(1_200_000, 800 * count + 100_000)
    assert net.machine("n3").counters.bytes_in - before < bytes_max
    assert writer.is_seen_by("n3")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_newcomer_learns_a_log_that_is_written_all_the_time(seed: int) -> None:
    count, seconds = size(seed, 1500, small=(150, 250)), size(seed, 40, small=(6, 12))
    net = _network(4, seed=seed, loss=0.1, tombstone_s=seconds / 2)
    writer = _Writer(net, "n1", count, pause_s=_pause_s(count))
    net.run(10)
    writer.write_for(seconds)
    net.add("late")
    net.attach("late", _SCOPE)
    checked = net.machine("late").counters.checked
    writer.write_for(10)

    assert writer.is_seen_by("late")
    # What is written meanwhile is checked one by one, and a few datagrams of whoever is asked first
    # and has not heard of the newcomer: it gets no stream.
    one_by_one = min(500, len(writer.truth))
    assert net.machine("late").counters.checked - checked < one_by_one


@pytest.mark.parametrize("seed", SEEDS)
def test_ten_thousand_records_reach_a_newcomer_through_loss_and_a_partition(seed: int) -> None:
    net = _network(4, seed=seed, loss=0.2)
    count = size(seed, 2500, small=(30, 60), full_every=50)
    writers = [_Writer(net, name, count) for name in net.nodes]
    assert net.run(
        60, lambda: all(w.is_seen_by(n.name) for w in writers for n in net.up), every_s=1.0
    )
    assert net.run(300, lambda: all(n.machine.is_idle for n in net.up), every_s=1.0)
    net.add("late")
    net.attach("late", _SCOPE)
    net.sent.clear()
    net.run(net.rng.uniform(0.05, 1.0))
    net.split(["late"])
    net.run(5)
    net.heal()

    assert net.run(40, lambda: all(w.is_seen_by("late") for w in writers), every_s=0.5)
    assert net.machine("late").counters.bytes_in < 2400 * count  # 10,000 once are 1.7 MB
    assert sum(net.sent.values()) < 2000
