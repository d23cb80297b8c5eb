"""What this node's own tasks offer: what the managers allocated, with a phase (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cluster.allocation.records import (
    INGRESS_SCOPE,
    EndpointRecord,
    Phase,
    Place,
    decode_body,
    encode,
)
from cluster.model.assignment import Allocation, Assignment
from cluster.model.ids import TaskId


def endpoint_values(assignment: Assignment, phases: Mapping[TaskId, Phase]) -> dict[Place, bytes]:
    """Return what gossip is to say of this node's tasks, which are in these phases."""
    return {
        Place(allocation.scope, allocation.key): encode(phase, allocation.body, allocation.token)
        for allocation, phase in _offered(assignment, phases)
    }


def endpoint_records(
    assignment: Assignment, phases: Mapping[TaskId, Phase]
) -> dict[Place, EndpointRecord]:
    """Return the same as records."""
    return {
        Place(allocation.scope, allocation.key): decode_body(allocation.body, phase)
        for allocation, phase in _offered(assignment, phases)
    }


def _offered(
    assignment: Assignment, phases: Mapping[TaskId, Phase]
) -> Iterator[tuple[Allocation, Phase]]:
    for task, phase in sorted(phases.items()):
        for allocation in assignment.allocations.get(task, ()):
            # Replies must reach a task that starts, but no published port leads to it.
            if phase is not Phase.STARTING or allocation.scope != INGRESS_SCOPE:
                yield allocation, phase
