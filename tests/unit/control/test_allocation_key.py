"""A cluster without an allocation key gets one, once."""

from __future__ import annotations

from dataclasses import replace

from cluster.allocation.tokens import SECRET_BYTES, new_key
from cluster.control.allocation_key import decide
from cluster.state.apply import apply
from cluster.state.snapshot import Snapshot
from tests.unit.control.world import World

SECRET = bytes(range(SECRET_BYTES))


def test_a_cluster_gets_its_first_key_once() -> None:
    world = World()
    world.handle("cluster")
    assert world.snapshot.cluster is not None
    bare = replace(world.snapshot, cluster=replace(world.snapshot.cluster, allocation_keys=()))
    after = apply(bare, decide(bare, SECRET), bare.index + 1)
    assert after.cluster is not None
    assert after.cluster.allocation_keys == (new_key(SECRET),)
    assert decide(after, bytes(SECRET_BYTES)) == []


def test_no_cluster_has_no_key() -> None:
    assert decide(Snapshot(), SECRET) == []
