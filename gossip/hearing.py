"""How long this node has heard nobody (pure).

Whoever hears nobody cannot tell a dead member from one that it does not hear, so the time it spends
deaf is no time for suspects to refute in. Not in the Lifeguard paper, whose local health slows a
deaf node's probes but lets the suspicions that it has run out.
"""

from __future__ import annotations


class Hearing:
    """One node's silences: each counts from `deaf_after_s` on."""

    __slots__ = (
        "_deaf_after_s",
        "_heard_at",
        "_lost_s",
    )

    def __init__(self, *, deaf_after_s: float) -> None:
        self._deaf_after_s = deaf_after_s
        self._heard_at: float | None = None
        self._lost_s = 0.0

    def heard(self, now: float) -> None:
        """Take note that a member spoke."""
        self._lost_s += self._deaf_s(now)
        self._heard_at = now

    def slept(self, lag_s: float) -> None:
        """Take note that this node did not run for so long: that was no silence."""
        if self._heard_at is not None:
            self._heard_at += lag_s

    def lost_s(self, now: float) -> float:
        """Return how long this node has been deaf until now, all silences together."""
        return self._lost_s + self._deaf_s(now)

    def _deaf_s(self, now: float) -> float:
        if self._heard_at is None:
            return 0.0
        return max(0.0, now - self._heard_at - self._deaf_after_s)
