"""The node's side of a session: keeps one with any manager, whatever happens to managers.

It picks a manager at random and stays with it. When the session ends, or the manager does not
answer a heartbeat, it goes to another one at once; only when all have failed it waits, 0.1 to 8 s
(swarmkit agent). It outlives every failure: while there is no manager, the node goes on with what
it has. Statuses are sent until a manager has committed them, in whichever session.

Driven by `run`. What comes is given to an `Agent`, always the latest whole: the agent may be slow
without harm to the session.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from cluster.dispatch.channel import Channel, CloseCode
from cluster.dispatch.conversation import Conversation, SessionLost, SessionTiming, SessionUser
from cluster.dispatch.inbox import AssignmentInbox
from cluster.dispatch.messages import LogRecord, ManagerAddress, Registration
from cluster.dispatch.outbox import StatusOutbox
from cluster.dispatch.session import managers_in
from cluster.model.assignment import Assignment, ClusterInfo
from cluster.model.errors import ClusterError
from cluster.model.ids import NodeId, TaskId
from cluster.model.logs import LogOptions
from cluster.model.task import TaskStatus
from cluster.task_group import TaskGroup

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClientTiming:
    """How patient the client is."""

    session: SessionTiming = SessionTiming()
    backoff_s_min: float = 0.1
    backoff_s_max: float = 8.0
    settled_s: float = 2.0
    """A session that lasted so long after its first assignment was a good one: another may follow
    at once."""


class Agent(Protocol):
    """The node that the session is for."""

    async def informed(self, info: ClusterInfo) -> None:
        """Take the cluster's facts (and persist its managers)."""
        ...

    async def assigned(self, assignment: Assignment) -> None:
        """Take everything that the node is to run; `informed` came before."""
        ...

    def read_log(self, task: TaskId, options: LogOptions) -> AsyncGenerator[LogRecord]:
        """Yield the output of a task; may raise ClusterError or OSError, nothing else."""
        ...


Connect = Callable[[ManagerAddress], Awaitable[Channel]]
"""Opens a session's channel (see `peers.Peers.open_session`); raises ClusterError."""


@dataclass(frozen=True, slots=True)
class ClientStats:
    """Counters since start, and the session now."""

    manager: NodeId | None
    """Whom the session is with; None: nobody."""
    sessions: int
    failures: int
    last_error: str
    statuses_waiting: int


@dataclass(slots=True)
class _Round:
    """The managers that were tried since the last good session, or the last pause."""

    tried: set[NodeId] = field(default_factory=set[NodeId])
    behind: int = 0
    """How many of them have sent the node away because it knows more than they."""
    number: int = 0


class SessionClient:
    """Keeps the node's session."""

    def __init__(
        self,
        *,
        agent: Agent,
        connect: Connect,
        registration: Callable[[], Registration],
        managers: Sequence[ManagerAddress],
        rng: Random,
        timing: ClientTiming | None = None,
    ) -> None:
        """Begin with `managers`; later ClusterInfo says who there is.

        registration: what the node says of itself, as of now.
        """
        self._agent = agent
        self._connect = connect
        self._registration = registration
        self._managers = tuple(managers)
        self._rng = rng
        self._timing = timing or ClientTiming()
        self._loop = asyncio.get_running_loop()
        self._inbox = AssignmentInbox()
        self._outbox = StatusOutbox()
        self._info: ClusterInfo | None = None
        self._news = asyncio.Event()
        self._assigned_at: float | None = None
        """When the session brought its first assignment; None: it has not."""
        self.removed = asyncio.Event()
        """Set when a manager says, over an established session, that this node was removed."""
        self._manager: NodeId | None = None
        self._ring = b""
        self._hurry = asyncio.Event()
        """The next heartbeat must not wait."""
        self._sessions = self._failures = 0
        self._last_error = ""

    @property
    def managers(self) -> tuple[ManagerAddress, ...]:
        """Return the managers last heard of."""
        return self._managers

    def report(self, statuses: Mapping[TaskId, TaskStatus]) -> None:
        """Tell the managers the latest statuses of some tasks, as soon as there is a manager."""
        self._outbox.put(statuses)

    def hold_ring(self, digest: bytes) -> None:
        """Tell the managers which gossip keys this node holds, now on its disk too."""
        if digest != self._ring:
            self._ring = digest
            self._hurry.set()

    def ask_for_ring(self) -> None:
        """Let the manager compare this node's gossip keys with its own, and tell it them."""
        self._hurry.set()

    def stats(self) -> ClientStats:
        """Return counters."""
        return ClientStats(
            manager=self._manager,
            sessions=self._sessions,
            failures=self._failures,
            last_error=self._last_error,
            statuses_waiting=len(self._outbox),
        )

    async def run(self) -> None:
        """Keep a session until cancelled."""
        async with TaskGroup() as group:
            group.create_task(self._deliver())
            group.create_task(self._keep_session())

    async def _deliver(self) -> None:
        """Give the agent the latest of what came."""
        informed: ClusterInfo | None = None
        assigned: Assignment | None = None
        while True:
            await self._news.wait()
            self._news.clear()
            if self._info is not None and self._info is not informed:
                informed = self._info
                await self._agent.informed(informed)
            assignment = self._inbox.assignment
            if informed is not None and assignment is not None and assignment is not assigned:
                assigned = assignment
                await self._agent.assigned(assigned)

    async def _keep_session(self) -> None:
        this = _Round()
        while True:
            choice = [m for m in self._managers if m.node not in this.tried]
            if not choice:
                this = await self._pause(this)
                continue
            manager = self._rng.choice(choice)
            self._assigned_at = None
            lost = await self._session(manager)
            if self._was_settled():
                this = _Round()
            this.tried.add(manager.node)
            this.behind += lost.code == CloseCode.BEHIND
            if lost.code == CloseCode.REMOVED:
                self.removed.set()

    def _was_settled(self) -> bool:
        """Return whether the session that has just ended was a good one."""
        if self._assigned_at is None:
            return False
        return self._loop.time() - self._assigned_at >= self._timing.settled_s

    async def _pause(self, last: _Round) -> _Round:
        """Wait, and return the next round, in which every manager may be tried again."""
        if last.behind and last.behind == len(last.tried):
            # A restored cluster counts from an earlier index: then no manager will ever catch up.
            logger.warning("all managers are behind this node: taking what they have")
            self._inbox.forget_sequence()
        timing = self._timing
        longest = min(timing.backoff_s_max, timing.backoff_s_min * 2.0 ** min(last.number, 30))
        await asyncio.sleep(longest * self._rng.uniform(0.5, 1.0))
        return _Round(number=last.number + 1)

    async def _session(self, manager: ManagerAddress) -> SessionLost:
        try:
            channel = await self._connect(manager)
        except ClusterError as error:
            lost = SessionLost(str(error))
        else:
            self._manager = manager.node
            self._sessions += 1
            try:
                lost = await self._converse(channel)
            finally:
                self._manager = None
        self._failures += 1
        if str(lost) != self._last_error:  # the same trouble again and again is said once
            logger.warning("no session: manager=%s reason=%s", manager.node, lost)
        self._last_error = str(lost)
        return lost

    async def _converse(self, channel: Channel) -> SessionLost:
        user = SessionUser(
            inbox=self._inbox,
            outbox=self._outbox,
            registration=self._registration(),
            read_log=self._agent.read_log,
            informed=self._take_info,
            assigned=self._take_assignment,
            ring=lambda: self._ring,
            hurry=self._hurry,
        )
        return await Conversation(channel, user, self._timing.session, self._rng).hold()

    def _take_info(self, info: ClusterInfo) -> None:
        self._info = info
        self._managers = managers_in(info) or self._managers
        self._news.set()

    def _take_assignment(self) -> None:
        self._assigned_at = self._assigned_at or self._loop.time()
        self._news.set()
