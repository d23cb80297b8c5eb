"""Small files that nobody else may read, replaced as a whole.

Invariant: whatever happens, a file holds what one `write_private` wrote, mode 0600. A reader never
sees half of it, nor does the next process after a crash.
"""

from __future__ import annotations

import os
from pathlib import Path

_MODE = 0o600


def write_private(path: Path, content: bytes) -> None:
    """Make or replace a file; it is on disk when this returns. Raises OSError."""
    write_next(path, content).replace(path)
    sync_directory(path.parent)


def write_next(path: Path, content: bytes) -> Path:
    """Write what is to replace `path` beside it, to disk, and return where. Raises OSError."""
    fresh = next_of(path)
    fresh.unlink(missing_ok=True)  # its mode, or whose it is, may be anything
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(fresh, flags, _MODE), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return fresh


def next_of(path: Path) -> Path:
    """Return where `write_next` writes."""
    return path.with_name(path.name + ".next")


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
