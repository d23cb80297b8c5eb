"""Exactly once: the replicated table of who proposed what, around the state machine.

A proposer opens a session by an entry of its own; the session is named after that entry's index, so
all managers agree on it. Each command carries the session, a sequence number, and the lowest number
whose answer the proposer still waits for: answers from there on are kept, and a command that was
applied before gets its old answer. Source: Lee et al., "Implementing Linearizability at Large Scale
and Low Latency" (RIFL, 2015); Ongaro's dissertation, section 6.3.

Invariants:
    everything here is a function of the log: no clock, no randomness;
    a command whose session is gone, or whose number is below the lowest, is not applied.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple, Protocol

import msgspec

from cluster.consensus.errors import StorageFailure
from cluster.consensus.members import CommandEntry

_log = logging.getLogger(__name__)


class StateMachine(Protocol):
    """What consensus replicates."""

    def apply(self, index: int, command: bytes) -> bytes:
        """Apply one committed command and return the answer for its proposer. Never raises."""
        ...

    def dump(self) -> Callable[[], bytes]:
        """Return what encodes the whole state as it is now; it may run later, and in a thread."""
        ...

    def restore(self, data: bytes) -> None:
        """Become what was encoded."""
        ...


class Verdict(IntEnum):
    """What became of a command."""

    APPLIED = 0
    EXPIRED = 1
    """The session is not known (any more): this copy of the command was not applied."""
    STALE = 2
    """The proposer had given up on it: this copy was not applied."""
    FAILED = 3
    """The state machine raised, which it must not; the answer says what."""


class Outcome(NamedTuple):
    """The answer to one entry."""

    verdict: Verdict
    answer: bytes


class _Session(msgspec.Struct, array_like=True):
    lowest: int
    outcomes: dict[int, tuple[int, bytes]]
    prune_at: int


class _Dump(msgspec.Struct, frozen=True, array_like=True):
    sessions: list[tuple[int, _Session]]
    """Least recently used first."""
    state: bytes


_PRUNE_AT = 512
"""How many outcomes a session keeps before those that nobody waits for are thrown away, all at
once: it costs a scan."""

_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(_Dump)


class Sessions:
    """A state machine that applies each command once."""

    def __init__(self, machine: StateMachine, *, sessions_max: int) -> None:
        self._machine = machine
        self._max = sessions_max
        self._sessions: dict[int, _Session] = {}

    def open(self, index: int) -> Outcome:
        """Open the session named `index`; the least recently used one may have to go."""
        if len(self._sessions) >= self._max:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[index] = _Session(1, {}, _PRUNE_AT)
        return Outcome(Verdict.APPLIED, b"")

    def apply(self, index: int, entry: CommandEntry) -> Outcome:
        """Apply a command, unless that was done before, and return its outcome."""
        session = self._sessions.pop(entry.session, None)
        if session is None:
            return Outcome(Verdict.EXPIRED, b"")
        self._sessions[entry.session] = session  # now the most recently used
        session.lowest = max(session.lowest, entry.lowest)
        if len(session.outcomes) >= session.prune_at:
            outcomes = {s: o for s, o in session.outcomes.items() if s >= session.lowest}
            session.outcomes = outcomes
            session.prune_at = max(_PRUNE_AT, 2 * len(outcomes))
        if entry.sequence < session.lowest:
            return Outcome(Verdict.STALE, b"")
        known = session.outcomes.get(entry.sequence)
        if known is not None:
            return Outcome(Verdict(known[0]), known[1])
        outcome = self._apply_new(index, entry.command)
        session.outcomes[entry.sequence] = outcome
        return outcome

    def dump(self) -> Callable[[], bytes]:
        """Return what encodes sessions and state as they are now (see `StateMachine.dump`)."""
        sessions = msgspec.Raw(_encode(list(self._sessions.items())))  # they change, and are few
        state = self._machine.dump()
        return lambda: _encode((sessions, state()))

    def restore(self, data: bytes) -> None:
        """Become what was encoded."""
        try:
            dump = _decoder.decode(data)
        except msgspec.MsgspecError as error:
            raise StorageFailure(f"the snapshot's state cannot be read: {error}") from error
        self._machine.restore(dump.state)
        self._sessions = dict(dump.sessions)

    def _apply_new(self, index: int, command: bytes) -> Outcome:
        # A machine that raises is a bug, but the same one on every manager: stopping would stop
        # the whole cluster, again after each restart. MemoryError is this manager's own trouble.
        try:
            return Outcome(Verdict.APPLIED, self._machine.apply(index, command))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001
            _log.exception("command failed index=%d", index)
            return Outcome(Verdict.FAILED, f"{type(error).__name__}: {error}".encode())
