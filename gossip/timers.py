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
    """Callbacks by time; equal times fire in the order they were set.

    Invariant: outside of `fire`, what is first in the heap was not cancelled.
    """

    __slots__ = (
        "_callbacks",
        "_heap",
        "_last_id",
        "due",
    )

    def __init__(self) -> None:
        self.due = _NEVER
        """When the earliest timer is due, or infinity."""
        self._heap: list[tuple[float, int]] = []
        self._callbacks: dict[int, Callable[[float], None]] = {}
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._callbacks)

    def at(self, when: float, callback: Callable[[float], None]) -> int:
        """Call `callback(now)` once at `when`; return an id for `cancel`."""
        timer = self._last_id = self._last_id + 1
        self._callbacks[timer] = callback
        heapq.heappush(self._heap, (when, timer))
        if when < self.due:  # noqa: PLR1730 - for every packet: min() takes twice as long
            self.due = when
        return timer

    def cancel(self, timer: int) -> None:
        """Forget a timer; one that has fired or was cancelled is no error."""
        heap, callbacks = self._heap, self._callbacks
        if callbacks.pop(timer, None) is None:
            return
        if heap[0][1] == timer:
            heapq.heappop(heap)
            self._settle()
        elif len(heap) > 2 * len(callbacks) + _SLACK:
            heap[:] = [entry for entry in heap if entry[1] in callbacks]
            heapq.heapify(heap)

    def fire(self, now: float) -> None:
        """Call what is due at `now`, including what these calls make due."""
        heap, callbacks = self._heap, self._callbacks
        while heap and heap[0][0] <= now:
            callback = callbacks.pop(heapq.heappop(heap)[1], None)
            if callback is not None:
                callback(now)
        self._settle()

    def _settle(self) -> None:
        heap, callbacks = self._heap, self._callbacks
        while heap and heap[0][1] not in callbacks:
            heapq.heappop(heap)
        self.due = heap[0][0] if heap else _NEVER
