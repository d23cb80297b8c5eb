"""The managers' side of sessions, on any manager, leading or not.

Every session is told what the local snapshot says: the cluster's facts and the node's assignment,
first whole, then differences, each with the Raft index it was taken at. A node that has already
seen a later index than this manager is sent away: its assignment must not go back in time.

Driven by `run` (watches the replica, proposes statuses) and by `serve`, once per connection.

Invariants: a node has at most one session here, the newest; a session outlives neither its node's
membership nor its certificate.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import assert_never

from cluster.allocation.issue import Issuer
from cluster.ca.certificates import PeerIdentity
from cluster.control.liveness import Sighting
from cluster.dispatch.admission import described
from cluster.dispatch.channel import Channel, ChannelClosed, CloseCode, first_of
from cluster.dispatch.logs import LogBroker, NodeLogs
from cluster.dispatch.messages import (
    AssignmentDiff,
    FullAssignment,
    Heartbeat,
    HeartbeatAck,
    Hello,
    LogData,
    LogEnd,
    MalformedMessage,
    ManagerMessage,
    NodeMessage,
    StatusAck,
    StatusBatch,
    Welcome,
    decode_from_node_untrusted,
    encode,
)
from cluster.dispatch.requests import SightingReport
from cluster.dispatch.session import (
    HEARTBEATS_MISSED_MAX,
    View,
    assignment_of,
    diff_pages,
    difference,
    full_pages,
    is_same_for,
    view_of,
)
from cluster.dispatch.sightings import REPORT_AFTER_S, Sightings
from cluster.dispatch.statuses import RETRY_S, Propose, StatusBatcher, StatusStats
from cluster.model.assignment import Assignment, ClusterInfo
from cluster.model.errors import ClusterError
from cluster.model.ids import NodeId, new_id
from cluster.store.replica import Replica
from cluster.task_group import TaskGroup

logger = logging.getLogger(__name__)

HELLO_S = 5.0
"""How long a node may take to say hello."""
CATCH_UP_S = 2.0
"""How long a session waits for this manager to have seen what its node has seen."""
CHANGES_S = 0.1
"""Least time between two differences of one assignment (swarmkit manager/dispatcher)."""
OUT_OF_TOUCH_S = 5.0
"""A manager that the leader has not heard for so long tells nodes nothing new, and nobody of them:
they need another manager. Well above an election; with the search for that manager, well below the
three heartbeat periods after which the leader takes a node for DOWN."""
SESSIONS_MAX = 10_000
RETELL_PERIODS = 2
"""A node that holds other gossip keys so many heartbeat periods after it was told is told again."""

Forward = Callable[[SightingReport], Awaitable[None]]
"""Brings a report to the leader; does nothing on the leader itself. Raises ClusterError where there
is no leader, or this manager learns nothing of what it decides."""


class SessionEnded(Exception):
    """This manager ends the session."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class ServerStats:
    """Counters since start, and the sessions now."""

    sessions: int
    begun: int
    malformed: int
    silent: int
    assignments_sent: int
    statuses: StatusStats


@dataclass(eq=False, slots=True)
class _Session:
    identity: PeerIdentity
    channel: Channel
    hello: Hello
    id: str
    logs: NodeLogs
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    told_info: ClusterInfo | None = None
    told_info_at: float = 0.0
    """Loop time."""
    told: Assignment | None = None
    sequence: int = 0
    """Of what it was told last."""
    compared: View | None = None
    """The latest view that differs in nothing from what it was told."""
    status_batch: asyncio.Task[None] | None = None

    @property
    def node(self) -> NodeId:
        return self.identity.node

    async def send(self, message: ManagerMessage) -> None:
        await self.channel.send(encode(message))


class SessionServer:
    """One manager's sessions."""

    def __init__(
        self,
        *,
        replica: Replica,
        propose: Propose,
        forward: Forward,
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        """clock: unix time, seconds."""
        self.logs = LogBroker()
        self._replica = replica
        self._propose = propose
        self._forward = forward
        self._clock = clock
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._view = view_of(replica.snapshot())
        self._issuer = Issuer()
        self._sessions: dict[NodeId, _Session] = {}
        self._sightings = Sightings()
        self._sighted = asyncio.Event()
        self._is_out_of_touch = False
        self._statuses = StatusBatcher(propose)
        self._begun = self._malformed = self._silent = self._sent = 0

    async def run(self) -> None:
        """Keep all sessions up to date until cancelled; then end them."""
        try:
            async with TaskGroup() as group:
                group.create_task(self._watch())
                group.create_task(self._statuses.run())
                group.create_task(self._report())
                group.create_task(self.logs.run())
        finally:
            await self._end_all()

    async def serve(self, channel: Channel, identity: PeerIdentity, address: str) -> None:
        """Hold one session until it ends.

        identity: as the handshake has proved it. address: the IP address that the node came from.
        """
        try:
            hello = await self._hello(channel)
            await self._serve(channel, identity, hello, address)
        except* ChannelClosed as errors:
            logger.info("session over: node=%s reason=%s", identity.node, first_of(errors))
        except* (SessionEnded, MalformedMessage, TimeoutError) as errors:
            await self._end(channel, identity.node, first_of(errors))

    async def send_away_removed(self, channel: Channel, identity: PeerIdentity) -> None:
        """Tell a node that it was removed: with the words of a session that ends for that."""
        await self._end(channel, identity.node, _removed())

    def receive_sightings(self, manager: NodeId, report: SightingReport) -> None:
        """Take what another manager sees."""
        self._sightings.receive(manager, report.sightings, self._loop.time())

    def reporting(self, within_s: float) -> set[NodeId]:
        """Return the other managers that have reported here within so many seconds."""
        return self._sightings.reporters(self._loop.time() - within_s)

    def sightings(self) -> Mapping[NodeId, Sighting]:
        """Return what all managers that reported see of each node: for the leader."""
        behind = self._clock() - self._loop.time()
        seen = self._sightings.joined(self._loop.time(), self._replica.snapshot().nodes)
        return {n: Sighting(n, s.at + behind, s.is_connected) for n, s in seen.items()}

    def rings(self) -> Mapping[NodeId, bytes]:
        """Return the digest of the gossip keys that each node holds, as it said: for the leader."""
        seen = self._sightings.joined(self._loop.time(), self._replica.snapshot().nodes)
        return {node: s.ring for node, s in seen.items()}

    def has_session(self, node: NodeId) -> bool:
        """Return whether the node has its session here."""
        return node in self._sessions

    def stats(self) -> ServerStats:
        """Return counters."""
        return ServerStats(
            sessions=len(self._sessions),
            begun=self._begun,
            malformed=self._malformed,
            silent=self._silent,
            assignments_sent=self._sent,
            statuses=self._statuses.stats(),
        )

    # All sessions.

    async def _watch(self) -> None:
        with self._replica.watch() as changed:
            while True:
                changed.clear()
                for session in self._sessions.values():
                    session.changed.set()
                await asyncio.sleep(CHANGES_S)
                await changed.wait()

    def _current_view(self) -> View:
        """Return the view of the latest snapshot, made once for all sessions."""
        snapshot = self._replica.snapshot()
        if snapshot is not self._view.snapshot:
            self._view = view_of(snapshot, self._view)
        return self._view

    async def _end_all(self) -> None:
        async with TaskGroup() as group:
            for session in self._sessions.values():
                reason = "this manager is stopping"
                group.create_task(session.channel.close(CloseCode.GOING_AWAY, reason))

    async def _report(self) -> None:
        reported_at = self._loop.time()
        while True:
            self._sighted.clear()
            report = SightingReport(self._sightings.report(self._loop.time()))
            try:
                await self._forward(report)
            except ClusterError as error:
                logger.debug("sightings not reported: error=%s", error)
                if self._loop.time() - reported_at >= OUT_OF_TOUCH_S:
                    self._lose_touch(error)
            else:
                reported_at, self._is_out_of_touch = self._loop.time(), False
            await asyncio.sleep(CHANGES_S)
            try:
                async with asyncio.timeout(REPORT_AFTER_S):
                    await self._sighted.wait()
            except TimeoutError:
                pass

    def _lose_touch(self, error: ClusterError) -> None:
        if not self._is_out_of_touch:
            logger.warning("out of touch with the leader, sessions end: error=%s", error)
        self._is_out_of_touch = True
        for session in self._sessions.values():
            session.changed.set()

    # One session.

    async def _hello(self, channel: Channel) -> Hello:
        self._check_touch()
        if len(self._sessions) >= SESSIONS_MAX:
            raise SessionEnded(CloseCode.GOING_AWAY, "this manager has too many sessions")
        async with asyncio.timeout(HELLO_S):
            hello = self._decode(await channel.receive())
        if not isinstance(hello, Hello):
            raise MalformedMessage("the first message is no hello")
        return hello

    async def _serve(
        self, channel: Channel, identity: PeerIdentity, hello: Hello, address: str
    ) -> None:
        node = identity.node

        async def send(message: ManagerMessage) -> None:
            await channel.send(encode(message))

        logs = self.logs.attach(node, send)
        session = _Session(identity, channel, hello, new_id(self._rng), logs)
        older = self._sessions.get(node)
        self._sessions[node] = session
        if older is not None:
            older.changed.set()
        self._begun += 1
        self._sightings.saw(node, self._loop.time())
        self._sighted.set()
        logger.info("session begun: node=%s address=%s", node, address)
        try:
            async with TaskGroup() as group:
                group.create_task(self._tell(session))
                group.create_task(self._describe(session, address))
                group.create_task(self._listen(session, group))
        finally:
            self.logs.detach(node, logs)
            if self._sessions.get(node) is session:
                del self._sessions[node]
                self._sightings.lost(node, self._loop.time())
                self._sighted.set()

    async def _tell(self, session: _Session) -> None:
        """Tell the node all that concerns it, again whenever that changes."""
        period_s = self._current_view().info.heartbeat_period_s
        await session.send(Welcome(session.id, period_s))
        await self._catch_up(session)
        while True:
            session.changed.clear()
            self._check_touch()
            if self._sessions.get(session.node) is not session:
                raise SessionEnded(CloseCode.SUPERSEDED, "the node has begun another session")
            view = self._current_view()
            if session.node not in view.snapshot.nodes:
                raise _removed()
            if view.info is not session.told_info:
                await session.send(view.info)
                session.told_info, session.told_info_at = view.info, self._loop.time()
            await self._tell_assignment(session, view)
            await session.changed.wait()

    async def _tell_assignment(self, session: _Session, view: View) -> None:
        if session.compared and is_same_for(session.node, view, session.compared):
            return
        assignment, sequence = assignment_of(view, session.node, self._issuer), view.snapshot.index
        session.compared = view
        pages: Iterator[FullAssignment | AssignmentDiff]
        if session.told is None:
            pages = full_pages(sequence, assignment)
        else:
            changes = difference(session.told, assignment)
            if changes is None:
                return
            pages = diff_pages(session.sequence, sequence, changes)
        for page in pages:
            await session.send(page)
        self._sent += 1
        session.told, session.sequence = assignment, sequence

    async def _catch_up(self, session: _Session) -> None:
        try:
            async with asyncio.timeout(CATCH_UP_S):
                while self._replica.snapshot().index < session.hello.sequence:
                    session.changed.clear()
                    await session.changed.wait()
        except TimeoutError:
            raise SessionEnded(
                CloseCode.BEHIND,
                f"this manager knows state {self._replica.snapshot().index}, "
                f"the node has already seen {session.hello.sequence}",
            ) from None

    async def _describe(self, session: _Session, address: str) -> None:
        """See to it that the replicated state knows what the node says of itself."""
        while True:
            node = self._replica.snapshot().nodes.get(session.node)
            change = None if node is None else described(node, session.hello.registration, address)
            if change is None:
                return
            try:
                await self._propose([change])
            except ClusterError as error:
                logger.warning("node not described, will retry: error=%s", error)
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _listen(self, session: _Session, group: TaskGroup) -> None:
        while True:
            grace_s = HEARTBEATS_MISSED_MAX * self._view.info.heartbeat_period_s
            try:
                async with asyncio.timeout(grace_s):  # a node that does not read is silent, too
                    data = await session.channel.receive()
                    self._check_still_welcome(session)
                    await self._receive(session, self._decode(data), group)
            except TimeoutError:
                self._silent += 1
                raise SessionEnded(
                    CloseCode.SILENT, f"no heartbeat for {grace_s:g} seconds"
                ) from None

    def _check_touch(self) -> None:
        if self._is_out_of_touch:
            raise SessionEnded(CloseCode.GOING_AWAY, "this manager is out of touch with the leader")

    def _check_still_welcome(self, session: _Session) -> None:
        if self._clock() > session.identity.not_after:
            raise SessionEnded(CloseCode.REFUSED, "the node's certificate has expired")
        if self._sessions.get(session.node) is session:
            self._sightings.saw(session.node, self._loop.time())

    async def _receive(self, session: _Session, message: NodeMessage, group: TaskGroup) -> None:
        match message:
            case Heartbeat(number=number, ring=ring):
                self._note_ring(session, ring)
                await session.send(HeartbeatAck(number))
            case StatusBatch():
                if session.status_batch is not None and not session.status_batch.done():
                    raise MalformedMessage("a batch of statuses before the last was answered")
                session.status_batch = group.create_task(self._commit(session, message))
            case LogData() | LogEnd():
                session.logs.receive_untrusted(message)
            case Hello():
                raise MalformedMessage("a second hello")
            case _:
                assert_never(message)

    def _note_ring(self, session: _Session, ring: bytes) -> None:
        """Take note of the gossip keys that a node holds, and tell it the right ones."""
        if not ring or self._sessions.get(session.node) is not session:
            return
        now = self._loop.time()
        if self._sightings.saw(session.node, now, ring):
            self._sighted.set()  # a new key may wait for this
        view = self._current_view()
        again_at = session.told_info_at + RETELL_PERIODS * view.info.heartbeat_period_s
        if view.info is session.told_info and ring != view.ring and now >= again_at:
            session.told_info = None
            session.changed.set()

    async def _commit(self, session: _Session, batch: StatusBatch) -> None:
        await self._statuses.submit(session.node, batch.statuses)
        await session.send(StatusAck(batch.number))

    def _decode(self, data: bytes) -> NodeMessage:
        try:
            return decode_from_node_untrusted(data)
        except MalformedMessage:
            self._malformed += 1
            raise

    async def _end(self, channel: Channel, node: NodeId, error: BaseException) -> None:
        match error:
            case SessionEnded(code=code):
                reason = str(error)
            case MalformedMessage():
                code, reason = CloseCode.MALFORMED, str(error)
            case _:
                code, reason = CloseCode.SILENT, "no hello in time"
        logger.info("session ended: node=%s code=%s reason=%s", node, code.name, reason)
        await channel.close(code, reason)


def _removed() -> SessionEnded:
    return SessionEnded(CloseCode.REMOVED, "the node was removed from the cluster")
