"""Asking the leader, wherever it is, and answering those who ask this one.

A request goes to the leader's core directly or over the mesh; both ends look the same. It is asked
again, unchanged, when leadership changes or no answer comes; whether that is safe is the matter of
who asks (commands carry a session and a sequence number).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from cluster.consensus.core import RaftCore
from cluster.consensus.driver import Driver
from cluster.consensus.members import is_forwardable
from cluster.consensus.messages import Answer, AnswerStatus, Request, RequestKind
from cluster.consensus.ports import Fate
from cluster.consensus.sessions import Outcome
from cluster.consensus.transport import Mesh
from cluster.model.errors import Unavailable

_ASK_AGAIN_S = 2.0
"""An answer that takes longer was lost with its session, or waits for a majority that is not there;
asking again is harmless."""
_ASK_AGAIN_CHANGE_S = 15.0
"""The same for changes of members, which wait for a joiner to answer."""
_SWEEP_S = 0.25
"""How often unanswered requests are looked for: cheaper than a timer for each."""
_NO_LEADER_S = 0.05
"""Pause before asking a leader again that said it is none."""
_SERVED_MAX = 8192
"""Requests of others that this leader works on."""

Reply = Callable[[AnswerStatus, int, bytes], None]
ServeOther = Callable[[RequestKind, bytes, Reply], None]
"""Serves the kinds that take more than the core: changes of members and leadership."""


class Reached(NamedTuple):
    """The leader's answer."""

    answer: Answer
    attempts: int
    """How many copies of the request may have been received."""


class _Asked(NamedTuple):
    leader: str
    future: asyncio.Future[Answer]
    again_at: float
    """When no answer is expected any more, by the loop's clock."""


class Requests:
    """One manager's requests to the leader, and the others' to it."""

    def __init__(
        self, *, core: RaftCore, mesh: Mesh, driver: Driver, serve_other: ServeOther
    ) -> None:
        self._core = core
        self._mesh = mesh
        self._driver = driver
        self._serve_other = serve_other
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._asked: dict[int, _Asked] = {}
        self._sweep_at = 0.0
        self._served = 0
        self._changed: set[asyncio.Future[None]] = set()

    async def ask(self, kind: RequestKind, payload: bytes) -> Reached:
        """Return the leader's answer, which is not RETRY; wait for a leader if there is none."""
        attempts = 0
        while True:
            leader = self._leader() or await self._reachable_leader()
            attempts += 1
            answer = await self._ask_once(leader, kind, payload)
            if answer.status is not AnswerStatus.RETRY:
                return Reached(answer, attempts)
            await self._leadership_change(timeout_s=_NO_LEADER_S)

    def leadership_changed(self) -> None:
        """Have everything asked again: the old leader will not answer."""
        for number in list(self._asked):
            self._settle(number, _retry(number))
        changed, self._changed = self._changed, set()
        for future in changed:
            if not future.done():
                future.set_result(None)

    def fail_all(self, reason: str) -> None:
        """Let nobody wait any more: nobody will answer."""
        for asked in self._asked.values():
            fail(asked.future, reason)
        for changed in self._changed:
            fail(changed, reason)

    def session_changed(self, node_id: str) -> None:
        """Have what was asked of this peer asked again; its answers may be lost."""
        for number, asked in list(self._asked.items()):
            if asked.leader == node_id:
                self._settle(number, _retry(number))
        if node_id == self._core.leader_id:
            self.leadership_changed()

    def ask_overdue_again(self) -> None:
        """Have asked again what was not answered in time; may be called as often as one likes."""
        now = self._loop.time()
        if now < self._sweep_at:
            return
        self._sweep_at = now + _SWEEP_S
        for number in [n for n, asked in self._asked.items() if asked.again_at < now]:
            self._settle(number, _retry(number))

    def on_answer(self, node_id: str, answer: Answer) -> None:
        """Take an answer of a peer."""
        asked = self._asked.get(answer.number)
        if asked is not None and asked.leader == node_id:
            self._settle(answer.number, answer)

    def on_request(self, node_id: str, request: Request) -> None:
        """Serve a peer."""
        if self._served >= _SERVED_MAX:
            self._mesh.send(node_id, _retry(request.number))
            return
        self._served += 1
        # Entries whose fate this manager never learns are never answered: see `SubmitDone`.
        timer = self._loop.call_later(
            _again_s(request.kind), lambda: reply(AnswerStatus.RETRY, 0, b"")
        )

        def reply(status: AnswerStatus, index: int, payload: bytes) -> None:
            if timer.cancelled():
                return
            timer.cancel()
            self._served -= 1
            self._mesh.send(node_id, Answer(request.number, status, index, payload))
            self._core.hasten()
            self._driver.kick()

        self._serve(request.kind, request.payload, reply)

    def _serve(self, kind: RequestKind, payload: bytes, reply: Reply) -> None:
        if not self._core.is_leader:
            reply(AnswerStatus.RETRY, 0, b"")
        elif kind is RequestKind.READ:
            self._core.ask_read(partial(_reply_read, reply))
        elif kind is not RequestKind.APPEND:
            self._serve_other(kind, payload, reply)
        elif is_forwardable(payload):
            self._core.submit(payload, partial(_reply_applied, reply))
        else:
            reply(AnswerStatus.INVALID, 0, b"only commands may be forwarded")

    def _leader(self) -> str | None:
        """Return who leads, if it can be asked."""
        leader = self._core.leader_id
        is_reachable = leader is not None and (
            self._core.is_leader or self._mesh.is_connected(leader)
        )
        return leader if is_reachable else None

    async def _reachable_leader(self) -> str:
        while True:
            leader = self._leader()
            if leader is not None:
                return leader
            await self._leadership_change(timeout_s=None)

    async def _leadership_change(self, *, timeout_s: float | None) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        self._changed.add(future)
        timer = self._loop.call_later(timeout_s, _finish, future) if timeout_s else None
        try:
            await future
        finally:
            self._changed.discard(future)
            if timer is not None:
                timer.cancel()

    async def _ask_once(self, leader: str, kind: RequestKind, payload: bytes) -> Answer:
        self._number += 1
        number = self._number
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._asked[number] = _Asked(leader, future, self._loop.time() + _again_s(kind))
        if self._core.is_leader:
            self._driver.guard(partial(self._serve, kind, payload, partial(self._answer, number)))
        else:
            self._mesh.send(leader, Request(number, kind, payload))
            self._driver.kick()
        try:
            return await future
        finally:
            self._asked.pop(number, None)

    def _answer(self, number: int, status: AnswerStatus, index: int, payload: bytes) -> None:
        self._settle(number, Answer(number, status, index, payload))

    def _settle(self, number: int, answer: Answer) -> None:
        asked = self._asked.pop(number, None)
        if asked is not None and not asked.future.done():
            asked.future.set_result(answer)


def fail(future: asyncio.Future[Any], reason: str) -> None:
    """Tell whoever waits that it is in vain."""
    if not future.done():
        future.set_exception(Unavailable(reason))


def _again_s(kind: RequestKind) -> float:
    is_quick = kind is RequestKind.APPEND or kind is RequestKind.READ
    return _ASK_AGAIN_S if is_quick else _ASK_AGAIN_CHANGE_S


def _retry(number: int) -> Answer:
    return Answer(number, AnswerStatus.RETRY, 0, b"")


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _reply_read(reply: Reply, index: int | None) -> None:
    if index is None:
        reply(AnswerStatus.RETRY, 0, b"")
    else:
        reply(AnswerStatus.DONE, index, b"")


def _reply_applied(reply: Reply, fate: Fate, index: int, outcome: Outcome) -> None:
    if fate is Fate.APPLIED:
        reply(AnswerStatus.DONE, index, bytes([outcome.verdict]) + outcome.answer)
    else:
        reply(AnswerStatus.RETRY, 0, b"")
