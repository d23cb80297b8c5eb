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
from cluster.agent.drain import unacknowledged
from cluster.agent.endpoints import endpoint_values
from cluster.agent.publisher import Gossip, Publication, Publisher
from cluster.agent.sightings import RawRecord, Reader, Reading, Sightings, recall
from cluster.allocation.records import INGRESS_SCOPE, Phase, Place
from cluster.allocation.tokens import Verifier
from cluster.model.assignment import Assignment, ClusterInfo
from cluster.model.ids import ClusterId, NodeId, TaskId
from cluster.reconcile import reconcile
from dataplane.driver import Driver, DriverError, Outcome
from dataplane.plan import NodePlan
from gossip.wire import State

logger = logging.getLogger(__name__)

COALESCE_S = 0.005
"""What comes through gossip within this time shares one plan."""
READ_AT_ONCE = 20
"""Records that are verified before others may run: 5 ms."""
READ_PER_LOOK_MAX = 2000
"""Records that one look verifies: 0.5 s; the rest is the next look's."""
WARN_AGAIN_S = 600.0
"""A node that publishes what is not its own is named no more often."""
RETRY_AFTER_S = 0.5
OpenPorts = Callable[[Path], AbstractSet[tuple[str, int]]]
"""Sandbox -> (protocol, port) that processes listen on in it; raises OSError."""
SANDBOX_ATTEMPTS_MAX = 3
"""After so many failures in a row a sandbox will not be made: what passes by itself (a VNI that the
kernel has not given back yet) has done so by then, 1.5 s after the first."""
REAPPLY_AFTER_S = 30.0
"""An unchanged plan is applied again after this: heals what failed half-way, like a resolver."""
_DOUBLINGS_MAX = 10
_WAITING = "waiting for the network"
RECALL_UNKNOWN_S = 30.0
"""After a start: how long members that gossip has not found yet count as live."""
RECALL_SILENT_S = 3.0
"""After a start: how long the records of live members may still be on their way."""


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
    ) -> None:
        """Wire up; nothing happens before `run`.

        Args:
            node: this node.
            driver: its data plane.
            gossip: its gossip peer.
            apply_names: makes the DNS server answer from a plan that was applied.
            open_ports: what processes listen on in a sandbox; None: nobody can tell.
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
        self._remembered = remembered
        self._reader = Reader(node, Verifier(ClusterId(""), ()))
        """Believes nobody until it is told whom to believe."""
        self._read_scopes: frozenset[str] = frozenset()
        """Scopes of the last look: of others nothing is known, and nothing is planned."""
        self._warned_at: dict[NodeId, float] = {}
        self._heard = asyncio.Event()
        """There is something to look at."""
        self._local: Local | None = None
        self._sightings = remembered
        self._reading = Reading()
        self._changed = asyncio.Event()
        self._applied: _Wanted | None = None
        self._sandboxes: frozenset[str] = frozenset()
        self._started_at: float | None = None
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
        return self._sightings

    @property
    def plan(self) -> NodePlan | None:
        """The plan that was applied last; None: none yet."""
        return None if self._applied is None else self._applied.plan

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
        verifier = Verifier(local.info.cluster, local.info.allocation_keys)
        if verifier != self._reader.verifier:
            self._reader = Reader(self._node, verifier)
            self._look_before_planning()
        self._publish()
        self._changed.set()

    def is_listening(self, task: TaskId) -> bool:
        """Return whether all ports that the task's service declares are open in its sandbox."""
        wanted = _declared_ports(self._local, task)
        path = self.sandbox(task)
        if not wanted or path is None or self._open_ports is None:
            return True
        try:
            return wanted <= self._open_ports(path)
        except OSError:
            return True  # the sandbox is gone, and soon the task

    def is_acknowledged(self, task: TaskId) -> bool:
        """Return whether no plan, here or elsewhere, gives a draining task new connections."""
        if self._applied is None:
            return False
        scopes = {p.scope for p in self._publisher.said.records if _task_of(p) == task}
        if any((scope, task) not in self._applied.draining for scope in scopes):
            return False
        return not unacknowledged(task, scopes, self._reading)

    async def run(self) -> None:
        """Plan and apply until cancelled."""
        self._started_at = asyncio.get_running_loop().time()
        with self._gossip.watch() as self._heard:
            await self._look()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_gossip())
                group.create_task(self._forget())
                group.create_task(
                    reconcile(
                        "plan",
                        self._changed,
                        self._wanted,
                        self._decide,
                        self._apply,
                        next_look_s=lambda _: self._retry_s() if self._incomplete else None,
                        retry_after_s=RETRY_AFTER_S,
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
            malformed=self._reading.malformed,
            unsigned=sum(self._reading.unsigned.values()),
            conflicts=self._conflicts,
            live_nodes=len(self._reading.live),
        )

    async def _follow_gossip(self) -> None:
        while True:
            await self._heard.wait()
            await asyncio.sleep(COALESCE_S)
            self._heard.clear()
            await self._look()

    async def _forget(self) -> None:
        """Look again when what is remembered no longer counts."""
        await asyncio.sleep(RECALL_SILENT_S)
        self._heard.set()
        await asyncio.sleep(RECALL_UNKNOWN_S - RECALL_SILENT_S)
        self._heard.set()

    async def _look(self) -> None:
        """Take in what gossip says now; until that is done, what it said before counts."""
        now = asyncio.get_running_loop().time()
        age_s = 0.0 if self._started_at is None else now - self._started_at
        if age_s >= RECALL_UNKNOWN_S:
            self._remembered = Sightings()
        scopes, reader = self._publisher.said.scopes, self._reader
        self._sightings = recall(
            _sightings(self._gossip, scopes),
            self._remembered,
            unknown_live=age_s < RECALL_UNKNOWN_S,
            silent_live=age_s < RECALL_SILENT_S,
        )
        unread = reader.unread(self._sightings, scopes)
        for start in range(0, min(len(unread), READ_PER_LOOK_MAX), READ_AT_ONCE):
            for heard in unread[start : start + READ_AT_ONCE]:
                reader.examine(heard)
            await asyncio.sleep(0)
        if reader is not self._reader:
            return  # whom to believe has changed meanwhile, and another look is due
        if len(unread) > READ_PER_LOOK_MAX:
            self._heard.set()
        self._reading = reader.reading(self._sightings, scopes)
        self._read_scopes = scopes
        self._warn(now)
        self._changed.set()
        self._on_change()

    def _look_before_planning(self) -> None:
        self._read_scopes = frozenset()
        self._heard.set()

    def _warn(self, now: float) -> None:
        """Say who publishes what the managers have not allocated to it, now and then."""
        self._warned_at = {n: at for n, at in self._warned_at.items() if now - at < WARN_AGAIN_S}
        for owner, count in self._reading.unsigned.items():
            if owner not in self._warned_at:
                self._warned_at[owner] = now
                logger.warning(
                    "ignoring records that the managers have not allocated: owner=%s records=%d",
                    owner,
                    count,
                )

    def _publish(self) -> None:
        local = self._local
        if local is None or all(node.id != self._node for node in local.info.nodes):
            return
        before = self._publisher.said.scopes
        wanted = _publication(local, self._applied)
        self._publisher.say(wanted)
        if wanted.scopes - before:
            self._heard.set()

    def _wanted(self) -> _Wanted | None:
        local = self._local
        if local is None:
            return None
        if local.is_leaving and not local.sandboxes:
            return _Wanted(NodePlan(), frozenset())
        if not self._publisher.said.scopes <= self._read_scopes:
            return None  # a plan without the others would cut connections that a restart must keep
        view = planner.View(
            node=self._node,
            assignment=local.assignment,
            info=local.info,
            sandboxes=local.sandboxes,
            phases=local.phases,
            reading=self._reading,
        )
        planned = planner.plan(view)
        if planned is None:
            return None
        self._conflicts = planned.conflicts
        return _Wanted(planned.plan, planned.draining)

    def _decide(self, wanted: _Wanted | None) -> list[_Wanted]:
        age_s = asyncio.get_running_loop().time() - self._applied_at
        if wanted is None or (wanted == self._applied and age_s < self._retry_s()):
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


def _declared_ports(local: Local | None, task: TaskId) -> set[tuple[str, int]]:
    if local is None or task not in local.assignment.tasks:
        return set()
    service = local.assignment.services.get(local.assignment.tasks[task].service)
    ports = () if service is None else service.endpoint.ports
    return {(port.protocol, port.target_port) for port in ports}


def _task_of(place: Place) -> str:
    return place.key.partition(".")[0]


def _sightings(gossip: Gossip, scopes: frozenset[str]) -> Sightings:
    members = gossip.members()
    is_live = {member.node_id: member.state <= State.SUSPECT for member in members}
    return Sightings(
        live={NodeId(m.node_id): m.data_address for m in members if is_live[m.node_id]},
        dead=frozenset(NodeId(m.node_id) for m in members if not is_live[m.node_id]),
        records={
            scope: tuple(
                RawRecord(NodeId(record.owner), record.key, record.value)
                for record in gossip.records(scope)
            )
            for scope in sorted(scopes)
        },
    )


def _publication(local: Local, applied: _Wanted | None) -> Publication:
    """Return what this node says: its endpoints, and what its applied plan avoids."""
    tasks = (local.assignment.tasks.get(task) for task in local.sandboxes)
    attachments = (a.network for task in tasks if task is not None for a in task.attachments)
    scopes = frozenset({INGRESS_SCOPE, *attachments})
    records = {
        place: value
        for place, value in endpoint_values(local.assignment, local.phases).items()
        if place.scope in scopes
    }
    draining = frozenset[tuple[str, TaskId]]() if applied is None else applied.draining
    for scope in scopes if applied is not None else ():
        tasks_out = (task for where, task in draining if where == scope)
        records[Place(scope, APPLIED_KEY)] = encode_applied(tasks_out)
    return Publication(scopes, records)
