"""Which upstream resolvers are worth waiting for (pure).

An upstream that could not be reached, or was silent while its turn lasted, is down for `DOWN_S`.
It is still asked, last and with all others that are down at once, but hardly waited for: so one
that is back is noticed by the next question, and until then no question takes long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DOWN_S = 5.0
"""How long a silent upstream is not waited for: as long as the C library waits for an answer."""

Upstream = tuple[str, int]
"""Address and port."""


@dataclass(frozen=True, slots=True)
class Turns:
    """In which order one question is asked."""

    up: tuple[Upstream, ...]
    """One after the other."""
    down: tuple[Upstream, ...]
    """After those, all at once."""


class Upstreams:
    """The upstream resolvers of a machine, as configured, and how they are."""

    def __init__(self, addresses: Sequence[Upstream]) -> None:
        self._addresses = tuple(dict.fromkeys(addresses))
        self._down_until: dict[Upstream, float] = {}

    def __len__(self) -> int:
        return len(self._addresses)

    def turns(self, now: float) -> Turns:
        """Return the order in which to ask; both parts as configured."""
        down = {u for u, until in self._down_until.items() if now < until}
        return Turns(
            tuple(u for u in self._addresses if u not in down),
            tuple(u for u in self._addresses if u in down),
        )

    def failed(self, upstream: Upstream, now: float) -> None:
        """Take note that an upstream was silent, or cannot be reached."""
        self._down_until[upstream] = now + DOWN_S

    def answered(self, upstream: Upstream) -> None:
        """Take note that an upstream has answered, whatever it said."""
        self._down_until.pop(upstream, None)
