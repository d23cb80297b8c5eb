"""What PySyncObj calls its journal, serializer, transport and poller, in terms of ours.

PySyncObj reaches these by its own names (hence the camel case), but nothing here imports it.
"""

# ruff: noqa: N802, N815 - PySyncObj calls these methods

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, overload

from cluster.consensus.errors import SafetyViolation
from cluster.consensus.members import Entry
from cluster.consensus.messages import (
    AppendEntries,
    EngineMessage,
    SnapshotChunk,
    SnapshotPending,
    TimeoutNow,
    VoteGranted,
    VoteRequest,
)
from cluster.consensus.wal import Wal


class HasId(Protocol):
    """PySyncObj's node object."""

    @property
    def id(self) -> str:
        """The node's id."""
        ...


class JournalBridge:
    """The log, by position from its start as PySyncObj counts."""

    def __init__(self, wal: Wal) -> None:
        self._wal = wal

    @overload
    def __getitem__(self, position: int) -> Entry: ...
    @overload
    def __getitem__(self, position: slice) -> list[Entry]: ...
    def __getitem__(self, position: int | slice) -> Entry | list[Entry]:
        return self._wal.entries[position]

    def __len__(self) -> int:
        return len(self._wal.entries)

    def add(self, content: bytes, index: int, term: int) -> None:
        """Append an entry."""
        self._wal.append(content, index, term)

    def clear(self) -> None:
        """PySyncObj clears and adds again, which a crash turns into loss."""
        raise SafetyViolation("the log is never cleared")

    def deleteEntriesFrom(self, position: int) -> None:
        """Truncate."""
        self._wal.truncate_from(self._wal.first_index + position)

    def deleteEntriesTo(self, position: int) -> None:
        """Drop the front."""
        self._wal.drop_before(self._wal.first_index + position)

    def setRaftCommitIndex(self, index: int) -> None:
        """Note the commit index."""
        self._wal.set_commit_index(index)

    def setCurrentTerm(self, term: int, voted_for: str | None) -> None:
        """Save term and vote."""
        self._wal.save_vote(term, voted_for)

    def onOneSecondTimer(self) -> None:
        """Do nothing: what must be durable already is."""

    def _destroy(self) -> None:
        self._wal.close()


class SnapshotBridge:
    """The snapshots to send. PySyncObj only asks for the next piece."""

    def __init__(self, next_chunk: Callable[[str], SnapshotChunk | None]) -> None:
        self._next_chunk = next_chunk

    def getTransmissionData(self, node: HasId) -> tuple[SnapshotChunk, bool, bool] | None:
        """Return the next piece, whether it is the first, and whether it is the last."""
        chunk = self._next_chunk(node.id)
        if chunk is None:
            return None
        return chunk, chunk.offset == 0, chunk.offset + len(chunk.data) == chunk.total

    def cancelTransmisstion(self, node: HasId) -> None:
        """Do nothing: a congested follower comes back. `core` knows when one is gone."""


class TransportBridge:
    """The way out. What comes in goes to the engine's `deliver`, not through here."""

    ready = True

    def __init__(self, send: Callable[[str, dict[str, Any]], None]) -> None:
        self._send = send

    def send(self, node: HasId, message: dict[str, Any]) -> bool:
        """Send PySyncObj's message."""
        self._send(node.id, message)
        return True

    def addNode(self, node: HasId) -> None:
        """Do nothing: the engine tells the wire all its peers whenever they change."""

    def dropNode(self, node: HasId) -> None:
        """Do nothing, for the same reason."""

    def destroy(self) -> None:
        """Do nothing: the wire is not ours."""

    def _ignore(self, *_: object) -> None:
        """Take callbacks that are never called: there are no read-only nodes and no utilities."""

    setOnNodeConnectedCallback = _ignore
    setOnNodeDisconnectedCallback = _ignore
    setOnMessageReceivedCallback = _ignore
    setOnReadonlyNodeConnectedCallback = _ignore
    setOnReadonlyNodeDisconnectedCallback = _ignore
    setOnUtilityMessageCallback = _ignore


class PollerBridge:
    """PySyncObj polls sockets at the end of a tick; there are none."""

    def poll(self, timeout_s: float) -> None:
        """Do nothing."""


def to_message(message: dict[str, Any], *, term: int, is_transfer: bool) -> EngineMessage:
    """Return PySyncObj's message as ours."""
    match message["type"]:
        case "append_entries" if "prevLogIdx" in message:
            if "transmission" in message or message["prevLogIdx"] is None:
                raise SafetyViolation("entry too large, or a follower beyond the leader's log")
            entries: tuple[Entry, ...] = tuple(message["entries"])
            return AppendEntries(
                term,
                message["commit_index"],
                message["prevLogIdx"],
                message["prevLogTerm"],
                entries,
            )
        case "append_entries":
            chunk: SnapshotChunk | None = message["serialized"] and message["serialized"][0]
            return chunk or SnapshotPending(term)
        case "request_vote":
            return VoteRequest(
                term, message["last_log_index"], message["last_log_term"], is_transfer
            )
        case "response_vote":
            return VoteGranted(term)
        case "timeout_now":
            return TimeoutNow(term)
        case other:
            raise SafetyViolation(f"PySyncObj wants to send {other}")
