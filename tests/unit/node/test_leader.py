"""The leader's loops: what they do with what only this manager knows."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random

import pytest

from cluster.control.keys import OVERDUE_S, first_keys, ring_digest, rotate
from cluster.control.liveness import Evidence, Sighting
from cluster.model.cluster import Cluster, ClusterSpec, GossipKey, JoinTokens
from cluster.model.ids import ClusterId, NodeId
from cluster.model.node import Node, NodeDescription, NodeSpec, NodeState, Role
from cluster.node.leader import Leader
from cluster.state.changes import DeleteNode, PutCluster, PutNode
from cluster.store.local import LocalConsensus
from cluster.store.proposer import Proposer
from cluster.store.replica import Replica

A = NodeId("a")


class World:
    """A cluster of one node, which its manager hears."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.rings: dict[NodeId, bytes] = {}
        self.rng = Random(1)
        self.replica = Replica()
        self.proposer = Proposer(LocalConsensus(self.replica))

    async def found(self) -> None:
        keys = first_keys(self.rng.randbytes, self.now)
        cluster = Cluster(ClusterId("c"), ClusterSpec(), b"", b"", JoinTokens("", ""), keys)
        node = Node(A, NodeSpec(Role.MANAGER), NodeDescription("a"), 1, state=NodeState.READY)
        await self.proposer.propose([PutCluster(cluster), PutNode(node)])

    def cluster(self) -> Cluster:
        cluster = self.replica.snapshot().cluster
        assert cluster is not None
        return cluster

    def ring(self) -> tuple[GossipKey, ...]:
        return self.cluster().gossip_keys

    def leader(self) -> Leader:
        return Leader(
            replica=self.replica,
            proposer=self.proposer,
            evidence=lambda at: Evidence(at, {A: Sighting(A, self.now, True)}, frozenset()),
            rings=lambda: self.rings,
            clock=lambda: self.now,
            rng=self.rng,
        )

    async def until_ring(self, *states: str) -> None:
        async with asyncio.timeout(10):
            with self.replica.watch() as changed:
                while [key.state.value for key in self.ring()] != [*states]:
                    await changed.wait()
                    changed.clear()


async def test_a_new_gossip_key_seals_when_the_nodes_hold_it_and_it_is_said_who_does_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    await world.found()
    async with asyncio.TaskGroup() as group:
        leading = group.create_task(world.leader().run())
        await world.proposer.propose([rotate(world.cluster(), b"2" * 32, world.now)])
        world.now += OVERDUE_S
        async with asyncio.timeout(10):
            while "a new key waits for nodes=a" not in caplog.text:
                await asyncio.sleep(0.05)
        assert [key.state.value for key in world.ring()] == ["primary", "accept"]
        world.rings = {A: ring_digest(world.ring())}
        await world.until_ring("retired", "primary")
        leading.cancel()
    assert caplog.text.count("a new key waits") == 1
    assert "2222" not in caplog.text


async def test_a_key_that_was_primary_for_long_enough_is_followed_by_a_fresh_one() -> None:
    world = World()
    await world.found()
    world.now += world.cluster().spec.key_rotation_s
    async with asyncio.TaskGroup() as group:
        leading = group.create_task(world.leader().run())
        await world.until_ring("primary", "accept")
        leading.cancel()
    first, second = world.ring()
    assert len(second.secret) == len(first.secret) == 32
    assert second.secret != first.secret


async def test_the_keys_that_a_removed_node_may_hold_are_replaced_as_soon_as_it_is_removed() -> (
    None
):
    world = World()
    await world.found()
    other = replace(world.replica.snapshot().nodes[A], id=NodeId("b"), index=2)
    await world.proposer.propose([PutNode(other)])
    world.now += 3600
    async with asyncio.TaskGroup() as group:
        leading = group.create_task(world.leader().run())
        await world.proposer.propose([DeleteNode(other.id, timestamp=world.now)])
        await world.until_ring("primary", "accept")
        world.rings = {A: ring_digest(world.ring())}
        await world.until_ring("retired", "primary")
        leading.cancel()
