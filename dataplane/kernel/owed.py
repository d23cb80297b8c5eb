"""Connections to endpoints that are gone, still to be forgotten when there is time (pure).

To forget, the kernel looks at all connections of the machine, once for each flow. So a change does
not wait for it, where each sandbox may have been connected to what went away.
"""

from __future__ import annotations

from collections.abc import Iterable

from dataplane.diff import Flow, ForgetGone, endpoints
from dataplane.state import NodeState

OWED_MAX = 4096


class Owed:
    """What is still to be forgotten, oldest first; of more than `OWED_MAX` the oldest is not."""

    def __init__(self) -> None:
        self._flows: dict[tuple[str, Flow], None] = {}
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._flows)

    def add(self, operations: Iterable[ForgetGone], state: NodeState) -> None:
        """Owe these, and nothing more that is wrong where a node holds `state`.

        An address may have been given to another endpoint meanwhile: its connections stay.
        """
        self._flows.update(((o.sandbox, flow), None) for o in operations for flow in o.flows)
        if not self._flows:
            return
        used = {address for _, address in endpoints(state)}
        self._flows = {
            (name, flow): None
            for name, flow in self._flows
            if name in state.sandboxes and flow.backend not in used
        }
        while len(self._flows) > OWED_MAX:
            del self._flows[next(iter(self._flows))]
            self.dropped += 1

    def take(self) -> ForgetGone | None:
        """Return what to forget next, a single flow; None: nothing."""
        if not self._flows:
            return None
        name, flow = next(iter(self._flows))
        del self._flows[name, flow]
        return ForgetGone(name, (flow,))
