"""Token buckets: how often something may be done (pure)."""

from __future__ import annotations

from collections import OrderedDict

_ACCOUNTS_MAX = 4096
"""Accounts that have a bucket of their own; the least recently used goes first."""


class Budget:
    """Fills with `rate` tokens a second, up to `most`; full at first."""

    __slots__ = ("_at", "_most", "_rate", "_tokens")

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


class Budgets:
    """A bucket for each account, so that nobody uses up what others need."""

    def __init__(self, *, rate: float, most: float) -> None:
        self._rate = rate
        self._most = most
        self._accounts: OrderedDict[str, Budget] = OrderedDict()

    def take(self, account: str, count: float = 1.0, *, now: float) -> bool:
        """Take `count` tokens of an account's if they are there; tell whether they were."""
        budget = self._accounts.get(account)
        if budget is None:
            budget = self._accounts[account] = Budget(rate=self._rate, most=self._most)
            if len(self._accounts) > _ACCOUNTS_MAX:
                self._accounts.popitem(last=False)
        self._accounts.move_to_end(account)
        return budget.take(count, now=now)
