"""Consensus as the rest of the cluster sees it: one manager's `RaftNode`.

Create it with what the manager is to begin with (`Bootstrap`, `Join`, or None to load what is on
disk), `run` it, and give connections that negotiated `transport.ALPN` a protocol from
`protocol_factory`.
Everything else may be called on any manager: what only the leader can do is forwarded to it.

Invariant: a call that returns has taken effect, and this manager has applied it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import secrets
import ssl
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TypeVar

import msgspec

from cluster.consensus.config import RaftConfig
from cluster.consensus.core import CoreStats, RaftCore
from cluster.consensus.deadlines import Deadlines
from cluster.consensus.driver import Driver
from cluster.consensus.errors import StorageFailure
from cluster.consensus.files import Directory, DiskDirectory
from cluster.consensus.founding import Founding, found, load
from cluster.consensus.members import Address, Member
from cluster.consensus.membership import Membership
from cluster.consensus.messages import (
    Answer,
    AnswerStatus,
    PeerMessage,
    RefusalReason,
    Request,
    RequestKind,
)
from cluster.consensus.proposals import Proposals
from cluster.consensus.requests import Requests, fail
from cluster.consensus.sessions import Sessions, StateMachine
from cluster.consensus.snapshots import SnapshotStore
from cluster.consensus.transport import Mesh, MeshStats
from cluster.model.errors import FailedPrecondition, Invalid, Unavailable
from cluster.task_group import TaskGroup

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

PROPOSE_S = 10.0
READ_S = 5.0
CHANGE_S = 20.0
_STOPPED = "consensus has stopped on this manager"


class _StoppedError(Exception):
    """The core failed: ends the task group."""


@dataclass(frozen=True, slots=True)
class NodeStats:
    """What `RaftNode.stats` tells."""

    is_leader: bool
    leader_id: str | None
    members: int
    disk_id: str
    """Of this manager's log: a member is known by it, so an emptied disk is another member."""
    core: CoreStats
    mesh: MeshStats


class RaftNode:
    """One manager's consensus. Must be created on the event loop that will run it."""

    def __init__(
        self,
        *,
        node_id: str,
        cluster_id: str,
        directory: Path | Directory,
        address: Address,
        machine: StateMachine,
        client_context: Callable[[], ssl.SSLContext],
        data_key: bytes,
        founding: Founding | None = None,
        config: RaftConfig | None = None,
        rng: Random | None = None,
    ) -> None:
        """Write the first files if `founding` says so, and restore from disk.

        `address` is where the other managers reach this one; `client_context` makes what is dialled
        with: mutual TLS with ALPN `transport.ALPN`; `data_key` has 32 bytes.

        Raises:
            Invalid: `founding` is given but the directory has a log.
            StorageFailure: the files are missing, damaged, or another manager's.
        """
        config = config or RaftConfig()
        rng = rng or Random(secrets.randbits(64))  # noqa: S311 - timing, not secrecy
        disk = DiskDirectory(directory) if isinstance(directory, Path) else directory
        sessions = Sessions(machine, sessions_max=config.sessions_max)
        if founding is not None:
            found(
                founding,
                directory=disk,
                node_id=node_id,
                cluster_id=cluster_id,
                disk_id=secrets.token_hex(8),
                address=address,
                sessions=sessions,
                data_key=data_key,
            )
        self._node_id = node_id
        self._wal = load(disk, node_id=node_id, cluster_id=cluster_id, data_key=data_key)
        self._mesh = Mesh(
            identity=self._wal.identity,
            address=address,
            client_context=client_context,
            events=self,
            rng=rng,
        )
        self._driver = Driver(
            after_tick=self._after_tick,
            pause_reading=self._mesh.pause_reading,
            resume_reading=self._mesh.resume_reading,
        )
        self._core = RaftCore(
            config=config,
            wal=self._wal,
            snapshots=SnapshotStore(disk, data_key=data_key, chunk_bytes=config.chunk_bytes),
            sessions=sessions,
            wire=self._mesh,
            background=self._in_background,
            rng=rng,
            address=address,
        )
        self._membership = Membership(
            node_id=node_id, core=self._core, mesh=self._mesh, driver=self._driver
        )
        self._requests = Requests(
            core=self._core,
            mesh=self._mesh,
            driver=self._driver,
            serve_other=self._membership.serve,
        )
        self._proposals = Proposals(self._requests)
        self._deadlines = Deadlines()
        self._group: TaskGroup | None = None
        self._has_ended = False
        self._was_removed = False
        self._seen: tuple[tuple[str | None, int, bool], int] = ((None, -1, False), -1)
        self._watchers: set[asyncio.Event] = set()
        self._waiting_to_apply: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    async def run(self) -> None:
        """Take part, until cancelled.

        Raises:
            StorageFailure: the disk failed; end the process, so that another manager leads.
        """
        try:
            async with TaskGroup() as group:
                self._group = group
                self._membership.start(group)
                group.create_task(self._mesh.run())
                self._driver.start(self._core)
                await self._until_failure()
        except* _StoppedError:
            pass
        finally:
            self._end()
        raise self._driver.failure.result()

    def protocol_factory(self) -> asyncio.Protocol:
        """Return a protocol for an incoming connection that negotiated `transport.ALPN`."""
        return self._mesh.accept()

    @property
    def is_leader(self) -> bool:
        """Whether this manager leads, as far as it knows."""
        return self._core.is_leader

    @property
    def leader_id(self) -> str | None:
        """Who leads, as far as this manager knows."""
        return self._core.leader_id

    @property
    def term(self) -> int:
        """The current term: it grows with each election."""
        return self._core.term

    @property
    def applied_index(self) -> int:
        """Index of the last command that this manager has applied."""
        return self._core.applied_index

    @property
    def is_member(self) -> bool:
        """Whether this manager has a vote, as far as it knows; not yet for a joiner."""
        return self._core.roster.is_voter

    @property
    def disk_wait_s(self) -> float:
        """For how many seconds the disk has not answered; until it does, nothing goes on."""
        return self._driver.disk_wait_s

    @property
    def was_removed(self) -> bool:
        """Whether a member said that this manager was removed: it must be stopped and emptied."""
        return self._was_removed

    def members(self) -> Mapping[str, Address]:
        """Return all managers and where they listen; empty for a joiner."""
        return {node_id: member.address for node_id, member in self._core.roster.members.items()}

    def stats(self) -> NodeStats:
        """Return what it looks like now."""
        return NodeStats(
            is_leader=self.is_leader,
            leader_id=self.leader_id,
            members=len(self._core.roster.members),
            disk_id=self._wal.identity.disk_id,
            core=self._core.stats(),
            mesh=self._mesh.stats(),
        )

    @contextmanager
    def watch_leadership(self) -> Generator[asyncio.Event]:
        """Lend an event that is set when leader, term or members change."""
        changed = asyncio.Event()
        self._watchers.add(changed)
        try:
            yield changed
        finally:
            self._watchers.discard(changed)

    async def propose(self, command: bytes, *, timeout_s: float = PROPOSE_S) -> bytes:
        """Return the state machine's answer to `command`, applied exactly once, here too.

        Raises:
            Invalid: it is too large.
            Unavailable: no leader in time; it may or may not have been applied, once at most.
        """
        return await self._in_time(self._propose(command), timeout_s)

    async def read_barrier(self, *, timeout_s: float = READ_S) -> None:
        """Return when this manager has applied all that was committed when this was called.

        Raises:
            Unavailable: no leader with a majority in time.
        """

        async def wait() -> None:
            reached = await self._requests.ask(RequestKind.READ, b"")
            await self._applied(reached.answer.index)

        await self._in_time(wait(), timeout_s, is_read=True)

    async def add_member(
        self, node_id: str, address: Address, *, timeout_s: float = CHANGE_S
    ) -> None:
        """Make a manager a member. Again: no effect.

        It must be running with `Join`, with the leader among its contacts.

        Raises:
            Invalid: it is a member at another address.
            FailedPrecondition: it does not answer, or another change is under way.
            Unavailable: no leader in time.
        """
        payload = msgspec.msgpack.encode(Member(node_id, *address))
        await self._in_time(self._change(RequestKind.ADD_MEMBER, payload), timeout_s)

    async def remove_member(self, node_id: str, *, timeout_s: float = CHANGE_S) -> None:
        """Take a manager's vote away; the leader hands over first. Again: no effect.

        Of itself, a manager learns by the answer, or by being refused: whoever is no member has no
        sessions, and is not told what the others commit.

        Raises:
            FailedPrecondition: the others have no majority, or another change is under way.
            Unavailable: no leader in time.
        """
        payload = node_id.encode()
        try:
            await self._in_time(self._change(RequestKind.REMOVE_MEMBER, payload), timeout_s)
        except Unavailable:
            if node_id != self._node_id or not self._was_removed:
                raise

    async def transfer_leadership(
        self, to: str | None = None, *, timeout_s: float = READ_S
    ) -> None:
        """Return when another manager (`to`, or any) leads; nothing happens if there is no other.

        Raises:
            Invalid: `to` is not a manager.
            Unavailable: not in time.
        """

        async def transfer() -> None:
            old = self.leader_id

            def is_done() -> bool:
                return self.leader_id == to if to else self.leader_id not in {None, old}

            with self.watch_leadership() as changed:
                while not is_done():
                    await self._change(RequestKind.TRANSFER, (to or "").encode())
                    if len(self._core.roster.members) < 2:  # noqa: PLR2004 - nobody else
                        return
                    changed.clear()
                    while not is_done():
                        await changed.wait()
                        changed.clear()
                        if self.leader_id is not None:  # else who is asked next is the new one
                            break

        await self._in_time(transfer(), timeout_s)

    # What the mesh tells.

    def message_came(self, node_id: str, message: PeerMessage) -> None:
        """See `transport.MeshEvents`."""
        match message:
            case Request():
                self._driver.guard(lambda: self._requests.on_request(node_id, message))
            case Answer():
                self._requests.on_answer(node_id, message)
            case _:
                self._driver.enter(lambda: self._core.deliver(node_id, message))

    def session_changed(self, node_id: str) -> None:
        """See `transport.MeshEvents`."""
        if not self._mesh.is_connected(node_id):
            self._core.disconnected(node_id)
        self._requests.session_changed(node_id)
        self._membership.session_changed()
        self._driver.kick()

    def address_seen(self, member: Member) -> None:
        """See `transport.MeshEvents`."""
        self._driver.guard(lambda: self._core.note_address(member))

    def was_refused(self, node_id: str, reason: RefusalReason) -> None:
        """See `transport.MeshEvents`."""
        if reason is RefusalReason.REMOVED and not self._was_removed:
            self._was_removed = True
            _log.error("this manager was removed from the cluster peer=%s", node_id)
            if self.is_member:  # not a joiner whose earlier life was removed
                self._fail_all("this manager was removed from the cluster")

    def is_removed(self, node_id: str) -> bool:
        """See `transport.MeshEvents`."""
        return self._core.roster.was_removed(node_id)

    # Inside.

    async def _until_failure(self) -> None:
        await self._driver.failure
        raise _StoppedError

    async def _in_time(
        self, work: Coroutine[None, None, _T], timeout_s: float, *, is_read: bool = False
    ) -> _T:
        if self._has_ended:
            work.close()
            raise Unavailable(_STOPPED)
        try:
            return await self._deadlines.run(work, timeout_s)
        except TimeoutError:
            leader = self.leader_id
            what = "no leader" if leader is None else f"no answer from the leader {leader}"
            outcome = "nothing was read" if is_read else "the outcome is unknown"
            raise Unavailable(f"{what} within {timeout_s:g} s; {outcome}") from None

    async def _propose(self, command: bytes) -> bytes:
        index, answer = await self._proposals.propose(command)
        if self._core.applied_index < index:
            await self._applied(index)
        return answer

    async def _change(self, kind: RequestKind, payload: bytes) -> None:
        answer = (await self._requests.ask(kind, payload)).answer
        text = answer.payload.decode(errors="replace")
        if answer.status is AnswerStatus.DENIED:
            raise FailedPrecondition(text)
        if answer.status is AnswerStatus.INVALID:
            raise Invalid(text)
        await self._applied(answer.index)

    async def _applied(self, index: int) -> None:
        if self._core.applied_index >= index:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting_to_apply, (index, next(self._order), future))
        await future

    def _after_tick(self) -> None:
        self._requests.ask_overdue_again()
        applied = self._core.applied_index
        while self._waiting_to_apply and self._waiting_to_apply[0][0] <= applied:
            future = heapq.heappop(self._waiting_to_apply)[2]
            if not future.done():
                future.set_result(None)
        leadership = (self._core.leader_id, self._core.term, self._core.is_leader)
        seen = (leadership, self._core.roster.version)
        if seen == self._seen:
            return
        if leadership != self._seen[0]:
            self._requests.leadership_changed()
        self._seen = seen
        for changed in self._watchers:
            changed.set()

    def _in_background(self, job: Callable[[], _T], done: Callable[[_T], None]) -> None:
        async def run() -> None:
            try:
                result = await asyncio.to_thread(job)
            except StorageFailure as failure:
                self._driver.fail(failure)
            else:
                self._driver.guard(lambda: done(result))

        if self._group is not None:
            self._group.create_task(run())

    def _end(self) -> None:
        self._has_ended = True
        self._driver.stop()
        self._wal.close()
        self._fail_all(_STOPPED)

    def _fail_all(self, reason: str) -> None:
        """Let nobody wait any more."""
        self._requests.fail_all(reason)
        waiting, self._waiting_to_apply = self._waiting_to_apply, []
        for _, _, future in waiting:
            fail(future, reason)
