"""What every data-plane driver (kernel, user space, memory) must do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dataplane.plan import NodePlan


class DriverError(Exception):
    """A driver could not make the node match a plan; applying again may succeed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an application could not do; the rest of the plan is in effect."""

    broken: Mapping[str, str] = field(default_factory=dict[str, str])
    """Sandbox of the plan -> why it is not as planned."""
    leftovers: tuple[str, ...] = ()
    """What is not wanted any more and could not be removed, an error each."""

    @property
    def is_whole(self) -> bool:
        """Whether the node matches the plan."""
        return not self.broken and not self.leftovers


class Driver(Protocol):
    """Makes the node match a plan."""

    async def apply(self, plan: NodePlan) -> Outcome:
        """Make the node match `plan`, from whatever state it is in.

        Idempotent: an equal plan applied twice does nothing the second time. The first call after
        a start reconciles what a killed predecessor left, without interrupting its traffic. When
        it returns, traffic flows as planned and every sandbox of the plan exists, but for what the
        outcome names: trouble with one sandbox, or one network, is that of its sandboxes alone.
        Applying again tries again.

        Raises:
            DriverError: the node itself could not be made as planned; it may be between two plans.
        """
        ...

    def sandbox_path(self, sandbox_id: str) -> Path:
        """Return the path that a process enters the sandbox's network namespace by."""
        ...

    async def close(self) -> None:
        """Forget the node without touching it: what runs keeps running and being reached."""
        ...
