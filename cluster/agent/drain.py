"""Whether every node has stopped giving new connections to a task (pure)."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Set as AbstractSet

from cluster.agent.applied import task_hash
from cluster.agent.sightings import Reading
from cluster.model.ids import NodeId, TaskId

Row = tuple[str, NodeId]
"""A scope, and a node that is attached to it."""


def unacknowledged(
    task: TaskId, scopes: Collection[str], reading: Reading, owing: AbstractSet[Row] = frozenset()
) -> frozenset[Row]:
    """Return the other live nodes, attached to any of `scopes`, that still may connect to `task`.

    A node that is attached without having said so yet has not planned anything either; but one of
    `owing`, if it says nothing now, has a new daemon, which has its old plan in the kernel.
    """
    wanted = task_hash(task)
    rows = {
        (scope, node): hashes
        for scope in scopes
        for node, hashes in reading.applied.get(scope, {}).items()
    }
    return frozenset(
        row
        for row in rows.keys() | owing
        if row[1] in reading.live and wanted not in rows.get(row, frozenset())
    )
