"""What the core needs from around it, and what it tells those who ask something of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Protocol, TypeVar

from cluster.consensus.members import Member
from cluster.consensus.messages import EngineMessage
from cluster.consensus.sessions import Outcome

_T = TypeVar("_T")


class Wire(Protocol):
    """Sessions to the peers."""

    def set_peers(self, peers: Mapping[str, Member]) -> None:
        """Keep a session to each of these and to nobody else."""
        ...

    def send(self, node_id: str, message: EngineMessage) -> None:
        """Send in order, or not at all if there is no session."""
        ...

    def flush(self) -> None:
        """Let go of what was given to `send`."""
        ...

    def is_connected(self, node_id: str) -> bool:
        """Tell whether there is a session."""
        ...

    def waiting_bytes(self, node_id: str) -> int:
        """Return how much is queued for a peer."""
        ...


class Background(Protocol):
    """Runs slow work off the loop."""

    def __call__(self, job: Callable[[], _T], done: Callable[[_T], None], /) -> None:
        """Call `job` in a thread, then `done` with its result on the loop, unless stopped."""
        ...


class Fate(Enum):
    """What became of a submitted entry."""

    APPLIED = "applied"
    LOST = "lost"
    """Not appended here, or overwritten by another leader."""
    DENIED = "denied"
    """A change of members that is not allowed now."""


SubmitDone = Callable[[Fate, int, Outcome], None]
"""Called at most once, with the index and the outcome of an applied entry.

Never called if this manager loses leadership and learns of the entry's fate by a snapshot.
"""
