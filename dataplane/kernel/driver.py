"""The kernel driver: makes this node's namespaces, devices and rules match a plan.

The node is whatever network namespace the process runs in. `apply` compares what the plan wants
with what the last application left (after a start or a failure: with what the kernel says) and
performs the difference in a worker thread, so that the event loop goes on.

Invariants: nothing of the traffic depends on this process being there; only things that carry our
names are removed; one application runs at a time.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from dataplane.diff import ForgetGone, operations
from dataplane.driver import Driver, DriverError, Outcome
from dataplane.kernel import ingress_rules, names
from dataplane.kernel.ingress_rules import Abilities
from dataplane.kernel.nftables import Nft, NftError, find_nft
from dataplane.kernel.observe import observe
from dataplane.kernel.owed import Owed
from dataplane.kernel.perform import Failures, Performer
from dataplane.kernel.uplink import device_mtu
from dataplane.plan import OVERLAY_MTU, NodePlan
from dataplane.state import NodeState, Port, wanted_state

logger = logging.getLogger(__name__)

_VXLAN_OVERHEAD_BYTES = 50
_ERRORS_SHOWN_MAX = 3
_ALL = Abilities()
_SYSCTLS = Path("/proc/sys/net/netfilter")
_TCP_TIMEOUT = "nf_conntrack_tcp_timeout_"
_NFT_NAMES = {"max_retrans": "retrans", "unacknowledged": "unack"}
"""Those that nft has other names for than sysctl."""


@dataclass(frozen=True, slots=True)
class KernelStats:
    """What the driver did since it started."""

    applications: int
    operations: int
    """Changes to the kernel, all applications together."""
    failures: int
    observations: int
    """How often the kernel was asked what is there."""
    last_apply_ms: float
    forgotten: int = 0
    """Flows that the kernel was asked to forget: each time it looks at all connections."""
    dropped: int = 0
    """Flows to endpoints that are gone which it was not asked to forget: there were too many."""


class KernelDriver:
    """Drives the kernel; see `dataplane.driver.Driver`. `run` has to run beside it.

    run_directory: where namespaces are pinned (below `netns`); must survive the process, and so
    must the mount namespace it is in. kernel: what of the kernel may be used, if it has it.
    """

    def __init__(self, run_directory: Path, *, kernel: Abilities = _ALL) -> None:
        self._directory = run_directory / "netns"
        self._usable = kernel
        self._lock = asyncio.Lock()
        # An application that was cancelled goes on in its thread: the next one waits for it.
        self._running = threading.Lock()
        self._performer: Performer | None = None
        self._state: NodeState | None = None
        """What the node holds; None: not known."""
        self._stats = KernelStats(0, 0, 0, 0, 0.0)
        self._owed = Owed()
        self._is_due = asyncio.Event()

    async def apply(self, plan: NodePlan) -> Outcome:
        """See `Driver.apply`."""
        async with self._lock:
            try:
                return await asyncio.to_thread(self._apply, plan)
            finally:
                self._is_due.set()

    async def run(self) -> None:
        """Forget, after changes and without hurry, what was connected to what is gone; for ever.

        Each flow takes as long as looking at all connections of the machine; it rests that long.
        """
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            took_s = await asyncio.to_thread(self._forget_one)
            if self._owed:
                self._is_due.set()
            await asyncio.sleep(took_s)

    def sandbox_path(self, sandbox_id: str) -> Path:
        """See `Driver.sandbox_path`."""
        return names.sandbox_path(self._directory, sandbox_id)

    async def close(self) -> None:
        """See `Driver.close`."""
        async with self._lock:
            self._state = None

    async def distrust(self) -> None:
        """Let the next application compare with the kernel itself, and repair what others broke."""
        async with self._lock:
            self._state = None

    def stats(self) -> KernelStats:
        """Return what the driver did since it started."""
        forgotten = 0 if self._performer is None else self._performer.forgotten
        return replace(self._stats, forgotten=forgotten, dropped=self._owed.dropped)

    def _apply(self, plan: NodePlan) -> Outcome:
        with self._running:
            started = time.perf_counter()
            performer = self._prepare()
            wanted = wanted_state(plan, self._uplink_mtu(plan), self._state)
            found, self._state = self._state, None
            removed, is_observed = 0, found is None
            unreadable: dict[str, str] = {}
            reachable = wanted
            if found is None:
                found, removed, unreadable = self._observe(performer, wanted)
                # What cannot be looked at is left as it is: a task may be running in there.
                kept = {s: v for s, v in wanted.sandboxes.items() if s not in unreadable}
                reachable = replace(wanted, sandboxes=kept)
            todo = operations(found, reachable)
            self._owed.add((o for o in todo if isinstance(o, ForgetGone)), wanted)
            todo = tuple(o for o in todo if not isinstance(o, ForgetGone))
            failures = performer.perform(todo)
            failures.sandboxes.update(unreadable)
            if not failures:
                self._state = wanted
            before = self._stats
            self._stats = replace(
                before,
                applications=before.applications + 1,
                operations=before.operations + len(todo) + removed,
                failures=before.failures + len(failures),
                observations=before.observations + int(is_observed),
                last_apply_ms=(time.perf_counter() - started) * 1e3,
            )
            if failures.node:
                more = len(failures.node) - _ERRORS_SHOWN_MAX
                suffix = f"; and {more} more" if more > 0 else ""
                raise DriverError("; ".join(failures.node[:_ERRORS_SHOWN_MAX]) + suffix)
            return _outcome(failures, wanted)

    def _forget_one(self) -> float:
        """Forget the flow that is owed longest; return the seconds that took, 0 for nothing."""
        with self._running:
            started = time.perf_counter()
            operation = self._owed.take()
            if operation is None or self._performer is None:
                return 0.0
            if failures := self._performer.perform([operation]):
                logger.warning("connections not forgotten: %s", failures)
            return time.perf_counter() - started

    def _prepare(self) -> Performer:
        if self._performer is None:
            nft = find_nft()
            if nft is None:
                raise DriverError("neither libnftables.so.1 nor the nft command is installed")
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            kernel = _abilities(nft, self._usable)
            self._performer = Performer(self._directory, nft, kernel)
        return self._performer

    def _observe(
        self, performer: Performer, wanted: NodeState
    ) -> tuple[NodeState, int, dict[str, str]]:
        try:
            return observe(self._directory, wanted, performer.kernel)
        except OSError as error:
            raise DriverError(f"cannot read the state of the network: {error}") from error

    def _uplink_mtu(self, plan: NodePlan) -> int:
        """Return what fits the underlay's device after encapsulation."""
        if plan.underlay is None:
            return OVERLAY_MTU
        base = None if self._state is None else self._state.base
        if base is not None and base.address == plan.underlay.address:
            return base.mtu
        mtu = device_mtu(plan.underlay.address)
        return OVERLAY_MTU if mtu is None else min(OVERLAY_MTU, mtu - _VXLAN_OVERHEAD_BYTES)


def _outcome(failures: Failures, wanted: NodeState) -> Outcome:
    """Say whom the failures concern: those of a network all sandboxes that are in it."""
    broken = {s: why for s, why in failures.sandboxes.items() if s in wanted.sandboxes}
    for name, sandbox in wanted.sandboxes.items():
        for interface in sandbox.interfaces.values():
            if isinstance(interface, Port) and interface.network in failures.networks:
                # Ahead of what then went wrong with the sandbox itself.
                broken[name] = failures.networks[interface.network]
    used = {
        interface.network
        for sandbox in wanted.sandboxes.values()
        for interface in sandbox.interfaces.values()
        if isinstance(interface, Port)
    }
    leftovers = [
        *failures.leftovers,
        *(why for n, why in failures.networks.items() if n not in used),
        *(why for s, why in failures.sandboxes.items() if s not in wanted.sandboxes),
    ]
    return Outcome(broken, tuple(leftovers))


def _abilities(nft: Nft, usable: Abilities) -> Abilities:
    has_timeouts = usable.has_timeouts and _takes(nft, ingress_rules.timeouts_probe())
    timeouts_s = _timeouts()  # there, now that the probe has had the module loaded
    has_timeouts = has_timeouts and _takes(nft, ingress_rules.timeouts_probe(timeouts_s))
    return Abilities(
        has_egress_hook=usable.has_egress_hook and _takes(nft, ingress_rules.EGRESS_HOOK_PROBE),
        has_timeouts=has_timeouts,
        timeouts_s=timeouts_s if has_timeouts else (),
    )


def _timeouts() -> tuple[tuple[str, int], ...]:
    """Return the TCP time-outs of this node's connections, by nft's names of the states."""
    found: dict[str, int] = {}
    for path in _SYSCTLS.glob(f"{_TCP_TIMEOUT}*"):
        state = path.name.removeprefix(_TCP_TIMEOUT)
        found[_NFT_NAMES.get(state, state)] = int(path.read_text())
    return tuple(sorted(found.items()))


def _takes(nft: Nft, probe: str) -> bool:
    try:
        nft.run(probe, is_check=True)
    except NftError:
        return False
    return True


_: type[Driver] = KernelDriver
