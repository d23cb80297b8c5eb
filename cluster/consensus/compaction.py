"""Keeping the log short: when to take a snapshot, and what of the log to keep after it."""

from __future__ import annotations

from cluster.consensus.config import RaftConfig
from cluster.consensus.ports import Background
from cluster.consensus.roster import Roster
from cluster.consensus.sessions import Sessions
from cluster.consensus.snapshots import Snapshot, SnapshotStore, StoredSnapshot
from cluster.consensus.wal import Wal


class Compaction:
    """One manager's snapshots of its own state."""

    def __init__(
        self,
        *,
        config: RaftConfig,
        wal: Wal,
        snapshots: SnapshotStore,
        sessions: Sessions,
        roster: Roster,
        background: Background,
    ) -> None:
        self._config = config
        self._wal = wal
        self._snapshots = snapshots
        self._sessions = sessions
        self._roster = roster
        self._background = background
        self._is_writing = False

    def step(self, applied_index: int) -> None:
        """Begin a snapshot of the state at `applied_index`, if it is time."""
        if self._is_writing or not self._is_due(applied_index):
            return
        last, previous = self._wal.entry(applied_index), self._wal.entry(applied_index - 1)
        members = tuple(self._roster.applied.values())
        encode = self._sessions.dump()
        self._is_writing = True
        self._background(
            lambda: self._snapshots.write(Snapshot(last, previous, members, encode())),
            self._written,
        )

    def _is_due(self, applied_index: int) -> bool:
        stored = self._snapshots.current
        if stored is None or applied_index <= stored.index:
            return False
        return (
            applied_index - stored.index >= self._config.snapshot_entries
            or self._wal.entry_bytes >= self._config.snapshot_log_bytes
        )

    def _written(self, stored: StoredSnapshot) -> None:
        self._is_writing = False
        if self._snapshots.publish(stored):
            self._wal.drop_before(self._keep_from(stored.index))

    def _keep_from(self, index: int) -> int:
        """Return the first entry to keep for slow followers, if the snapshot ends at `index`."""
        keep = index - 1  # the engine's log begins with the entry before the snapshot's last
        oldest = max(self._wal.first_index, index - self._config.trailing_entries)
        kept_bytes = 0
        while keep > oldest:
            kept_bytes += len(self._wal.entry(keep)[0])
            if kept_bytes > self._config.trailing_bytes:
                break
            keep -= 1
        return keep
