"""Changing who votes, and who leads: the leader's part that needs more than the core.

One change at a time. A joiner is added only when this leader has a session with it, because from
then on its vote may be needed; a member is removed only if the others can still agree without it.
"""

from __future__ import annotations

import asyncio

import msgspec

from cluster.consensus.core import RaftCore
from cluster.consensus.driver import Driver
from cluster.consensus.members import Member, MemberChange, is_majority
from cluster.consensus.messages import AnswerStatus, RequestKind
from cluster.consensus.ports import Fate
from cluster.consensus.requests import Reply
from cluster.consensus.sessions import Outcome
from cluster.consensus.transport import Mesh
from cluster.model.errors import ClusterError, FailedPrecondition, Invalid, Unavailable
from cluster.task_group import TaskGroup

_JOINER_S = 5.0
"""How long a joiner may take to answer."""
_CHANGE_S = 8.0
"""How long a majority may take to commit a change."""
_decode_member = msgspec.msgpack.Decoder(Member).decode


class Membership:
    """One manager's service to those who change members, while it leads."""

    def __init__(self, *, node_id: str, core: RaftCore, mesh: Mesh, driver: Driver) -> None:
        self._me = node_id
        self._core = core
        self._mesh = mesh
        self._driver = driver
        self._group: TaskGroup | None = None
        self._session_waiters: set[asyncio.Event] = set()

    def start(self, group: TaskGroup) -> None:
        """Serve with tasks of `group`."""
        self._group = group

    def session_changed(self) -> None:
        """Look again whether a joiner has connected."""
        for event in self._session_waiters:
            event.set()

    def serve(self, kind: RequestKind, payload: bytes, reply: Reply) -> None:
        """Do what is asked and reply."""
        if self._group is not None:
            self._group.create_task(self._serve(kind, payload, reply))

    async def _serve(self, kind: RequestKind, payload: bytes, reply: Reply) -> None:
        try:
            match kind:
                case RequestKind.ADD_MEMBER:
                    index = await self._add(_decode_member(payload))
                case RequestKind.REMOVE_MEMBER:
                    index = await self._remove(payload.decode())
                case _:
                    index = self._transfer(payload.decode())
        except Unavailable:
            reply(AnswerStatus.RETRY, 0, b"")
        except FailedPrecondition as error:
            reply(AnswerStatus.DENIED, 0, str(error).encode())
        except (ClusterError, msgspec.MsgspecError, UnicodeError) as error:
            reply(AnswerStatus.INVALID, 0, str(error).encode())
        else:
            reply(AnswerStatus.DONE, index, b"")
        self._driver.kick()

    async def _add(self, member: Member) -> int:
        known = self._core.roster.members.get(member.node_id)
        if known is not None:
            if known.address == member.address:
                return self._core.applied_index
            raise Invalid(
                f"{member.node_id} is a member at {known.host}:{known.port}; it moves when it is"
                " started with another address"
            )
        self._mesh.add_candidate(member)
        try:
            disk_id = await self._disk_of(member)
            member = msgspec.structs.replace(member, disk_id=disk_id)
            return await self._change(MemberChange("add", member))
        finally:
            self._mesh.remove_candidate(member.node_id)

    async def _disk_of(self, member: Member) -> str:
        changed = asyncio.Event()
        self._session_waiters.add(changed)
        try:
            async with asyncio.timeout(_JOINER_S):
                while (disk_id := self._mesh.disk_of(member.node_id)) is None:
                    changed.clear()
                    await changed.wait()
                return disk_id
        except TimeoutError:
            raise FailedPrecondition(
                f"{member.node_id} does not answer at {member.host}:{member.port}"
            ) from None
        finally:
            self._session_waiters.discard(changed)

    async def _remove(self, node_id: str) -> int:
        members = self._core.roster.members
        member = members.get(node_id)
        if member is None:
            return self._core.applied_index
        if node_id == self._me:
            if len(members) == 1:
                raise FailedPrecondition(f"{node_id} is the last manager")
            self._core.hand_over()
            raise Unavailable("leadership is being handed over")
        left = members.keys() - {node_id}
        alive = (self._core.responsive_members() | {self._me}) & left
        if not is_majority(len(alive), len(left)):
            raise FailedPrecondition(
                f"without {node_id} the managers would have no majority:"
                f" only {len(alive)} of {len(left)} others are reachable"
            )
        return await self._change(MemberChange("rem", member))

    async def _change(self, change: MemberChange) -> int:
        done: asyncio.Future[tuple[Fate, int]] = asyncio.get_running_loop().create_future()

        def finish(fate: Fate, index: int, _: Outcome) -> None:
            if not done.done():
                done.set_result((fate, index))

        self._driver.guard(lambda: self._core.change_members(change, finish))
        try:
            async with asyncio.timeout(_CHANGE_S):
                fate, index = await done
        except TimeoutError:
            raise Unavailable("the change may still be made") from None
        match fate:
            case Fate.APPLIED:
                return index
            case Fate.LOST:
                raise Unavailable("not the leader any more")
            case Fate.DENIED if not self._core.is_changing_members:
                raise Unavailable("the leader is new")
            case Fate.DENIED:
                raise FailedPrecondition(
                    "another change of managers is under way: retry when it is done"
                )

    def _transfer(self, target: str) -> int:
        if target == self._me:
            return self._core.applied_index
        if target and target not in self._core.roster.members:
            raise Invalid(f"{target} is not a manager")
        if len(self._core.roster.members) > 1:
            self._core.hand_over(target)
        return self._core.applied_index
