"""The node's epoch on disk: each start of the process is a newer life, whatever the clock says.

Invariant: an epoch is on disk before it is used, and no epoch is used twice while the directory
lasts. A damaged file counts as none: the wall clock then gives a newer epoch, and if it does not,
other members answer with the epoch they hold.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)

_FILE = "epoch"


def next_epoch(directory: Path, *, unix_ms: int) -> int:
    """Return an epoch above every earlier one, having written it down. Raises OSError."""
    epoch = max(_read(directory / _FILE) + 1, unix_ms)
    save_epoch(directory, epoch)
    return epoch


def save_epoch(directory: Path, epoch: int) -> None:
    """Write an epoch down, atomically and to the disk. Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = directory / f"{_FILE}.new"
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(handle, str(epoch).encode())
        os.fsync(handle)
    finally:
        os.close(handle)
    fresh.replace(directory / _FILE)
    folder = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path) -> int:
    try:
        epoch = int(path.read_text())
    except FileNotFoundError:
        return 0
    except ValueError:
        logger.warning("gossip epoch file is damaged, starting from the clock path=%s", path)
        return 0
    return epoch if 0 <= epoch < 2**63 else 0
