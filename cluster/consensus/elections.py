"""Pre-vote and leadership transfer: what decides whether an election may start (pure).

PySyncObj asks for an election when its deadline has passed. Here a member first asks whether it
would win (pre-vote, Ongaro 9.6), so one that was cut off does not depose a working leader when it
comes back.
"""

from __future__ import annotations

from dataclasses import dataclass, field


def is_majority(count: int, voters: int) -> bool:
    """Tell whether `count` of `voters` are more than half."""
    return 2 * count > voters


@dataclass(slots=True)
class PreVote:
    """The rounds of one member that hears no leader."""

    term: int = 0
    """The term that the running round proposes; 0 if none runs."""
    repeat_at: float = 0.0
    """When to ask again."""
    _granted: set[str] = field(default_factory=set[str])

    @property
    def is_running(self) -> bool:
        """Whether answers are awaited."""
        return self.term > 0

    def start(self, term: int, *, repeat_at: float) -> None:
        """Begin a round; answers to the last one do not count."""
        self.term = term
        self.repeat_at = repeat_at
        self._granted.clear()

    def stop(self) -> None:
        """End the round."""
        self.term = 0
        self._granted.clear()

    def grant(self, node_id: str, term: int) -> None:
        """Take a yes."""
        if self.is_running and term == self.term:
            self._granted.add(node_id)

    def has_won(self, term: int, others: set[str]) -> bool:
        """Tell whether a majority of `others` and this member want `term`."""
        if term != self.term:
            return False
        return is_majority(len(self._granted & others) + 1, len(others) + 1)


@dataclass(slots=True)
class Transfer:
    """A leader handing over: while this lasts it appends nothing new."""

    target: str
    """Empty: whoever is most up to date."""
    deadline: float
    is_sent: bool = False
