"""One session, from the node's side: hello, then whatever comes and goes until it ends.

Invariant: a manager that does not answer a heartbeat in time is given up, even if the connection
looks alive: its machine may be gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import assert_never

from cluster.dispatch.channel import Channel, ChannelClosed, CloseCode, first_of
from cluster.dispatch.inbox import AssignmentInbox, OutOfStep
from cluster.dispatch.log_sender import LogSender, ReadLog
from cluster.dispatch.messages import (
    AssignmentDiff,
    FullAssignment,
    Heartbeat,
    HeartbeatAck,
    Hello,
    LogCredit,
    LogRequest,
    LogStop,
    MalformedMessage,
    ManagerMessage,
    NodeMessage,
    Registration,
    StatusAck,
    StatusBatch,
    Welcome,
    decode_from_manager_untrusted,
    encode,
)
from cluster.dispatch.outbox import StatusOutbox
from cluster.model.assignment import ClusterInfo
from cluster.task_group import TaskGroup

logger = logging.getLogger(__name__)

HEARTBEAT_JITTER = 0.1
"""Part of the period by which heartbeats come earlier or later (swarmkit's 5 s +- 0.5 s)."""


@dataclass(frozen=True, slots=True)
class SessionTiming:
    """How patient a node is with a manager."""

    welcome_s: float = 2.0
    ack_s: float = 2.0
    """From a heartbeat to its answer, or to anything else from the manager."""


class SessionLost(Exception):
    """The session is over."""

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class SessionUser:
    """Whom a conversation serves; all callbacks return at once."""

    inbox: AssignmentInbox
    outbox: StatusOutbox
    registration: Registration
    read_log: ReadLog
    informed: Callable[[ClusterInfo], None]
    assigned: Callable[[], None]
    """`inbox` has a new assignment."""
    ring: Callable[[], bytes]
    """Digest of the gossip keys that the node holds."""
    hurry: asyncio.Event
    """Set by the node when the next heartbeat must not wait."""


class Conversation:
    """One session over an open channel."""

    def __init__(
        self, channel: Channel, user: SessionUser, timing: SessionTiming, rng: Random
    ) -> None:
        self._channel = channel
        self._user = user
        self._timing = timing
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._period_s = 5.0
        self._acks: asyncio.Queue[int] = asyncio.Queue()

    async def hold(self) -> SessionLost:
        """Speak until the session ends, close the channel, and return why."""
        lost = SessionLost("ended")
        try:
            await self._greet()
            async with TaskGroup() as group:
                group.create_task(self._listen(group))
                group.create_task(self._beat())
                group.create_task(self._tell_statuses())
        except* ChannelClosed as errors:
            lost = _lost(errors)
        except* (SessionLost, OutOfStep, MalformedMessage, TimeoutError) as errors:
            lost = _lost(errors)
        finally:
            await self._channel.close(CloseCode.NORMAL, "")
        return lost

    async def _greet(self) -> None:
        self._user.inbox.begin_session()
        await self._send(Hello(self._user.registration, self._user.inbox.sequence))
        async with asyncio.timeout(self._timing.welcome_s):
            welcome = decode_from_manager_untrusted(await self._channel.receive())
        if not isinstance(welcome, Welcome):
            raise MalformedMessage("the first message is no welcome")
        self._period_s = welcome.heartbeat_period_s

    async def _listen(self, group: TaskGroup) -> None:
        logs = LogSender(self._user.read_log, self._send, group)
        while True:
            message = decode_from_manager_untrusted(await self._channel.receive())
            self._heard_at = self._loop.time()
            await self._receive(message, logs)

    async def _receive(self, message: ManagerMessage, logs: LogSender) -> None:
        match message:
            case ClusterInfo():
                self._period_s = message.heartbeat_period_s
                self._user.informed(message)
            case FullAssignment() | AssignmentDiff():
                if self._user.inbox.receive(message) is not None:
                    self._user.assigned()
            case StatusAck(number=number):
                self._acks.put_nowait(number)
            case LogRequest() | LogCredit() | LogStop():
                await logs.receive(message)
            case HeartbeatAck():
                pass  # hearing it was all
            case Welcome():
                raise MalformedMessage("a second welcome")
            case _:
                assert_never(message)

    async def _beat(self) -> None:
        number = 0
        next_beat_at = self._loop.time()
        asked_at: float | None = None  # of the oldest heartbeat without an answer
        while True:
            now = self._loop.time()
            if asked_at is not None and self._heard_at >= asked_at:
                asked_at = None
            if asked_at is not None and now >= asked_at + self._timing.ack_s:
                raise SessionLost(f"no answer to a heartbeat in {self._timing.ack_s:g} seconds")
            if now >= next_beat_at:
                number += 1
                asked_at = asked_at or now
                self._user.hurry.clear()
                async with asyncio.timeout(self._timing.ack_s):
                    await self._send(Heartbeat(number, self._user.ring()))
                jitter = self._rng.uniform(1 - HEARTBEAT_JITTER, 1 + HEARTBEAT_JITTER)
                next_beat_at = now + self._period_s * jitter
            due = next_beat_at
            if asked_at is not None:
                due = min(due, asked_at + self._timing.ack_s)
            if await self._is_hurried(due):
                next_beat_at = self._loop.time()

    async def _is_hurried(self, due: float) -> bool:
        """Wait until `due`, or until the node is in a hurry; tell which."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(due):
                await self._user.hurry.wait()
        return self._user.hurry.is_set()

    async def _tell_statuses(self) -> None:
        number = 0
        while True:
            batch = await self._user.outbox.next_batch()
            number += 1
            await self._send(StatusBatch(number, batch))
            while await self._acks.get() != number:
                pass
            self._user.outbox.acknowledge(batch)

    async def _send(self, message: NodeMessage) -> None:
        await self._channel.send(encode(message))


def _lost(errors: BaseExceptionGroup[BaseException]) -> SessionLost:
    match first_of(errors):
        case SessionLost() as lost:
            return lost
        case ChannelClosed() as closed:
            return SessionLost(str(closed), closed.code)
        case TimeoutError():
            return SessionLost("the manager did not answer in time")
        case error:
            return SessionLost(str(error))
