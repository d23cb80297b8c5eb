"""Logs over sessions: order, flow control, ends; a manager's broker against a node's sender."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager

import pytest

from cluster.dispatch.channel import ChannelClosed
from cluster.dispatch.log_sender import LINE_BYTES_MAX, LogSender
from cluster.dispatch.logs import LogBroker, LogPages, NodeLogs
from cluster.dispatch.messages import (
    LOG_CREDIT,
    LOG_RECORDS_MAX,
    LogCredit,
    LogData,
    LogEnd,
    LogRecord,
    LogRequest,
    LogStop,
    MalformedMessage,
    ManagerMessage,
    NodeMessage,
)
from cluster.model.errors import Unavailable
from cluster.model.ids import NodeId, TaskId
from cluster.model.logs import LogOptions, LogStream
from cluster.task_group import TaskGroup
from tests.unit.dispatch.control_plane import RecordingAgent, wait_until

N1, N2 = NodeId("n1"), NodeId("n2")
T1, T2 = TaskId("t1"), TaskId("t2")
FOLLOW = LogOptions(follow=True)


def lines(task: TaskId, count: int, size: int = 1) -> list[LogRecord]:
    return [
        LogRecord(task, LogStream.STDOUT, n, f"{n} ".encode() + b"x" * size) for n in range(count)
    ]


class Node:
    """A node with a session to the broker's manager, messages delivered at once."""

    def __init__(self, broker: LogBroker, node: NodeId, group: TaskGroup) -> None:
        self.agent = RecordingAgent()
        self.sent: list[NodeMessage] = []
        self.sender = LogSender(self.agent.read_log, self._to_manager, group)
        self.logs: NodeLogs = broker.attach(node, self._to_node)
        self.is_gone = False

    async def _to_node(self, message: ManagerMessage) -> None:
        if self.is_gone:
            raise ChannelClosed(None, "gone")
        assert isinstance(message, LogRequest | LogCredit | LogStop)
        await self.sender.receive(message)

    async def _to_manager(self, message: NodeMessage) -> None:
        self.sent.append(message)
        assert isinstance(message, LogData | LogEnd)
        self.logs.receive_untrusted(message)


@asynccontextmanager
async def brokerage() -> AsyncGenerator[tuple[LogBroker, TaskGroup]]:
    broker = LogBroker()
    async with TaskGroup() as group:
        running = group.create_task(broker.run())
        await asyncio.sleep(0)
        yield broker, group
        running.cancel()


async def read_all(pages: LogPages) -> list[LogRecord]:
    async with asyncio.timeout(5), aclosing(pages) as source:
        return [record async for page in source for record in page]


async def test_all_lines_of_all_tasks_arrive_each_in_order() -> None:
    async with brokerage() as (broker, group):
        one, two = Node(broker, N1, group), Node(broker, N2, group)
        one.agent.logs[T1] = lines(T1, 1000)
        two.agent.logs[T2] = lines(T2, 10)
        records = await read_all(broker.read([(T1, N1), (T2, N2)], LogOptions()))
        assert [r for r in records if r.task == T1] == one.agent.logs[T1]
        assert [r for r in records if r.task == T2] == two.agent.logs[T2]
        assert max(len(m.records) for m in one.sent if isinstance(m, LogData)) <= LOG_RECORDS_MAX


async def test_tasks_that_are_nowhere_do_not_hold_up_the_others() -> None:
    async with brokerage() as (broker, group):
        node = Node(broker, N1, group)
        node.agent.logs[T1] = lines(T1, 3)
        wanted = [(T1, N1), (T2, N1), (T2, N2)]
        assert await read_all(broker.read(wanted, LogOptions())) == lines(T1, 3)
        errors = [m.error for m in node.sent if isinstance(m, LogEnd)]
        assert sorted(errors) == ["", "task t2 is not here"]
        assert await read_all(broker.read([], LogOptions())) == []


async def test_a_reader_that_does_not_read_stops_the_node() -> None:
    async with brokerage() as (broker, group):
        node = Node(broker, N1, group)
        node.agent.logs[T1] = lines(T1, 100 * LOG_RECORDS_MAX)
        pages = broker.read([(T1, N1)], LogOptions())
        await anext(pages)
        await wait_until(lambda: len(node.sent) == LOG_CREDIT)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(node.sent) == LOG_CREDIT
        await anext(pages)
        await wait_until(lambda: len(node.sent) == LOG_CREDIT + 1)
        await pages.aclose()
        await wait_until(lambda: node.agent.open_logs == 0)


async def test_a_follower_that_leaves_ends_the_reading_on_the_node() -> None:
    async with brokerage() as (broker, group):
        node = Node(broker, N1, group)
        node.agent.logs[T1] = lines(T1, 1)
        pages = broker.read([(T1, N1)], FOLLOW)
        assert await anext(pages) == tuple(lines(T1, 1))
        assert node.agent.open_logs == 1
        await pages.aclose()
        await wait_until(lambda: node.agent.open_logs == 0)


async def test_a_session_that_ends_ends_its_logs() -> None:
    async with brokerage() as (broker, group):
        node = Node(broker, N1, group)
        node.agent.logs[T1] = lines(T1, 1)
        pages = broker.read([(T1, N1)], FOLLOW)
        await anext(pages)
        node.is_gone = True
        broker.detach(N1, node.logs)
        with pytest.raises(StopAsyncIteration):
            await anext(pages)
        await node.sender.receive(LogStop(1))


async def test_a_session_that_is_gone_when_asked_is_no_error() -> None:
    async with brokerage() as (broker, group):
        Node(broker, N1, group).is_gone = True
        assert await read_all(broker.read([(T1, N1)], FOLLOW)) == []


async def test_more_than_was_asked_for_is_malformed() -> None:
    async with brokerage() as (broker, group):
        node = Node(broker, N1, group)
        node.agent.logs[T1] = []
        reading = group.create_task(anext(broker.read([(T1, N1)], FOLLOW)))
        await wait_until(lambda: node.agent.open_logs == 1)
        for _ in range(LOG_CREDIT):
            node.logs.receive_untrusted(LogData(1, ()))
        with pytest.raises(MalformedMessage):
            node.logs.receive_untrusted(LogData(1, ()))
        await reading
        await node.sender.receive(LogStop(1))


async def test_long_lines_are_cut() -> None:
    async with brokerage() as (broker, group):
        node = Node(broker, N1, group)
        node.agent.logs[T1] = lines(T1, 10, size=2 * LINE_BYTES_MAX)
        records = await read_all(broker.read([(T1, N1)], LogOptions()))
        assert [len(r.data) for r in records] == [LINE_BYTES_MAX] * 10


async def other_manager(
    pages: Sequence[Sequence[LogRecord]], error: Exception | None = None
) -> LogPages:
    for page in pages:
        yield tuple(page)
    if error is not None:
        raise error


async def test_other_managers_contribute_and_may_fail() -> None:
    async with brokerage() as (broker, group):
        node = Node(broker, N1, group)
        node.agent.logs[T1] = lines(T1, 3)
        others = [
            other_manager([lines(T2, 2)] * 30),
            other_manager([lines(T2, 1)], Unavailable("gone")),
            other_manager([]),
        ]
        records = await read_all(broker.read([(T1, N1)], LogOptions(), others))
        assert len([r for r in records if r.task == T1]) == 3
        assert len([r for r in records if r.task == T2]) == 61
