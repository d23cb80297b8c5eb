"""Letting nodes in: indexes, addresses, conflicts with other managers; and addresses as typed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.ca.certificates import PeerIdentity, new_request, read_identity_untrusted
from cluster.dispatch.admission import INDEX_MAX, Admission, described, host_port, new_node
from cluster.dispatch.join import with_port
from cluster.dispatch.messages import Registration
from cluster.dispatch.requests import JoinRequest
from cluster.model.errors import Conflict, FailedPrecondition, Forbidden, Invalid, Unavailable
from cluster.model.ids import ClusterId, NodeId
from cluster.model.node import Node, NodeDescription, NodeSpec, Role
from cluster.state.changes import Change, DeleteNode, PutCluster, PutNode
from cluster.state.snapshot import Snapshot
from tests.unit.dispatch.control_plane import REGISTRATION, World

NOW = 1_800_000_000.0
JOIN = JoinRequest("token", b"", REGISTRATION)


def node_with(index: int) -> Node:
    return Node(
        NodeId(f"n{index}"), NodeSpec(Role.WORKER), NodeDescription("h"), index, "192.0.2.1"
    )


def snapshot_with(indexes: Sequence[int]) -> Snapshot:
    return Snapshot(nodes={n.id: n for n in map(node_with, indexes)})


def admit(snapshot: Snapshot, request: JoinRequest = JOIN, role: Role = Role.WORKER) -> Node:
    return new_node(
        snapshot,
        request,
        node=NodeId("new"),
        role=role,
        seen_address="192.0.2.9",
        now=NOW,
        choose=min,
    )


def test_the_lowest_free_index_is_given() -> None:
    assert admit(Snapshot()).index == 1
    assert admit(snapshot_with([1, 2, 4])).index == 3
    with pytest.raises(FailedPrecondition, match="the cluster is full: it has 4094 nodes"):
        admit(snapshot_with(range(1, INDEX_MAX + 1)))


def test_addresses_are_as_asked_or_as_seen() -> None:
    seen = admit(Snapshot())
    assert (seen.address, seen.data_address, seen.manager_address) == ("192.0.2.9",) * 2 + ("",)
    asked = Registration(NodeDescription("h"), "2001:db8::1", control_port=9)
    manager = admit(Snapshot(), replace(JOIN, registration=asked), Role.MANAGER)
    assert manager.address == manager.data_address == "2001:db8::1"
    assert manager.manager_address == "[2001:db8::1]:9"


def test_what_a_node_says_again_is_no_change() -> None:
    node = admit(Snapshot())
    assert described(node, REGISTRATION, "192.0.2.9") is None
    moved = described(node, REGISTRATION, "192.0.2.10")
    assert moved is not None
    assert (moved.address, moved.data_address) == ("192.0.2.10", "192.0.2.10")
    promoted = replace(node, spec=NodeSpec(Role.MANAGER))
    change = described(promoted, REGISTRATION, "192.0.2.9")
    assert change is not None
    assert change.manager_address == "192.0.2.9:2377"


class Rivalry:
    """An admission where another manager takes each index first, a number of times."""

    def __init__(self, state: Path, defeats: int) -> None:
        self.world = World(state, lambda: NOW)
        self.defeats = defeats
        self.admission = Admission(
            replica=self.world.replica,
            propose=self.propose,
            clock=self.world.clock,
            rng=self.world.rng,
        )

    async def propose(self, changes: Sequence[Change]) -> int:
        if self.defeats:
            self.defeats -= 1
            (change,) = changes
            assert isinstance(change, PutNode)
            rival = NodeId(f"rival-{self.defeats}")
            await self.world.propose(PutNode(replace(change.node, id=rival)))
        return await self.world.proposer.propose(changes)

    async def join(self) -> Node:
        await self.world.propose(PutCluster(self.world.cluster))
        token = self.world.cluster.join_tokens.worker
        request = JoinRequest(token, new_request().csr, REGISTRATION)
        response = await self.admission.join(request, "192.0.2.9")
        return self.world.snapshot().nodes[response.node]


async def test_a_taken_index_is_not_the_end(tmp_path: Path) -> None:
    rivalry = Rivalry(tmp_path, defeats=4)
    node = await rivalry.join()
    nodes = rivalry.world.snapshot().nodes
    assert len(nodes) == 5
    assert [n.index for n in nodes.values()].count(node.index) == 1


async def test_it_gives_up_in_the_end(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="many nodes are joining"):
        await Rivalry(tmp_path, defeats=100).join()


async def test_only_members_renew(tmp_path: Path) -> None:
    rivalry = Rivalry(tmp_path, defeats=0)
    node = await rivalry.join()
    identity = PeerIdentity(node.id, Role.WORKER, ClusterId("c"), 0, 0)
    renewed = await rivalry.admission.renew(identity, new_request().csr)
    assert read_identity_untrusted(renewed).node == node.id
    with pytest.raises(Forbidden, match="is not a member"):
        await rivalry.admission.renew(replace(identity, node=NodeId("x")), new_request().csr)


async def test_a_manager_without_state_cannot_decide(tmp_path: Path) -> None:
    world = World(tmp_path, lambda: NOW)
    admission = Admission(
        replica=world.replica, propose=world.proposer.propose, clock=world.clock, rng=world.rng
    )
    with pytest.raises(Unavailable, match="has not caught up"):
        await admission.join(JOIN, "")


async def test_joining_again_keeps_the_role(tmp_path: Path) -> None:
    rivalry = Rivalry(tmp_path, defeats=0)
    await rivalry.world.propose(PutCluster(rivalry.world.cluster))
    tokens, csr = rivalry.world.cluster.join_tokens, new_request().csr
    await rivalry.admission.join(JoinRequest(tokens.worker, csr, REGISTRATION), "192.0.2.9")
    with pytest.raises(Conflict, match="as worker"):
        await rivalry.admission.join(JoinRequest(tokens.manager, csr, REGISTRATION), "192.0.2.9")


async def test_the_key_of_a_removed_node_is_not_let_in_again(tmp_path: Path) -> None:
    rivalry = Rivalry(tmp_path, defeats=0)
    await rivalry.world.propose(PutCluster(rivalry.world.cluster))
    token, csr = rivalry.world.cluster.join_tokens.worker, new_request().csr
    request = JoinRequest(token, csr, REGISTRATION)
    joined = await rivalry.admission.join(request, "192.0.2.9")
    await rivalry.world.propose(DeleteNode(joined.node, timestamp=NOW))

    words = f"node {joined.node} was removed .*`swarm leave --force` .* then join again"
    with pytest.raises(Forbidden, match=words):
        await rivalry.admission.join(request, "192.0.2.9")
    with pytest.raises(Forbidden, match=words):
        await rivalry.admission.renew(read_identity_untrusted(joined.certificate), csr)
    other = await rivalry.admission.join(replace(request, csr=new_request().csr), "192.0.2.9")
    assert other.node != joined.node


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("192.0.2.1", "192.0.2.1:2377"),
        (" manager.example:99 ", "manager.example:99"),
        ("2001:db8::1", "[2001:db8::1]:2377"),
        ("[2001:db8::1]", "[2001:db8::1]:2377"),
        ("[2001:db8::1]:99", "[2001:db8::1]:99"),
    ],
)
def test_a_port_is_added_where_there_is_none(typed: str, meant: str) -> None:
    assert with_port(typed) == meant


@pytest.mark.parametrize(
    "typed", ["", ":2377", "h:0", "h:99999", "h:abc", "h:", "h:²", "h:-1", "[::1]:x"]
)
def test_what_is_no_address_is_refused_before_anything_is_asked(typed: str) -> None:
    with pytest.raises(Invalid, match="invalid manager address"):
        with_port(typed)


def test_host_and_port() -> None:
    assert host_port("192.0.2.1", 5) == "192.0.2.1:5"
    assert host_port("::1", 5) == "[::1]:5"
