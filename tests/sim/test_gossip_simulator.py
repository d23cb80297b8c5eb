"""The simulator itself: it repeats itself bit for bit, and its faults are what they claim to be."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

import pytest

from tests.sim.gossip_network import SEEDS, Mode, SimNetwork


@cache
def eventful(seed: int, mode: Mode) -> str:
    """Run a cluster through every kind of fault and return the trace."""
    net = SimNetwork(8, seed=seed, mode=mode, loss=0.05, duplicates=0.05)
    net.faults.reorder = 0.1
    for name in net.nodes:
        net.attach(name, "net")
        net.publish(name, "net", "key", name.encode())
    net.run(5)
    net.kill("n3")
    net.cut.add(("n1", "n2"))
    net.run(5)
    net.split(["n4", "n5"])
    net.restart("n3", keeps_disk=False)
    net.attach("n3", "net")
    net.pause("n6")
    net.detach("n7", "net")
    net.run(10)
    net.heal()
    net.resume("n6")
    net.nodes["n0"].service_s = 0.01
    net.withdraw("n1", "net", "key")
    net.run(10)
    return net.trace


@pytest.mark.parametrize("seed", SEEDS)
def test_objects_and_bytes_give_the_same_trace(seed: int) -> None:
    assert eventful(seed, Mode.OBJECTS) == eventful(seed, Mode.BYTES)


@pytest.mark.parametrize("hash_seed", range(6))
def test_same_seed_gives_the_same_trace_in_another_process(hash_seed: int) -> None:
    """However its sets of strings are ordered: one order of two would pass half of the time."""
    code = (
        "from tests.sim.gossip_network import Mode\n"
        "from tests.sim.test_gossip_simulator import eventful\n"
        "print(eventful(7, Mode.OBJECTS), eventful(7, Mode.BYTES))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, "-c", code]
    printed = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout

    assert printed.split() == [eventful(7, Mode.OBJECTS), eventful(7, Mode.BYTES)]


def test_different_seeds_give_different_traces() -> None:
    assert eventful(1, Mode.OBJECTS) != eventful(2, Mode.OBJECTS)
