"""Consensus of one, in memory: for tests and the simulator."""

from __future__ import annotations

from cluster.store.replica import Replica


class LocalConsensus:
    """Commits every command at once."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._index = replica.snapshot().index

    async def propose(self, command: bytes) -> bytes:
        """See `store.proposer.Consensus`."""
        self._index += 1
        return self._replica.apply(self._index, command)
