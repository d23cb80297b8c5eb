"""Choosing a backend for a new connection (pure): what the kernel's rules do, for the others."""

from __future__ import annotations

from typing import Generic, Protocol, Self, TypeVar


class _Ordered(Protocol):
    def __lt__(self, other: Self, /) -> bool: ...


T = TypeVar("T", bound=_Ordered)


class RoundRobin(Generic[T]):
    """Hands out the backends of one service in turn.

    `replace` keeps the turn: after a change, the next pick is the backend that follows the last one
    picked, so that scaling does not send a burst to the first backend.
    """

    def __init__(self, backends: tuple[T, ...] = ()) -> None:
        self._backends = backends
        self._last: T | None = None

    def replace(self, backends: tuple[T, ...]) -> None:
        """Set the live backends, sorted."""
        self._backends = backends

    def pick(self) -> T | None:
        """Return the next backend, or None when the service has none."""
        if not self._backends:
            return None
        last = self._last
        following = (b for b in self._backends if last is not None and last < b)
        self._last = next(following, self._backends[0])
        return self._last
