"""Which nodes are ready, and which are down (pure).

Two witnesses: the managers, who hear a node's heartbeats over its session, and the other nodes, who
probe it by gossip. Either may be wrong alone (a worker may lose the managers and go on serving; a
node may be slow to answer a probe), so a node is DOWN at once only when both miss it; otherwise
after three missed heartbeat periods. A new leader knows nothing yet: it gives every node as long.

Source: swarmkit manager/dispatcher (heartbeat failure, grace period multiplier 3).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from cluster.model.cluster import HEARTBEAT_PERIOD_S
from cluster.model.ids import NodeId
from cluster.model.node import Node, NodeState
from cluster.state.changes import Change, SetNodeState
from cluster.state.snapshot import Snapshot

GRACE_PERIODS = 3
"""Heartbeat periods without a heartbeat until a node is DOWN."""
REPORTS_AFTER_S = 1.0
"""A leader of this age has heard from the other managers which sessions they have."""
HEARTBEAT_FAILURE = "heartbeat failure"
"""Swarm's message of a node that is DOWN."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What the managers, taken together, hear of one node."""

    node: NodeId
    last_heard_at: float
    """Unix seconds, by the leader's clock, of the latest heartbeat."""
    has_session: bool
    """Whether any manager has a session with it now."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is known of the nodes' lives besides the replicated state."""

    started_at: float
    """When this leader began to lead, unix seconds."""
    sightings: Mapping[NodeId, Sighting]
    dead: Collection[NodeId]
    """Nodes that gossip has declared dead."""


def decide(snapshot: Snapshot, evidence: Evidence, now: float) -> list[Change]:
    """Return the nodes whose state is another than believed so far."""
    changes: list[Change] = []
    for node in snapshot.nodes.values():
        state = _state(snapshot, node, evidence, now)
        if state is not node.state:
            message = HEARTBEAT_FAILURE if state is NodeState.DOWN else ""
            changes.append(SetNodeState(node.id, state, message, now))
    return changes


def next_wakeup(snapshot: Snapshot, evidence: Evidence, now: float) -> float | None:
    """Return the seconds (> 0) until silence alone brings the next node down; None: none is up."""
    due = [
        _down_at(snapshot, node, evidence) - now
        for node in snapshot.nodes.values()
        if node.state is not NodeState.DOWN
    ]
    if any(_is_missed_by_both(node.id, evidence) for node in snapshot.nodes.values()):
        due.append(evidence.started_at + REPORTS_AFTER_S - now)
    return min((delay for delay in due if delay > 0), default=None)


def _state(snapshot: Snapshot, node: Node, evidence: Evidence, now: float) -> NodeState:
    if now >= _down_at(snapshot, node, evidence):
        return NodeState.DOWN
    if _is_missed_by_both(node.id, evidence):
        has_reports = now >= evidence.started_at + REPORTS_AFTER_S
        return NodeState.DOWN if has_reports else node.state
    sighting = evidence.sightings.get(node.id)
    if sighting and sighting.has_session and now < sighting.last_heard_at + _grace_s(snapshot):
        return NodeState.READY
    return node.state


def _is_missed_by_both(node: NodeId, evidence: Evidence) -> bool:
    sighting = evidence.sightings.get(node)
    return node in evidence.dead and not (sighting and sighting.has_session)


def _down_at(snapshot: Snapshot, node: Node, evidence: Evidence) -> float:
    """Return when `node` is DOWN unless it is heard of before."""
    sighting = evidence.sightings.get(node.id)
    heard_at = sighting.last_heard_at if sighting else 0.0
    known_since = max(heard_at, evidence.started_at, node.meta.created_at)
    return known_since + _grace_s(snapshot)


def _grace_s(snapshot: Snapshot) -> float:
    cluster = snapshot.cluster
    period_s = cluster.spec.heartbeat_period_s if cluster else HEARTBEAT_PERIOD_S
    return GRACE_PERIODS * period_s
