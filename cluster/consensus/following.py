"""A follower's side of replication: entries and snapshots from the leader, and what it may reply.

Invariant: an acknowledgement reaches no further than the message that it answers has proved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster.consensus.appending import Mismatch, trim
from cluster.consensus.errors import SafetyViolation
from cluster.consensus.messages import (
    AppendEntries,
    AppendReply,
    EngineMessage,
    NewerTerm,
    SnapshotChunk,
    SnapshotPending,
)
from cluster.consensus.raft import Engine, MemberNode
from cluster.consensus.snapshots import Snapshot, SnapshotStore
from cluster.consensus.voting import Voting
from cluster.consensus.wal import Wal


class Following:
    """One manager as a follower."""

    def __init__(
        self,
        *,
        engine: Engine,
        wal: Wal,
        snapshots: SnapshotStore,
        voting: Voting,
        restore: Callable[[Snapshot], None],
        post: Callable[[str, EngineMessage], None],
    ) -> None:
        self.snapshots_installed = 0
        self._engine = engine
        self._wal = wal
        self._snapshots = snapshots
        self._voting = voting
        self._restore = restore
        self._post = post
        self._reply: AppendReply | None = None

    def on_message(
        self, node: MemberNode, message: AppendEntries | SnapshotChunk | SnapshotPending
    ) -> None:
        """Handle a message that only a leader sends."""
        term = self._engine.term()
        if message.term < term:
            self._post(node.id, NewerTerm(term))
            return
        if message.term == term and self._engine.is_leader():
            raise SafetyViolation(f"{node.id} and this manager lead in term {term}")
        self._voting.hear_leader()
        if isinstance(message, AppendEntries):
            self._on_append_entries(node, message)
        else:
            self._on_snapshot(node, message)

    def _on_append_entries(self, node: MemberNode, message: AppendEntries) -> None:
        part = trim(message, self._wal)
        received: dict[str, Any] = {"type": "append_entries", "term": message.term}
        if isinstance(part, Mismatch):
            self._reply = AppendReply(message.term, part.retry_from, reset=True, success=False)
            # A place beyond the log: the engine notes the leader, appends and commits nothing.
            received |= {
                "commit_index": 0,
                "entries": (),
                "prevLogIdx": self._wal.last_index + 1,
                "prevLogTerm": 0,
            }
        else:
            self._reply = AppendReply(
                message.term, part.verified_index + 1, reset=False, success=True
            )
            received |= {
                "commit_index": part.commit_index,
                "entries": part.entries,
                "prevLogIdx": part.previous_index,
                "prevLogTerm": part.previous_term,
            }
        self._engine.receive(node, received)

    def _on_snapshot(self, node: MemberNode, message: SnapshotChunk | SnapshotPending) -> None:
        # The engine only notes the leader. A chunk says nothing of this log, so its commit index
        # must not move; PySyncObj would commit what was never compared.
        self._engine.receive(
            node,
            {
                "type": "append_entries",
                "term": message.term,
                "commit_index": 0,
                "serialized": None,
            },
        )
        reply = AppendReply(message.term, self._wal.last_index + 1, reset=False, success=False)
        if isinstance(message, SnapshotChunk):
            covered = message.index <= self._engine.commit_index()
            snapshot = None if covered else self._snapshots.receive_untrusted(message)
            if snapshot is not None:
                self._restore(snapshot)
                self.snapshots_installed += 1
            if covered or snapshot is not None:
                # Not further than the snapshot: what follows in this log was not compared.
                reply = AppendReply(message.term, message.index + 1, reset=False, success=True)
        self._post(node.id, reply)

    def send_reply(self, node_id: str) -> None:
        """Answer the AppendEntries message that the engine is handling."""
        if self._reply is None:
            raise SafetyViolation("a reply to nothing")
        self._post(node_id, self._reply)
        self._reply = None
