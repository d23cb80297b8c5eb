"""A driver that forwards nothing and remembers what it was asked: for tests and the simulator.

It keeps the promises of `Driver` that can be kept without a kernel: sandboxes exist, virtual
addresses and ports balance round robin, an equal plan costs no operation, a sandbox that cannot be
made (`obstacles`) hinders no other.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

from dataplane.balance import RoundRobin
from dataplane.diff import operations
from dataplane.driver import Driver, Outcome
from dataplane.plan import NodePlan, Protocol
from dataplane.state import NodeState, wanted_state

_Target = tuple[IPv4Address, int]


class MemoryDriver:
    """Keeps the last plan and balances on it."""

    def __init__(self, run_directory: Path = Path("/nonexistent")) -> None:
        self.plan = NodePlan()
        self.applied = 0
        """How many times `apply` changed something."""
        self.operations = 0
        """How many operations all changes took together."""
        self.obstacles: dict[str, str] = {}
        """Sandboxes that cannot be made, and why: what a broken machine would say."""
        self._directory = run_directory
        self._state = NodeState()
        self._services: dict[IPv4Address, RoundRobin[IPv4Address]] = {}
        self._ports: dict[tuple[Protocol, int], RoundRobin[_Target]] = {}

    async def apply(self, plan: NodePlan) -> Outcome:
        """See `Driver.apply`."""
        wanted = wanted_state(plan)
        broken = {s: why for s, why in self.obstacles.items() if s in wanted.sandboxes}
        made = {s: state for s, state in wanted.sandboxes.items() if s not in broken}
        wanted = replace(wanted, sandboxes=made)
        todo = operations(self._state, wanted)
        if plan != self.plan or todo:
            self.operations += len(todo)
            self.plan, self._state = plan, wanted
            self.applied += 1
            self._balance(plan)
        return Outcome(broken)

    def _balance(self, plan: NodePlan) -> None:
        services = {
            service.vip: service.backends
            for network in plan.networks
            for service in network.services
        }
        for vip in self._services.keys() - services.keys():
            del self._services[vip]
        for vip, backends in services.items():
            self._services.setdefault(vip, RoundRobin()).replace(backends)
        ports = {(port.protocol, port.port): port.backends for port in plan.ports}
        for key in self._ports.keys() - ports.keys():
            del self._ports[key]
        for key, targets in ports.items():
            self._ports.setdefault(key, RoundRobin()).replace(
                tuple(sorted((target.address, target.port) for target in targets))
            )

    def sandbox_path(self, sandbox_id: str) -> Path:
        """See `Driver.sandbox_path`; nothing exists there."""
        return self._directory / f"t-{sandbox_id}"

    async def close(self) -> None:
        """See `Driver.close`."""

    def has_sandbox(self, sandbox_id: str) -> bool:
        """Return whether the sandbox exists."""
        return sandbox_id in self._state.sandboxes

    def connect(self, vip: IPv4Address) -> IPv4Address | None:
        """Return the backend that a new connection to `vip` would reach; None: refused."""
        picker = self._services.get(vip)
        return None if picker is None else picker.pick()

    def connect_port(self, protocol: Protocol, port: int) -> tuple[IPv4Address, int] | None:
        """Return the backend that a client of a published port would reach; None: refused."""
        picker = self._ports.get((protocol, port))
        return None if picker is None else picker.pick()


_: type[Driver] = MemoryDriver
