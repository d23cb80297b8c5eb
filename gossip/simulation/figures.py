"""Percentiles of what simulations measure (pure)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figures:
    """Some numbers, smallest first."""

    samples: Sequence[float]

    def at(self, share: float) -> float:
        """Return the nearest-rank percentile; `share` 0.5 is the median."""
        return self.samples[max(0, math.ceil(share * len(self.samples)) - 1)]

    @property
    def p50(self) -> float:
        """The median."""
        return self.at(0.5)

    @property
    def worst(self) -> float:
        """The largest."""
        return self.samples[-1]

    def text(self, scale: float = 1.0, digits: int = 0) -> str:
        """Return "p50/p90/max"."""
        parts = (self.at(0.5), self.at(0.9), self.worst)
        return "/".join(f"{scale * part:.{digits}f}" for part in parts)


def figures(samples: Iterable[float]) -> Figures:
    """Return figures of at least one sample."""
    return Figures(tuple(sorted(samples)))
