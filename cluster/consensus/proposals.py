"""This manager's commands: each applied exactly once, however often it has to be sent.

Invariant: a sequence number is used for one command only, and counts as waited for until its
proposer has the answer or has given up.
"""

from __future__ import annotations

import asyncio

from cluster.consensus.config import COMMAND_BYTES_MAX, PROPOSALS_MAX
from cluster.consensus.errors import SafetyViolation
from cluster.consensus.members import OPEN_SESSION, CommandEntry, encode_command
from cluster.consensus.messages import AnswerStatus, RequestKind
from cluster.consensus.requests import Reached, Requests
from cluster.consensus.sessions import Verdict
from cluster.model.errors import Invalid, Unavailable

_WINDOW = 8 * PROPOSALS_MAX
"""How far the newest proposal may run ahead of the oldest that waits: bounds a session's table."""


class Proposals:
    """One life of a manager as a proposer."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._freed = asyncio.Event()
        """Set when a proposal ends."""
        self._opening = asyncio.Lock()
        self._session = 0
        """Its name; 0 if none is open."""
        self._sequence = 0
        self._waiting: dict[int, None] = {}
        """Sequence numbers, oldest first."""

    async def propose(self, command: bytes) -> tuple[int, bytes]:
        """Return the index by which `command` was applied, and its answer.

        Raises:
            Invalid: it is too large, or the state machine failed on it.
            Unavailable: whether it was applied is not known.
        """
        if len(command) > COMMAND_BYTES_MAX:
            raise Invalid(
                f"the command has {len(command)} bytes; at most {COMMAND_BYTES_MAX} are allowed"
            )
        while len(self._waiting) >= PROPOSALS_MAX:
            self._freed.clear()
            await self._freed.wait()
        self._sequence += 1
        sequence = self._sequence
        self._waiting[sequence] = None
        try:
            return await self._send(sequence, command)
        finally:
            del self._waiting[sequence]
            self._freed.set()

    async def _send(self, sequence: int, command: bytes) -> tuple[int, bytes]:
        while True:
            session = self._session or await self._open_session()
            lowest = next(iter(self._waiting))
            if sequence - lowest > _WINDOW:
                raise Unavailable("an older proposal has been waiting too long: retry later")
            entry = encode_command(CommandEntry(session, sequence, lowest, command))
            reached = await self._requests.ask(RequestKind.APPEND, entry)
            verdict, answer = _read(reached)
            match verdict:
                case Verdict.APPLIED:
                    return reached.answer.index, answer
                case Verdict.FAILED:
                    raise Invalid(f"the command failed: {answer.decode()}")
                case Verdict.STALE:
                    raise SafetyViolation(f"proposal {sequence} is stale while it is waited for")
                case Verdict.EXPIRED:
                    if self._session == session:
                        self._session = 0
                    if reached.attempts > 1:  # an earlier copy may have been applied
                        raise Unavailable("the session expired: the outcome is unknown")

    async def _open_session(self) -> int:
        async with self._opening:
            if not self._session:
                reached = await self._requests.ask(RequestKind.APPEND, OPEN_SESSION)
                self._session = reached.answer.index
            return self._session


def _read(reached: Reached) -> tuple[Verdict, bytes]:
    answer = reached.answer
    if answer.status is not AnswerStatus.DONE or not answer.payload:
        raise Invalid(f"the leader refused: {answer.payload.decode(errors='replace')}")
    return Verdict(answer.payload[0]), answer.payload[1:]
