"""Hybrid logical clocks: unix milliseconds that never go back (pure).

They date records, and order the heads that one owner signs at one version; nothing is owned or
deleted by them. The machine's clock stands still while its host is suspended, and wall clocks are
set: the shell says now and then how far the two are apart.

Source: Kulkarni et al., "Logical Physical Clocks", 2014.
"""

from __future__ import annotations

FUTURE_MS = 10_000
"""A clock further ahead than this is a lie, or one of two wall clocks is wrong."""


class HybridClock:
    """One node's."""

    def __init__(self, wall_offset_s: float) -> None:
        """`wall_offset_s`: unix time minus the machine's clock."""
        self._wall_offset_s = wall_offset_s
        self._last = 0

    def adjust(self, wall_offset_s: float) -> None:
        """Take note of how far unix time and the machine's clock are apart now."""
        self._wall_offset_s = wall_offset_s

    def unix_s(self, now: float) -> float:
        """Return unix time at `now` on the machine's clock."""
        return now + self._wall_offset_s

    def next(self, now: float) -> int:
        """Return a value above every earlier one."""
        self._last = max(int(self.unix_s(now) * 1000), self._last + 1)
        return self._last

    def is_ahead(self, hlc: int, *, now: float) -> bool:
        """Tell whether another's value is of the future by this node's clock."""
        return hlc > self.unix_s(now) * 1000 + FUTURE_MS
