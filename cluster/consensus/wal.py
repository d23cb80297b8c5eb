"""The write-ahead log: entries, term and vote, and the commit index, durable before they count.

Everything is a record; `sync` seals the records since the last one into one frame, appends and
syncs it. The engine calls `sync` before any message that speaks of its state leaves and before it
counts itself towards a majority. Dropping the front of the log rewrites the file.

Invariants:
    entries are contiguous; the commit index is never beyond them;
    what `sync` returned from survives a power loss, what it did not may be lost but only from the
    end, never from the middle;
    after one failure nothing is written any more: a failed fsync may have dropped what it covered
    (Rebello et al., "Can Applications Recover from fsync Failures?", 2020).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import msgspec

from cluster.consensus.errors import SafetyViolation, StorageFailure
from cluster.consensus.files import AppendFile, Directory
from cluster.consensus.frames import encode_frame, read_frames
from cluster.consensus.headers import HEADER_BYTES, FileKind, encode_header, read_header
from cluster.consensus.members import NO_OP, Entry, Member
from cluster.consensus.seal import FileSeal, fresh_salt

FILE_NAME = "log"
_NEW_NAME = "log.new"
_REWRITE_FRAME_BYTES = 1024 * 1024
_ROOM_BYTES = 256 * 1024
"""Zeros ahead of the frames: enough for hundreds of syncs, and written in less than one takes."""
_PURPOSE = b"log"


class Identity(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Whose log this is."""

    node_id: str
    cluster_id: str
    disk_id: str
    boots: int
    """How often the log was opened: orders the sessions of this node's lives."""
    contacts: tuple[Member, ...]
    """A joiner hears only these managers until it has a configuration."""


class _Append(msgspec.Struct, frozen=True, array_like=True, tag=1):
    index: int
    term: int
    content: bytes


class _Truncate(msgspec.Struct, frozen=True, array_like=True, tag=2):
    index: int


class _Vote(msgspec.Struct, frozen=True, array_like=True, tag=3):
    term: int
    voted_for: str | None


class _Commit(msgspec.Struct, frozen=True, array_like=True, tag=4):
    index: int


_Record = Identity | _Append | _Truncate | _Vote | _Commit

_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[list[_Record]] = msgspec.msgpack.Decoder(list[_Record])

JOINER_LOG: tuple[Entry, ...] = ((NO_OP, 0, 0),)
"""No leader's log reaches back to index 0, so a joiner always gets a snapshot first."""
FOUNDER_LOG: tuple[Entry, ...] = ((NO_OP, 1, 0), (NO_OP, 2, 0))
"""What the founder's first snapshot, at index 2, stands on."""


@dataclass(slots=True)
class _Replay:
    """What the records of a file say."""

    identity: Identity | None = None
    entries: list[Entry] | None = None
    term: int = 0
    voted_for: str | None = None
    commit_index: int = 0

    def take(self, record: _Record) -> None:
        entries = self.entries
        match record:
            case Identity():
                self.identity = record
            case _Append(index=index, term=term, content=content):
                if entries is None:
                    self.entries = [(content, index, term)]
                elif index == entries[-1][1] + 1:
                    entries.append((content, index, term))
                else:
                    raise StorageFailure(f"the log jumps from {entries[-1][1]} to {index}")
            case _Truncate(index=index):
                if not entries or not entries[0][1] < index <= entries[-1][1]:
                    raise StorageFailure(f"the log is truncated at {index}, outside its entries")
                del entries[index - entries[0][1] :]
            case _Vote(term=term, voted_for=voted_for):
                self.term, self.voted_for = term, voted_for
            case _Commit(index=index):
                self.commit_index = index


class Wal:
    """One manager's log, held in memory and on disk."""

    def __init__(self, directory: Directory, *, data_key: bytes) -> None:
        """Open the log in `directory`, and rewrite it under a new salt.

        Raises:
            StorageFailure: there is none, it is damaged, or the key is not its key.
        """
        replay = _load(directory, data_key)
        if replay.identity is None or not replay.entries:
            raise StorageFailure("the log has no beginning")
        if replay.commit_index > replay.entries[-1][1]:
            raise StorageFailure(
                f"the log ends at {replay.entries[-1][1]}, before its commit index"
                f" {replay.commit_index}"
            )
        self.identity = msgspec.structs.replace(replay.identity, boots=replay.identity.boots + 1)
        self.entries = replay.entries
        self.term, self.voted_for = replay.term, replay.voted_for
        self.commit_index = replay.commit_index
        self.entry_bytes = sum(len(content) for content, _, _ in self.entries)
        """Size of all entries held."""
        self.syncs = 0
        self.sync_seconds = 0.0
        self._directory = directory
        self._data_key = data_key
        self._records: list[_Record] = []
        self._is_commit_recorded = True
        self._has_failed = False
        self._file, self._seal, self._number = _write_new(directory, data_key, self._as_records())

    @property
    def first_index(self) -> int:
        """Index of the oldest entry held."""
        return self.entries[0][1]

    @property
    def last_index(self) -> int:
        """Index of the newest entry."""
        return self.entries[-1][1]

    @property
    def has_unsynced(self) -> bool:
        """Whether something was recorded that is not durable."""
        return bool(self._records)

    @property
    def unsynced_from(self) -> int:
        """Index of the first entry that is not durable; one past the last if all are."""
        indexes = (r.index for r in self._records if isinstance(r, _Append | _Truncate))
        return min(indexes, default=self.last_index + 1)

    def entry(self, index: int) -> Entry:
        """Return the entry at `index`, which must be held."""
        return self.entries[index - self.entries[0][1]]

    def entries_from(self, index: int) -> list[Entry]:
        """Return the entries held from `index` on."""
        return self.entries[max(0, index - self.entries[0][1]) :]

    def holds(self, index: int) -> bool:
        """Tell whether there is an entry at `index`."""
        return self.entries[0][1] <= index <= self.entries[-1][1]

    def append(self, content: bytes, index: int, term: int) -> None:
        """Add the next entry."""
        if index != self.entries[-1][1] + 1:
            raise SafetyViolation(f"entry {index} appended after {self.entries[-1][1]}")
        self.entries.append((content, index, term))
        self.entry_bytes += len(content)
        self._records.append(_Append(index, term, content))

    def truncate_from(self, index: int) -> None:
        """Forget the entries from `index` on."""
        if index <= self.commit_index or index <= self.first_index:
            raise SafetyViolation(f"truncation at committed index {index}")
        position = index - self.entries[0][1]
        if position >= len(self.entries):
            return
        self.entry_bytes -= sum(len(content) for content, _, _ in self.entries[position:])
        del self.entries[position:]
        self._records.append(_Truncate(index))

    def drop_before(self, index: int) -> None:
        """Forget the entries before `index`; a snapshot stands for them. Rewrites the file."""
        if index > self.first_index:
            self.reset(self.entries[index - self.first_index :])

    def reset(self, entries: list[Entry]) -> None:
        """Become `entries`. Rewrites the file."""
        self._refuse_after_failure()
        self._file.close()
        self.entries = list(entries)
        self.entry_bytes = sum(len(content) for content, _, _ in self.entries)
        self.commit_index = max(self.first_index, min(self.commit_index, self.last_index))
        self._rewrite()

    def save_vote(self, term: int, voted_for: str | None) -> None:
        """Set term and vote; durable on return."""
        self.term, self.voted_for = term, voted_for
        self._records.append(_Vote(term, voted_for))
        self.sync()

    def set_commit_index(self, index: int) -> None:
        """Set the commit index. It may be lost, so it rides along with the next frame."""
        if index != self.commit_index:
            self.commit_index = index
            self._is_commit_recorded = False

    def set_contacts(self, contacts: tuple[Member, ...]) -> None:
        """Set whom a joiner hears; durable on return."""
        self.identity = msgspec.structs.replace(self.identity, contacts=contacts)
        self._records.append(self.identity)
        self.sync()

    def sync(self) -> None:
        """Make all that was recorded durable; cheap if nothing was.

        Raises:
            StorageFailure: it is not durable; neither is anything from now on.
        """
        write = self.begin_sync()
        if write is not None:
            write()

    def begin_sync(self) -> Callable[[], None] | None:
        """Return the part of `sync` that waits for the disk; None if nothing was recorded.

        It may be called in any thread, once; until it has returned, the log must only be read.
        """
        if not self._records:
            return None
        self._refuse_after_failure()
        if not self._is_commit_recorded:
            self._records.append(_Commit(self.commit_index))
            self._is_commit_recorded = True
        payload = self._seal.seal(self._number, _encode(self._records))
        return partial(self._write, encode_frame(self._number, payload))

    def close(self) -> None:
        """Close the file. What was not synced is lost."""
        self._has_failed = True
        self._file.close()

    def _write(self, frame: bytes) -> None:
        started = time.perf_counter()
        try:
            self._file.append(frame)
            self._file.sync()
        except StorageFailure:
            self._has_failed = True
            raise
        self.sync_seconds += time.perf_counter() - started
        self.syncs += 1
        self._number += 1
        self._records = []

    def _rewrite(self) -> None:
        self._has_failed = True  # until the new file is in place, there is none to append to
        self._file, self._seal, self._number = _write_new(
            self._directory, self._data_key, self._as_records()
        )
        self._has_failed = False
        self._records = []
        self._is_commit_recorded = True
        self.syncs += 1

    def _as_records(self) -> list[_Record]:
        appends = [_Append(index, term, content) for content, index, term in self.entries]
        return [
            self.identity,
            *appends,
            _Vote(self.term, self.voted_for),
            _Commit(self.commit_index),
        ]

    def _refuse_after_failure(self) -> None:
        if self._has_failed:
            raise StorageFailure("the log failed before, or is closed")


def exists(directory: Directory) -> bool:
    """Tell whether `directory` has a log."""
    return FILE_NAME in directory.names()


def found(
    directory: Directory,
    *,
    identity: Identity,
    entries: tuple[Entry, ...],
    data_key: bytes,
) -> None:
    """Write the log of a new manager."""
    records: list[_Record] = [identity]
    records += [_Append(index, term, content) for content, index, term in entries]
    records += [_Vote(0, None), _Commit(entries[-1][1])]
    file, _, _ = _write_new(directory, data_key, records)
    file.close()


def _load(directory: Directory, data_key: bytes) -> _Replay:
    if not exists(directory):
        raise StorageFailure("this manager has no log")
    data = directory.read(FILE_NAME)
    seal = FileSeal(data_key, salt=read_header(FileKind.LOG, "the log", data), purpose=_PURPOSE)
    replay = _Replay()
    for number, payload in read_frames(data, HEADER_BYTES):
        try:
            records = _decoder.decode(seal.open(number, payload))
        except msgspec.MsgspecError as error:
            raise StorageFailure(f"frame {number} of the log holds no records") from error
        for record in records:
            replay.take(record)
    return replay


def _write_new(
    directory: Directory, data_key: bytes, records: list[_Record]
) -> tuple[AppendFile, FileSeal, int]:
    """Write `records` to a new file in place of the old; return what appending to it needs."""
    salt = fresh_salt()
    seal = FileSeal(data_key, salt=salt, purpose=_PURPOSE)
    file = directory.create(_NEW_NAME, room_bytes=_ROOM_BYTES)
    frames = [encode_header(FileKind.LOG, salt)]
    for number, batch in enumerate(_batches(records)):
        frames.append(encode_frame(number, seal.seal(number, _encode(batch))))
    file.append(b"".join(frames))
    file.sync()
    directory.replace(_NEW_NAME, FILE_NAME)
    return file, seal, len(frames) - 1


def _batches(records: list[_Record]) -> Iterator[list[_Record]]:
    batch: list[_Record] = []
    size_bytes = 0
    for record in records:
        batch.append(record)
        size_bytes += len(record.content) if isinstance(record, _Append) else 0
        if size_bytes >= _REWRITE_FRAME_BYTES:
            yield batch
            batch, size_bytes = [], 0
    yield batch
