"""Two witnesses: a node is down at once when both miss it, after three heartbeats when one does."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from cluster.control.liveness import Evidence, Sighting, decide, next_wakeup
from cluster.model.ids import NodeId
from cluster.model.meta import Meta
from cluster.model.node import Node, NodeDescription, NodeSpec, NodeState, Role
from cluster.state.apply import apply
from cluster.state.changes import Change, PutNode, SetNodeState
from cluster.state.snapshot import Snapshot

A = NodeId("a")
LED_SINCE = 1000.0
NOW = 2000.0
"""Long after the leader began; a heartbeat period is 5 s."""


def snapshot(state: NodeState) -> Snapshot:
    node = Node(A, NodeSpec(Role.WORKER), NodeDescription("a"), index=1, state=state)
    return apply(Snapshot(), [PutNode(node)], 1)


def evidence(
    heard_at: float | None = None,
    *,
    session: bool = False,
    dead: bool = False,
    started_at: float = LED_SINCE,
) -> Evidence:
    sightings: Mapping[NodeId, Sighting] = (
        {} if heard_at is None else {A: Sighting(A, heard_at, session)}
    )
    return Evidence(started_at, sightings, frozenset({A}) if dead else frozenset())


def becomes(state: NodeState, seen: Evidence, now: float = NOW) -> NodeState:
    """Return what the node's state is after a look; a second look must agree."""
    before = snapshot(state)
    changes: list[Change] = decide(before, seen, now)
    after = apply(before, changes, 2)
    assert decide(after, seen, now) == []
    return after.nodes[A].state


@pytest.mark.parametrize("state", [NodeState.UNKNOWN, NodeState.DOWN, NodeState.READY])
def test_a_node_with_a_session_and_heartbeats_is_ready(state: NodeState) -> None:
    assert becomes(state, evidence(NOW - 1, session=True)) is NodeState.READY


def test_three_missed_heartbeats_bring_it_down() -> None:
    assert becomes(NodeState.READY, evidence(NOW - 14.9, session=True)) is NodeState.READY
    assert becomes(NodeState.READY, evidence(NOW - 15, session=True)) is NodeState.DOWN
    assert becomes(NodeState.READY, evidence(NOW - 15)) is NodeState.DOWN
    assert becomes(NodeState.READY, evidence()) is NodeState.DOWN


def test_neither_witness_alone_brings_it_down_at_once() -> None:
    assert becomes(NodeState.READY, evidence(NOW - 1)) is NodeState.READY
    assert becomes(NodeState.READY, evidence(NOW - 1, session=True, dead=True)) is NodeState.READY


def test_both_witnesses_bring_it_down_at_once() -> None:
    assert becomes(NodeState.READY, evidence(NOW - 1, dead=True)) is NodeState.DOWN


def test_without_a_session_a_down_node_stays_down() -> None:
    assert becomes(NodeState.DOWN, evidence(NOW - 1)) is NodeState.DOWN
    assert becomes(NodeState.UNKNOWN, evidence(NOW - 1)) is NodeState.UNKNOWN


def test_a_new_leader_gives_every_node_as_long() -> None:
    silent = evidence(started_at=NOW - 14)
    assert becomes(NodeState.READY, silent) is NodeState.READY
    assert becomes(NodeState.UNKNOWN, silent) is NodeState.UNKNOWN
    assert becomes(NodeState.DOWN, silent) is NodeState.DOWN
    assert becomes(NodeState.READY, silent, NOW + 1) is NodeState.DOWN


def test_a_new_leader_waits_for_the_managers_reports() -> None:
    assert becomes(NodeState.READY, evidence(dead=True, started_at=NOW - 0.9)) is NodeState.READY
    assert becomes(NodeState.READY, evidence(dead=True, started_at=NOW - 1)) is NodeState.DOWN


def test_a_node_that_has_just_joined_has_as_long() -> None:
    node = snapshot(NodeState.UNKNOWN).nodes[A]
    joined = Node(node.id, node.spec, node.description, index=1, meta=Meta(created_at=NOW - 10))
    young = apply(Snapshot(), [PutNode(joined)], 1)
    assert decide(young, evidence(), NOW) == []
    assert next_wakeup(young, evidence(), NOW) == 5.0


def test_the_message_is_swarms() -> None:
    [change] = decide(snapshot(NodeState.READY), evidence(), NOW)
    assert change == SetNodeState(A, NodeState.DOWN, "heartbeat failure", NOW)


def test_it_wakes_up_for_the_next_that_silence_may_bring_down() -> None:
    assert next_wakeup(snapshot(NodeState.READY), evidence(NOW - 5, session=True), NOW) == 10.0
    assert next_wakeup(snapshot(NodeState.DOWN), evidence(), NOW) is None
    early = evidence(dead=True, started_at=NOW - 0.25)
    assert next_wakeup(snapshot(NodeState.READY), early, NOW) == 0.75


def test_heartbeats_sent_after_the_clock_was_set_back_do_not_keep_it_up_for_ever() -> None:
    seen = evidence(NOW + 3600)
    assert becomes(NodeState.READY, seen) is NodeState.READY
    assert becomes(NodeState.READY, seen, NOW + 3615) is NodeState.DOWN
