"""Whether every node has stopped giving new connections to a task (pure)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cluster.agent.applied import task_hash
from cluster.agent.sightings import Reading
from cluster.model.ids import NodeId, TaskId


def unacknowledged(task: TaskId, scopes: Collection[str], reading: Reading) -> frozenset[NodeId]:
    """Return the other live nodes, attached to any of `scopes`, that still may connect to `task`.

    A node that is attached without having said so yet has not planned anything either.
    """
    wanted = task_hash(task)
    return frozenset(
        node
        for scope in scopes
        for node, hashes in _rows(reading, scope).items()
        if node in reading.live and wanted not in hashes
    )


def _rows(reading: Reading, scope: str) -> Mapping[NodeId, frozenset[bytes]]:
    return reading.applied.get(scope, {})
