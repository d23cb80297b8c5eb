"""Token buckets: how often something may be done (pure)."""

from __future__ import annotations


class Budget:
    """Fills with `rate` tokens a second, up to `most`; full at first."""

    def __init__(self, *, rate: float, most: float) -> None:
        self._rate = rate
        self._most = most
        self._tokens = most
        self._at = 0.0

    def take(self, count: float, *, now: float) -> bool:
        """Take `count` tokens if they are there; tell whether they were."""
        self._tokens = min(self._most, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now
        if count > self._tokens:
            return False
        self._tokens -= count
        return True
