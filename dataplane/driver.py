"""What every data-plane driver (kernel, user space, memory) must do."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from dataplane.plan import NodePlan


class DriverError(Exception):
    """A driver could not make the node match a plan; applying again may succeed."""


class Driver(Protocol):
    """Makes the node match a plan."""

    async def apply(self, plan: NodePlan) -> None:
        """Make the node match `plan`, from whatever state it is in.

        Idempotent: an equal plan applied twice does nothing the second time. The first call after
        a start reconciles what a killed predecessor left, without interrupting its traffic. When
        it returns, traffic flows as planned and every sandbox of the plan exists.

        Raises:
            DriverError: some part could not be applied; the node may be between two plans.
        """
        ...

    def sandbox_path(self, sandbox_id: str) -> Path:
        """Return the path that a process enters the sandbox's network namespace by."""
        ...

    async def close(self) -> None:
        """Forget the node without touching it: what runs keeps running and being reached."""
        ...
