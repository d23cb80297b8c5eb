"""Changes -> consensus -> their outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cluster.model.errors import Invalid
from cluster.state.changes import Change
from cluster.state.codec import encode_changes
from cluster.store.replica import read_outcome

COMMAND_BYTES_MAX = 512 * 1024
"""Largest transaction that consensus takes."""


class Consensus(Protocol):
    """What orders commands; on any manager."""

    async def propose(self, command: bytes) -> bytes:
        """Return the outcome of `command` once it is committed and applied here or at the leader.

        Applied exactly once. Raises Unavailable when that cannot be known in time.
        """
        ...


class Proposer:
    """Changes the replicated state."""

    def __init__(self, consensus: Consensus) -> None:
        self._consensus = consensus

    async def propose(self, changes: Sequence[Change]) -> int:
        """Apply `changes` as one transaction and return its Raft index.

        Raises:
            ClusterError: refused (nothing has changed), or Unavailable (the outcome is unknown).
        """
        command = encode_changes(changes)
        if len(command) > COMMAND_BYTES_MAX:
            raise Invalid(
                f"the request needs {len(command)} bytes; at most {COMMAND_BYTES_MAX} are allowed"
            )
        return read_outcome(await self._consensus.propose(command))
