"""The power is cut, or the disk is full, at each step of storage: nothing acknowledged is lost."""

from __future__ import annotations

import pysyncobj.syncobj
import pytest

from tests.sim.raft_world import CONFIG, SimNode, World

FRAME_STEPS = 8
"""Two syncs and more: append and sync, each."""
REWRITE_STEPS = 14
"""A snapshot (create, append, sync, replace, remove) and the log after it, and beyond."""


def started(monkeypatch: pytest.MonkeyPatch, seed: int, *, size: int = 3) -> World:
    """Return a running cluster of three."""
    world = World(seed, size=size)
    monkeypatch.setattr(pysyncobj.syncobj, "monotonicTime", lambda: world.now)
    world.start()
    return world


def leader_of(world: World) -> SimNode:
    leader = world.leader()
    assert leader is not None
    return leader


def struck(world: World, *, is_leader: bool) -> str:
    """Return the manager to strike."""
    leader = leader_of(world).node_id
    return leader if is_leader else next(n for n in world.nodes if n != leader)


@pytest.mark.parametrize("is_leader", [True, False])
@pytest.mark.parametrize("step", range(FRAME_STEPS))
def test_power_cut_while_a_frame_is_written(
    monkeypatch: pytest.MonkeyPatch, step: int, *, is_leader: bool
) -> None:
    world = started(monkeypatch, step)
    world.disks[struck(world, is_leader=is_leader)].cut_after = step

    world.play(3.0)

    assert world.counts["crashes"] == 1
    world.settle()
    assert world.acknowledged


@pytest.mark.parametrize("is_leader", [True, False])
@pytest.mark.parametrize("step", range(REWRITE_STEPS))
def test_power_cut_during_snapshot_and_compaction(
    monkeypatch: pytest.MonkeyPatch, step: int, *, is_leader: bool
) -> None:
    world = started(monkeypatch, step)
    world.disks[struck(world, is_leader=is_leader)].cut_after_create = step

    world.play(6.0)

    assert world.counts["crashes"] == 1
    world.settle()
    assert len(world.acknowledged) > CONFIG.snapshot_entries


@pytest.mark.parametrize("step", range(REWRITE_STEPS))
def test_power_cut_while_a_joiner_installs_a_snapshot(
    monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    world = started(monkeypatch, step, size=4)
    world.play(4.0)
    world.add(leader_of(world), "n3")
    world.disks["n3"].cut_after_create = step

    world.play(4.0)

    world.settle()
    assert "n3" in leader_of(world).core.roster.members
    assert world.counts["crashes"] == 1


@pytest.mark.parametrize("step", range(4))
def test_full_disk_of_the_leader(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    world = started(monkeypatch, step)
    world.disks[struck(world, is_leader=True)].fail_after = step

    world.play(4.0)

    assert world.counts["crashes"] >= 1
    assert len(world.checker.leaders) >= 2, "another took over"
    world.settle()


@pytest.mark.parametrize("seed", range(4))
def test_power_cut_of_all_at_once(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    world = started(monkeypatch, seed)
    for _ in range(3):
        world.play(2.0)
        for node_id in list(world.nodes):
            world.crash(node_id)

    world.settle()

    assert world.acknowledged
