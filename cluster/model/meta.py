"""What every replicated object carries besides its own content (pure)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Meta:
    """Version and times of an object."""

    version: int = 0
    """Raft index of its last change: Docker's `Version.Index`; set by `state.apply`."""
    created_at: float = 0.0
    """Unix time, seconds, by the clock of the manager that proposed it."""
    updated_at: float = 0.0
