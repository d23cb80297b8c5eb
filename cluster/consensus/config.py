"""Tunables of consensus, with the reason for each default (pure)."""

from __future__ import annotations

from dataclasses import dataclass

MEBIBYTE = 1024 * 1024

COMMAND_BYTES_MAX = 512 * 1024
"""Largest command; half of a batch, so that PySyncObj never splits an entry (and pickles it)."""

PROPOSALS_MAX = 1024
"""Proposals of one manager in flight; also how many results its session keeps."""


@dataclass(frozen=True, slots=True)
class RaftConfig:
    """How one manager behaves. All managers of a cluster should have the same."""

    election_timeout_s_min: float = 0.8
    """Three heartbeats and a bit. A stall of 100 ms (a dump of 100k objects) is far below it; a
    killed leader is replaced within 2 s or so."""
    election_timeout_s_max: float = 1.6
    """Also how long a leader may go without a majority before it steps down."""
    heartbeat_s: float = 0.25
    """What an idle manager mostly does; PySyncObj demands that three fit in the shortest election
    timeout."""
    commit_notice_s: float = 0.005
    """How long followers may stay behind what was committed, if no new entries tell them."""
    snapshot_entries: int = 10_000
    """Applied entries between snapshots (swarmkit: SnapshotInterval)."""
    snapshot_log_bytes: int = 64 * MEBIBYTE
    """A log of large commands is compacted earlier than `snapshot_entries` says."""
    trailing_entries: int = 500
    """Kept after a snapshot for slow followers (swarmkit: LogEntriesForSlowFollowers)."""
    trailing_bytes: int = 8 * MEBIBYTE
    """A bound on the same, and so on the time that rewriting the log stalls the loop."""
    batch_bytes: int = MEBIBYTE
    """Commands in one AppendEntries message; at least twice the largest command."""
    chunk_bytes: int = 256 * 1024
    """Snapshot bytes in one message."""
    snapshot_window_bytes: int = MEBIBYTE
    """Snapshot bytes waiting for one follower; below `congested_bytes`, so entries still go."""
    congested_bytes: int = 4 * MEBIBYTE
    """A follower with more than this waiting gets no entries until it has taken some."""
    sessions_max: int = 1024
    """Proposing managers (lives of a daemon) whose results are remembered."""

    def __post_init__(self) -> None:
        if self.election_timeout_s_min <= 3 * self.heartbeat_s:
            raise ValueError(
                f"election_timeout_s_min {self.election_timeout_s_min} must be more than three"
                f" heartbeats of {self.heartbeat_s} s"
            )
        if self.election_timeout_s_max <= self.election_timeout_s_min:
            raise ValueError("election_timeout_s_max must be more than election_timeout_s_min")
        if self.snapshot_entries < 1 or self.trailing_entries < 0:
            raise ValueError("snapshot_entries must be positive, trailing_entries not negative")
