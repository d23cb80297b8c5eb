"""Managers in trouble, over many seeds: nothing acknowledged is lost, and they recover.

`HIVEWIRE_SEEDS` sets how many runs of each kind; a failure names its seed.
"""

from __future__ import annotations

import os

import pysyncobj.syncobj
import pytest

from tests.sim.raft_world import World

SEEDS = int(os.environ.get("HIVEWIRE_SEEDS", "200"))
TROUBLE_S = 6.0


def play(monkeypatch: pytest.MonkeyPatch, world: World, trouble_s: float) -> World:
    monkeypatch.setattr(pysyncobj.syncobj, "monotonicTime", lambda: world.now)
    world.run(trouble_s)
    return world


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_acknowledged_is_lost(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(seed, voters=3 + 2 * (seed % 2), power_loss=seed % 3 != 0)

    play(monkeypatch, world, TROUBLE_S)

    assert world.acknowledged


def test_same_seed_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (play(monkeypatch, World(7), 3.0) for _ in range(2))

    assert first.counts == second.counts
    assert first.acknowledged == second.acknowledged
