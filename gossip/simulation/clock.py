"""Virtual time: one heap of events, served in order (pure)."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Clock:
    """Time, and what happens when."""

    __slots__ = (
        "_heap",
        "_order",
        "now",
    )

    def __init__(self) -> None:
        self.now = 0.0
        """Seconds since the simulation began."""
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0

    @property
    def served(self) -> int:
        """Events so far."""
        return self._order - len(self._heap)

    def at(self, when: float, call: Callable[..., None], *arguments: object) -> None:
        """Call `call(*arguments)` at `when`; equal times are served in the order they were set."""
        self._order += 1
        heapq.heappush(self._heap, (when, self._order, call, arguments))

    def run(
        self, seconds: float, until: Callable[[], bool] | None = None, *, every_s: float = 0.005
    ) -> bool:
        """Advance time; tell whether `until`, asked every so often, held before `seconds` passed.

        Without it, time advances by all of `seconds`, and the answer is False.
        """
        end = self.now + seconds
        heap, pop = self._heap, heapq.heappop
        ask_at = self.now
        while heap and heap[0][0] <= end:
            self.now, _, call, arguments = pop(heap)
            call(*arguments)
            if until is not None and self.now >= ask_at:
                ask_at = self.now + every_s
                if until():
                    return True
        self.now = end
        return until is not None and until()
