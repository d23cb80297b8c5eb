"""What the agent must remember to go on alone: `worker/state` below the node's directory.

It holds the last assignment and cluster facts (with gossip keys: 0600), the states of the tasks and
what the other nodes last said. Written whole: to a new file, flushed to the disk, renamed over
the old one.

Invariant: `load` returns what one `save` wrote, or nothing; a file that cannot be read is set aside
and never keeps the node from starting.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import msgspec

from cluster.agent.sightings import Sightings
from cluster.model.assignment import Assignment, ClusterInfo
from cluster.model.ids import TaskId
from cluster.model.task import TaskStatus
from cluster.private_file import write_private

logger = logging.getLogger(__name__)

_MAGIC = b"hivewire worker 1\n"
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class WorkerState:
    """Everything worth remembering."""

    assignment: Assignment | None = None
    """None: no manager has told yet."""
    info: ClusterInfo | None = field(default=None, repr=False)
    statuses: dict[TaskId, TaskStatus] = field(default_factory=dict[TaskId, TaskStatus])
    sightings: Sightings = Sightings()


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(WorkerState).decode


class StateFile:
    """The file in `directory`, which is made if missing."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "state"
        self._lock = threading.Lock()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def load(self) -> WorkerState:
        """Return what was saved last; an empty state if there is nothing that can be read."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return WorkerState()
        try:
            return _parse(data)
        except ValueError as error:
            aside = self._path.with_suffix(".corrupt")
            self._path.replace(aside)
            logger.warning(
                "worker state is corrupt, starting without it until a manager sends the "
                "assignment: kept=%s error=%s",
                aside,
                error,
            )
            return WorkerState()

    def save(self, state: WorkerState) -> None:
        """Remember `state`; when it returns, it is on the disk. Raises OSError.

        May be called from any thread: a disk can take seconds, which the event loop has not.
        """
        payload = _encode(state)
        with self._lock:
            write_private(self._path, _MAGIC + _digest(payload) + payload)


def _parse(data: bytes) -> WorkerState:
    start = len(_MAGIC) + _DIGEST_BYTES
    if not data.startswith(_MAGIC):
        raise ValueError("not a state file of this version")
    if _digest(data[start:]) != data[len(_MAGIC) : start]:
        raise ValueError("the checksum does not match")
    return _decode(data[start:])  # msgspec's errors are ValueErrors


def _digest(payload: bytes) -> bytes:
    return blake2b(payload, digest_size=_DIGEST_BYTES).digest()
