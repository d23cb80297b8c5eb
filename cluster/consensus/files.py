"""The directory that consensus keeps, as the few operations that it needs.

Tests put a directory in its place that records, fails, or forgets what was never synced.
Invariant: after `replace` returns, the new name is durable; nothing else is before `sync`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from cluster.consensus.errors import StorageFailure
from cluster.private_file import sync_directory


class AppendFile(Protocol):
    """A file open for writing at its end. Every method raises StorageFailure if the disk does."""

    def append(self, data: bytes) -> None:
        """Write all of `data`."""
        ...

    def sync(self) -> None:
        """Make all that was written durable."""
        ...

    def close(self) -> None:
        """Close without syncing; a second time does nothing."""
        ...


class Directory(Protocol):
    """A flat directory. Every method raises StorageFailure if the disk does."""

    def names(self) -> list[str]:
        """Return the names of the files, sorted."""
        ...

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        ...

    def create(self, name: str, *, room_bytes: int = 0) -> AppendFile:
        """Open an empty file for writing, 0600; what it held is gone.

        room_bytes: zeros are written so far ahead of what is appended, and read back after it. A
        sync within them writes data only; one that lengthens the file waits for the file system's
        journal too (ext4: 0.18 ms instead of 0.11, and half as much processor time again).
        """
        ...

    def replace(self, old: str, new: str) -> None:
        """Rename durably, over `new` if it exists."""
        ...

    def remove(self, name: str) -> None:
        """Delete a file; whether that is durable does not matter."""
        ...


class DiskFile:
    """A file on disk."""

    def __init__(self, path: Path, *, room_bytes: int) -> None:
        self._path = path
        self._room_bytes = room_bytes
        self._end = self._room_end = 0
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def append(self, data: bytes) -> None:
        """See `AppendFile`."""
        end = self._end + len(data)
        if end > self._room_end:
            self._write(data + bytes(self._room_bytes))
            self._room_end = end + self._room_bytes
        else:
            self._write(data)
        self._end = end

    def sync(self) -> None:
        """See `AppendFile`."""
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise _failure("sync", self._path, error) from error

    def close(self) -> None:
        """See `AppendFile`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, data: bytes) -> None:
        view, offset = memoryview(data), self._end
        try:
            while view:
                written = os.pwrite(self._fd, view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            raise _failure("write", self._path, error) from error


class DiskDirectory:
    """A directory on disk, 0700; made if it is missing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_directory(path.parent)
        except OSError as error:
            raise _failure("make", path, error) from error

    def names(self) -> list[str]:
        """See `Directory`."""
        return sorted(entry.name for entry in self._path.iterdir() if entry.is_file())

    def read(self, name: str) -> bytes:
        """See `Directory`."""
        try:
            return (self._path / name).read_bytes()
        except OSError as error:
            raise _failure("read", self._path / name, error) from error

    def create(self, name: str, *, room_bytes: int = 0) -> DiskFile:
        """See `Directory`."""
        try:
            return DiskFile(self._path / name, room_bytes=room_bytes)
        except OSError as error:
            raise _failure("create", self._path / name, error) from error

    def replace(self, old: str, new: str) -> None:
        """See `Directory`."""
        try:
            (self._path / old).replace(self._path / new)
            sync_directory(self._path)
        except OSError as error:
            raise _failure("rename", self._path / old, error) from error

    def remove(self, name: str) -> None:
        """See `Directory`."""
        try:
            (self._path / name).unlink(missing_ok=True)
        except OSError as error:
            raise _failure("remove", self._path / name, error) from error


def _failure(verb: str, path: Path, error: OSError) -> StorageFailure:
    return StorageFailure(f"cannot {verb} {path}: {error.strerror or error}")
