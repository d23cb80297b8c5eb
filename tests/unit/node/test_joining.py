"""A node joins until it is in: with the same key, unless what it was by that key was removed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cluster.api.backend import JoinRequest
from cluster.model.errors import Forbidden, Unavailable
from cluster.node.config import NodeConfig
from cluster.node.node import Node
from cluster.state.changes import Change, DeleteNode
from cluster.store.local import LocalConsensus
from cluster.store.proposer import Proposer
from tests.unit.dispatch.control_plane import Manager, World, running, wait_until
from tests.unit.node.test_addresses import free_port


class LosingProposer(Proposer):
    """Commits, and loses the outcome while `loses`."""

    loses = False

    async def propose(self, changes: Sequence[Change]) -> int:
        index = await super().propose(changes)
        if self.loses:
            raise Unavailable("the outcome is unknown")
        return index


async def test_a_key_whose_node_was_removed_is_replaced(tmp_path: Path) -> None:
    world = World(tmp_path / "world", lambda: datetime.now(UTC).timestamp())
    world.proposer = proposer = LosingProposer(LocalConsensus(world.replica))
    node = Node(NodeConfig(data_root=tmp_path, run_root=tmp_path, gossip_port=free_port()))
    async with running(Manager(world)) as manager:
        wish = JoinRequest(
            (manager.address,), world.cluster.join_tokens.worker, listen_address="127.0.0.1:2377"
        )
        known = set(world.snapshot().nodes)
        for _ in range(2):
            proposer.loses = True
            with pytest.raises(Unavailable, match="the outcome is unknown"):
                await node.swarm_join(wish)
            proposer.loses = False
            (ghost,) = set(world.snapshot().nodes) - known
            await world.propose(DeleteNode(ghost, timestamp=world.clock()))
            with pytest.raises(Forbidden, match=f"node {ghost} was removed .* join again"):
                await node.swarm_join(wish)

        async with asyncio.TaskGroup() as group:
            joining = group.create_task(node.swarm_join(wish))
            await wait_until(lambda: len(world.snapshot().nodes) > len(known))
            joining.cancel()
        (fresh,) = set(world.snapshot().nodes) - known
        assert fresh not in world.snapshot().removed
