"""Linearizable reads without writing: ReadIndex (pure; Ongaro 6.4).

A read is right if it sees everything that was committed when it was asked. The leader notes its
commit index and asks the others whether it still leads; when a majority says so, the index is the
answer. All reads that wait share one round, and those that come during a round share the next.

Invariant: a round only counts replies to its own number and term, which arrive after it began.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cluster.consensus.members import is_majority

ReadDone = Callable[[int | None], None]
"""Called with the index to wait for, or None: not the leader (any more)."""


@dataclass(frozen=True, slots=True)
class LeaderView:
    """What a leader knows of itself."""

    term: int
    commit_index: int
    has_committed_in_term: bool
    """Before its first commit, a leader does not know what its predecessors committed."""
    others: frozenset[str]


@dataclass(slots=True)
class _Round:
    number: int
    term: int
    index: int
    waiting: list[ReadDone]
    repeat_at: float
    confirmed: set[str] = field(default_factory=set[str])


class ReadRounds:
    """The reads of one manager."""

    def __init__(self, *, repeat_s: float) -> None:
        self._repeat_s = repeat_s
        self._waiting: list[ReadDone] = []
        self._round: _Round | None = None
        self._number = 0

    def ask(self, done: ReadDone) -> None:
        """Answer a read when it is safe."""
        self._waiting.append(done)

    def fail(self) -> None:
        """Tell everyone who waits that this is not the leader."""
        waiting, self._waiting = self._waiting, []
        if self._round is not None:
            waiting = self._round.waiting + waiting
            self._round = None
        for done in waiting:
            done(None)

    def confirm(self, node_id: str, *, number: int, term: int) -> None:
        """Take a yes."""
        if self._round is not None and (number, term) == (self._round.number, self._round.term):
            self._round.confirmed.add(node_id)

    def step(self, view: LeaderView, *, now: float) -> tuple[int, frozenset[str]]:
        """Finish and begin what can be; return a round's number and whom to ask (maybe nobody)."""
        if self._round is not None and self._round.term != view.term:
            self.fail()
        if self._round is not None:
            ask = self._advance(self._round, view, now)
            if ask is not None:
                return self._round.number, ask
            finished, self._round = self._round, None
            for done in finished.waiting:
                done(finished.index)
        if not self._waiting or not view.has_committed_in_term:
            return 0, frozenset()
        self._number += 1
        self._round = _Round(
            self._number, view.term, view.commit_index, self._waiting, now + self._repeat_s
        )
        self._waiting = []
        if not view.others:
            return self.step(view, now=now)
        return self._number, view.others

    def _advance(self, round_: _Round, view: LeaderView, now: float) -> frozenset[str] | None:
        """Return whom to ask again, or None if the round is won."""
        if is_majority(len(round_.confirmed & view.others) + 1, len(view.others) + 1):
            return None
        if now < round_.repeat_at:
            return frozenset()
        round_.repeat_at = now + self._repeat_s
        return view.others - round_.confirmed
