"""A machine's timers: one heap of (when, id) and what to call (pure).

Ids are never reused, so cancelling an old timer cannot hit a newer one. (A prototype that reused a
token across two suspicions of one member declared 20,789 healthy members dead.)
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

_NEVER = float("inf")
_SLACK = 64
"""Cancelled timers tolerated in the heap before it is rebuilt, above the live ones."""


class Timers:
    """Callbacks by time; equal times fire in the order they were set."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._callbacks: dict[int, Callable[[float], None]] = {}
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._callbacks)

    def at(self, when: float, callback: Callable[[float], None]) -> int:
        """Call `callback(now)` once at `when`; return an id for `cancel`."""
        self._last_id += 1
        self._callbacks[self._last_id] = callback
        heapq.heappush(self._heap, (when, self._last_id))
        return self._last_id

    def cancel(self, timer: int) -> None:
        """Forget a timer; one that has fired or was cancelled is no error."""
        self._callbacks.pop(timer, None)
        if len(self._heap) > 2 * len(self._callbacks) + _SLACK:
            self._heap = [entry for entry in self._heap if entry[1] in self._callbacks]
            heapq.heapify(self._heap)

    def next(self) -> float:
        """Return when the earliest timer is due, or infinity."""
        heap, callbacks = self._heap, self._callbacks
        while heap and heap[0][1] not in callbacks:
            heapq.heappop(heap)
        return heap[0][0] if heap else _NEVER

    def fire(self, now: float) -> None:
        """Call what is due at `now`, including what these calls make due."""
        heap, callbacks = self._heap, self._callbacks
        while heap and heap[0][0] <= now:
            _, timer = heapq.heappop(heap)
            callback = callbacks.pop(timer, None)
            if callback is not None:
                callback(now)
                heap = self._heap  # a cancelled timer may have had it rebuilt
