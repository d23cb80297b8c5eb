"""One manager's copy of the replicated state: the latest snapshot, and waking those who watch it.

Consensus drives it: `apply` with each committed command, in order, `dump` and `restore` for
compaction. Most transactions are one status of one task, and come in batches: a new snapshot is
made only when someone looks, not one (and a copy of all tasks) for each.

Invariants: `apply` never raises, a refused transaction is an answer, not an error; what `snapshot`
has returned does not change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial

import msgspec

from cluster.model.errors import ERRORS, ClusterError
from cluster.state.apply import Draft, apply
from cluster.state.changes import Change
from cluster.state.codec import (
    CorruptStateError,
    decode_changes,
    decode_snapshot,
    encode_snapshot,
)
from cluster.state.snapshot import Snapshot

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, str, int]).decode


class Replica:
    """A state machine for consensus, and a store to look at for everyone else."""

    def __init__(self) -> None:
        self._snapshot = Snapshot()
        self._draft: Draft | None = None
        """What was applied since `_snapshot`."""
        self._watchers: set[asyncio.Event] = set()

    def snapshot(self) -> Snapshot:
        """Return the state as of the last command applied here."""
        if self._draft is not None:
            self._snapshot, self._draft = self._draft.snapshot(), None
        return self._snapshot

    def apply(self, index: int, command: bytes) -> bytes:
        """Apply one committed command and return its encoded outcome (see `read_outcome`)."""
        try:
            self._apply(index, decode_changes(command))
        except ClusterError as error:
            return _encode((type(error).__name__, str(error), index))
        except CorruptStateError as error:
            return _encode(("Invalid", str(error), index))
        self._wake()
        return _encode(("", "", index))

    def dump(self) -> Callable[[], bytes]:
        """Return what encodes the whole state as it is now; it may run later, and in a thread."""
        return partial(encode_snapshot, self.snapshot())

    def restore(self, data: bytes) -> None:
        """Become what was encoded.

        Raises:
            CorruptStateError: `data` is something else.
        """
        self._snapshot, self._draft = decode_snapshot(data), None
        self._wake()

    @contextmanager
    def watch(self) -> Generator[asyncio.Event]:
        """Lend an event that every change sets; it says that something changed, not what."""
        changed = asyncio.Event()
        self._watchers.add(changed)
        try:
            yield changed
        finally:
            self._watchers.discard(changed)

    def _apply(self, index: int, changes: tuple[Change, ...]) -> None:
        if len(changes) == 1:
            self._draft = self._draft or Draft(self._snapshot, self._snapshot.index)
            self._draft.apply_next(changes[0], index)
        else:
            self._snapshot = apply(self.snapshot(), changes, index)

    def _wake(self) -> None:
        for changed in self._watchers:
            changed.set()


def read_outcome(outcome: bytes) -> int:
    """Return the Raft index of a command that was applied.

    Raises:
        ClusterError: it was refused; nothing has changed.
    """
    kind, message, index = _decode(outcome)
    if kind:
        raise ERRORS[kind](message)
    return index
