"""Keeps the data plane and gossip equal to what is known: the level-triggered half of the agent.

Driven by `update`, with everything that this node is told and runs, and by gossip. What this node
says is brought up to date at once; the plan is computed anew and applied by one loop, so that a
burst of changes becomes one application.

What the driver could not do for one sandbox is that task's trouble alone: it is tried again, ever
more seldom, and the rest of the plan is in effect.

Invariants: nothing is applied before `update` was called with an assignment and cluster facts; an
`applied` record names only what an applied plan avoids (but in a broken sandbox).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

from cluster.agent import planner
from cluster.agent.applied import APPLIED_KEY, encode_applied
from cluster.agent.drain import Row, unacknowledged
from cluster.agent.endpoints import endpoint_values
from cluster.agent.hosts import Answers
from cluster.agent.listener import Listener
from cluster.agent.publisher import Gossip, Publication, Publisher
from cluster.agent.sightings import Sightings
from cluster.allocation.records import INGRESS_SCOPE, Phase, Place
from cluster.model.assignment import Assignment, ClusterInfo
from cluster.model.ids import NodeId, TaskId
from cluster.reconcile import reconcile
from cluster.task_group import TaskGroup
from dataplane.driver import Driver, DriverError, Outcome
from dataplane.plan import NodePlan

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 0.5
OpenPorts = Callable[[Path], AbstractSet[tuple[str, int]]]
"""Sandbox -> (protocol, port) that processes listen on in it; raises OSError."""
SANDBOX_ATTEMPTS_MAX = 3
"""After so many failures in a row a sandbox will not be made: what passes by itself (a VNI that the
kernel has not given back yet) has done so by then, 1.5 s after the first."""
REAPPLY_AFTER_S = 30.0
"""An unchanged plan is applied again after this: heals what failed half-way, like a resolver."""
REST_S_MAX = 0.2
"""The next plan waits as long as the last one took to apply, this at most: where many tasks start,
plans hold more of them, and the kernel makes as many networks with half of the work."""
_DOUBLINGS_MAX = 10
_WAITING = "waiting for the network"


@dataclass(frozen=True, slots=True)
class Local:
    """What this node is told, and what it runs."""

    assignment: Assignment
    info: ClusterInfo
    sandboxes: frozenset[TaskId] = frozenset()
    phases: Mapping[TaskId, Phase] = field(default_factory=dict[TaskId, Phase])
    is_leaving: bool = False
    """Nothing is to be left of the data plane once no task needs a sandbox."""


@dataclass(frozen=True, slots=True)
class PlanStats:
    """Counts since the start, and how things stand."""

    plans: int
    """Times that a plan was applied."""
    failures: int
    """Times that the node could not be made as planned, or a part of the plan was left out."""
    broken: int
    """Sandboxes that are not as planned now."""
    last_apply_ms: float
    records: int
    """Published now."""
    refused: int
    """Times that gossip would not take something."""
    malformed: int
    """Records of other nodes that cannot be read, in the last look."""
    unsigned: int
    """Records of other nodes that the managers have not allocated to them, in the last look."""
    conflicts: int
    """Addresses, names, virtual IPs and ports that several records claim, in the last plan."""
    live_nodes: int
    """Other nodes."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A plan, and what it means for tasks."""

    plan: NodePlan
    draining: frozenset[tuple[str, TaskId]]
    """Scope and task of what it gives no new connections."""
    is_early: bool = False
    """The others have not been heard since the start: what the kernel holds is no older."""


@dataclass(frozen=True, slots=True)
class _Broken:
    """A sandbox that is not as planned."""

    reason: str
    attempts: int
    """Applications in a row that have failed it."""


class PlanLoop:
    """Plans, applies and publishes."""

    def __init__(
        self,
        node: NodeId,
        *,
        driver: Driver,
        gossip: Gossip,
        apply_names: Callable[[NodePlan], Awaitable[None]],
        open_ports: OpenPorts | None,
        on_change: Callable[[], None],
        remembered: Sightings,
        host_answers: Answers,
        has_predecessor: bool,
    ) -> None:
        """Wire up; nothing happens before `run`.

        Args:
            node: this node.
            driver: its data plane.
            gossip: its gossip peer.
            apply_names: makes the DNS server answer from a plan that was applied.
            open_ports: what processes listen on in a sandbox; None: nobody can tell.
            host_answers: whether the host of a dead member lives.
            has_predecessor: a daemon before this one may have left a plan in the kernel.
            on_change: called when a plan was applied, could not be, or others said something.
            remembered: what gossip said before this start.
        """
        self._node = node
        self._driver = driver
        self._gossip = gossip
        self._apply_names = apply_names
        self._open_ports = open_ports
        self._on_change = on_change
        self._publisher = Publisher(gossip)
        self._listener = Listener(
            node, gossip, remembered=remembered, host_answers=host_answers, on_heard=self._take_news
        )
        self._has_predecessor = has_predecessor
        self._local: Local | None = None
        self._changed = asyncio.Event()
        self._applied: _Wanted | None = None
        self._named: _Wanted | None = None
        """An early plan whose names are answered, and nothing else of it is in effect."""
        self._sandboxes: frozenset[str] = frozenset()
        self._applied_at = 0.0
        self._last_apply_ms = 0.0
        self._plans = 0
        self._conflicts = 0
        self._failures = 0
        self._error = ""
        """Why the last plan could not be applied; empty: it was."""
        self._broken: dict[str, _Broken] = {}
        self._incomplete = 0
        """How many applications in a row have left something out."""

    @property
    def sightings(self) -> Sightings:
        """What gossip said last, with what is remembered."""
        return self._listener.sightings

    @property
    def plan(self) -> NodePlan | None:
        """The plan that was applied last; None: none yet."""
        return None if self._applied is None else self._applied.plan

    @property
    def has_spoken(self) -> bool:
        """Whether what this node has to say is with gossip."""
        return bool(self._publisher.said.scopes)

    def sandbox(self, task: TaskId) -> Path | None:
        """Return where a task's sandbox is; None: it is not there."""
        return self._driver.sandbox_path(task) if task in self._sandboxes else None

    def trouble(self, task: TaskId) -> str:
        """Return why a task waits for its sandbox, as far as that is an error; else nothing."""
        broken = self._broken.get(task)
        return self._error if broken is None else f"{_WAITING}: {broken.reason}"

    def failure(self, task: TaskId) -> str:
        """Return why a task will not get its sandbox; empty: it may yet."""
        broken = self._broken.get(task)
        if broken is None or broken.attempts < SANDBOX_ATTEMPTS_MAX:
            return ""
        return f"the network cannot be made: {broken.reason}"

    def update(self, local: Local) -> None:
        """Take what this node is told and runs: publish it at once, and plan soon."""
        self._local = local
        self._listener.trust(local.info)
        self._publish()
        self._changed.set()

    def is_listening(self, task: TaskId, wanted: AbstractSet[tuple[str, int]]) -> bool:
        """Return whether all ports (protocol, number) in `wanted` are open in a task's sandbox."""
        if not wanted or self._open_ports is None:
            return True
        try:
            return wanted <= self._open_ports(self._driver.sandbox_path(task))
        except OSError:
            return True  # the sandbox is gone, and soon the task

    def is_acknowledged(self, task: TaskId, owing: AbstractSet[Row]) -> bool:
        """See `task_runner.Network`."""
        if self._applied is None:
            return False
        scopes = {p.scope for p in self._publisher.said.records if _task_of(p) == task}
        if any((scope, task) not in self._applied.draining for scope in scopes):
            return False
        return not unacknowledged(task, scopes, self._listener.reading, owing)

    def suspects(self, task: TaskId) -> frozenset[Row]:
        """See `task_runner.Network`."""
        scopes = {p.scope for p in self._publisher.said.records if _task_of(p) == task}
        reading = self._listener.reading
        owing = unacknowledged(task, scopes, reading)
        return frozenset(row for row in owing if row[1] in reading.suspects)

    async def run(self) -> None:
        """Plan and apply until cancelled."""
        async with TaskGroup() as group:
            group.create_task(self._listener.run())
            group.create_task(
                reconcile(
                    "plan",
                    self._changed,
                    self._wanted,
                    self._decide,
                    self._apply,
                    next_look_s=lambda _: self._retry_s() if self._incomplete else None,
                    retry_after_s=RETRY_AFTER_S,
                    rest_s=lambda: min(self._last_apply_ms / 1e3, REST_S_MAX),
                )
            )

    def stats(self) -> PlanStats:
        """Return counts."""
        return PlanStats(
            plans=self._plans,
            failures=self._failures,
            broken=len(self._broken),
            last_apply_ms=self._last_apply_ms,
            records=len(self._publisher.said.records),
            refused=self._publisher.refused,
            malformed=self._listener.reading.malformed,
            unsigned=sum(self._listener.reading.unsigned.values()),
            conflicts=self._conflicts,
            live_nodes=len(self._listener.reading.live),
        )

    def _take_news(self) -> None:
        self._changed.set()
        self._on_change()

    def _publish(self) -> None:
        local = self._local
        if local is None or all(node.id != self._node for node in local.info.nodes):
            return
        wanted = _publication(local, self._applied, has_predecessor=self._has_predecessor)
        self._publisher.say(wanted)
        self._listener.listen(wanted.scopes)

    def _wanted(self) -> _Wanted | None:
        local = self._local
        if local is None:
            return None
        if local.is_leaving and not local.sandboxes:
            return _Wanted(NodePlan(), frozenset())
        if not self._listener.is_ready:
            return None  # a plan without the others would cut connections that a restart must keep
        view = planner.View(
            node=self._node,
            assignment=local.assignment,
            info=local.info,
            sandboxes=local.sandboxes,
            phases=local.phases,
            reading=self._listener.reading,
        )
        planned = planner.plan(view)
        if planned is None:
            return None
        self._conflicts = planned.conflicts
        is_early = not self._listener.is_up_to_date
        return _Wanted(planned.plan, planned.draining, is_early)

    def _decide(self, wanted: _Wanted | None) -> list[_Wanted]:
        age_s = asyncio.get_running_loop().time() - self._applied_at
        if (
            wanted is None
            or wanted == self._named
            or (wanted == self._applied and age_s < self._retry_s())
        ):
            return []
        return [wanted]

    def _retry_s(self) -> float:
        """Return how long what was applied may stay so, seconds."""
        if not self._incomplete:
            return REAPPLY_AFTER_S
        doublings = min(self._incomplete - 1, _DOUBLINGS_MAX)
        return min(RETRY_AFTER_S * 2.0**doublings, REAPPLY_AFTER_S)

    async def _apply(self, actions: Sequence[_Wanted]) -> None:
        clock = asyncio.get_running_loop().time
        for wanted in actions:
            if wanted.is_early:
                await self._apply_names(wanted.plan)
                self._named = wanted
                continue
            begun = clock()
            # While it is under way, a sandbox to be removed may be half gone.
            kept = {sandbox.id for sandbox in wanted.plan.sandboxes}
            self._sandboxes = self._sandboxes & kept
            try:
                outcome = await self._driver.apply(wanted.plan)
                await self._apply_names(wanted.plan)
            except (DriverError, OSError) as error:
                self._failures += 1
                self._error = f"{_WAITING}: {error}"
                self._on_change()
                raise
            self._take(outcome)
            self._applied, self._error = wanted, ""
            self._sandboxes = frozenset(kept - outcome.broken.keys())
            self._applied_at = clock()
            self._last_apply_ms = (self._applied_at - begun) * 1e3
            self._plans += 1
            self._publish()
            self._on_change()

    def _take(self, outcome: Outcome) -> None:
        """Take note of what an application has left out; each thing is logged once."""
        before = self._broken
        self._broken = {
            sandbox: _Broken(reason, 1 if sandbox not in before else before[sandbox].attempts + 1)
            for sandbox, reason in outcome.broken.items()
        }
        for sandbox in sorted(self._broken.keys() - before.keys()):
            reason = self._broken[sandbox].reason
            logger.warning("sandbox broken, will retry: task=%s error=%s", sandbox, reason)
        if outcome.leftovers and not self._incomplete:
            logger.warning("leftovers, will retry: error=%s", "; ".join(outcome.leftovers))
        self._incomplete = 0 if outcome.is_whole else self._incomplete + 1
        self._failures += not outcome.is_whole


def _task_of(place: Place) -> str:
    return place.key.partition(".")[0]


def _publication(local: Local, applied: _Wanted | None, *, has_predecessor: bool) -> Publication:
    """Return what this node says: its endpoints, and what its applied plan avoids.

    Of a plan that a predecessor applied nothing is known: it may avoid nothing.
    """
    tasks = (local.assignment.tasks.get(task) for task in local.sandboxes)
    attachments = (a.network for task in tasks if task is not None for a in task.attachments)
    scopes = frozenset({INGRESS_SCOPE, *attachments})
    records = {
        place: value
        for place, value in endpoint_values(local.assignment, local.phases).items()
        if place.scope in scopes
    }
    draining = frozenset[tuple[str, TaskId]]() if applied is None else applied.draining
    for scope in scopes if applied is not None or has_predecessor else ():
        tasks_out = (task for where, task in draining if where == scope)
        records[Place(scope, APPLIED_KEY)] = encode_applied(tasks_out)
    return Publication(scopes, records)
