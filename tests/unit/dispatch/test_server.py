"""The managers' side of sessions, over channels in memory and a store of one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from cluster.ca.certificates import PeerIdentity
from cluster.control.keys import ring_digest
from cluster.dispatch.channel import ChannelClosed, CloseCode
from cluster.dispatch.messages import (
    AssignmentDiff,
    FullAssignment,
    Heartbeat,
    HeartbeatAck,
    Hello,
    LogEnd,
    ManagerMessage,
    NodeMessage,
    Registration,
    StatusAck,
    StatusBatch,
    StatusReport,
    Welcome,
    decode_from_manager_untrusted,
    encode,
)
from cluster.dispatch.requests import ReportedSighting, SightingReport
from cluster.dispatch.server import OUT_OF_TOUCH_S, SessionServer
from cluster.dispatch.sightings import REPORT_AFTER_S
from cluster.model.assignment import ClusterInfo
from cluster.model.errors import Unavailable
from cluster.model.ids import ClusterId, NodeId, ServiceId, TaskId
from cluster.model.node import NodeDescription, Role
from cluster.model.service import TaskSpec
from cluster.model.task import Task, TaskState, TaskStatus
from cluster.state.changes import (
    Change,
    DeleteNode,
    DeleteTask,
    PutCluster,
    PutTask,
    ReportStatus,
    SetDesiredState,
)
from tests.unit.dispatch.control_plane import LOCALHOST, REGISTRATION, World, wait_until
from tests.unit.dispatch.memory_channel import MemoryChannel, channel_pair
from tests.unit.virtual_time import virtual

NOW = 1_800_000_000.0
BEAT_S = 1 / 64
"""Adds up without rounding."""
_M = TypeVar("_M")


@dataclass
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


class Served:
    """A running session server, and what it proposed and forwarded."""

    def __init__(self, world: World, group: asyncio.TaskGroup, clock: Clock) -> None:
        self.world = world
        self.group = group
        self.clock = clock
        self.proposed: list[list[Change]] = []
        self.reports: list[SightingReport] = []
        self.has_quorum = True
        self.has_leader = True
        self.server = SessionServer(
            replica=world.replica,
            propose=self.propose,
            forward=self.forward,
            clock=clock,
            rng=world.rng,
        )

    async def propose(self, changes: Sequence[Change]) -> int:
        if not self.has_quorum:
            raise Unavailable("no quorum")
        self.proposed.append(list(changes))
        return await self.world.proposer.propose(changes)

    async def forward(self, report: SightingReport) -> None:
        if not self.has_leader:
            raise Unavailable("no leader")
        self.reports.append(report)

    async def new_node(self) -> NodeId:
        certified = self.world.certify(Role.WORKER)
        await self.world.add_node(certified, Role.WORKER)
        return certified.node

    def connect(self, node: NodeId) -> MemoryChannel:
        ours, theirs = channel_pair()
        identity = PeerIdentity(node, Role.WORKER, ClusterId("c"), NOW - 3600, NOW + 3600)
        self.group.create_task(self.server.serve(theirs, identity, LOCALHOST))
        return ours

    def reported_rings(self) -> list[bytes]:
        return [s.ring for s in self.reports[-1].sightings] if self.reports else []

    async def loop_until_retold(self, end: NodeEnd, ring: bytes) -> ClusterInfo:
        """Send heartbeats until the node is told the cluster's facts."""
        while True:
            await end.send(Heartbeat(1, ring))
            message = await end.receive()
            if isinstance(message, ClusterInfo):
                return message
            await asyncio.sleep(BEAT_S)

    async def session(self, node: NodeId, sequence: int = 0) -> NodeEnd:
        end = NodeEnd(self.connect(node))
        await end.send(Hello(REGISTRATION, sequence))
        await end.expect(Welcome)
        return end


@dataclass
class NodeEnd:
    """A node's end of a session."""

    channel: MemoryChannel

    async def send(self, message: NodeMessage) -> None:
        await self.channel.send(encode(message))

    async def receive(self) -> ManagerMessage:
        async with asyncio.timeout(5):
            return decode_from_manager_untrusted(await self.channel.receive())

    async def expect(self, kind: type[_M]) -> _M:
        """Return the next message of this kind, skipping others."""
        while True:
            message = await self.receive()
            if isinstance(message, kind):
                return message

    async def beat(self) -> None:
        while True:
            await self.send(Heartbeat(1))
            await asyncio.sleep(BEAT_S)

    async def ended(self) -> ChannelClosed:
        try:
            while True:
                await self.receive()
        except ChannelClosed as closed:
            return closed


@pytest.fixture
async def served(tmp_path: Path) -> AsyncGenerator[Served]:
    async with serving(tmp_path) as served:
        yield served


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncGenerator[Served]:
    clock = Clock()
    world = World(tmp_path, clock)
    await world.propose(PutCluster(world.cluster))
    async with asyncio.TaskGroup() as group:
        served = Served(world, group, clock)
        running = group.create_task(served.server.run())
        yield served
        running.cancel()


def task_on(node: NodeId, number: int = 1) -> Task:
    return Task(
        TaskId(f"t{number}"),
        ServiceId("s"),
        "web",
        TaskSpec("host", ("true",)),
        number,
        node,
        status=TaskStatus(TaskState.ASSIGNED),
    )


async def test_a_node_is_told_its_assignment_and_what_changes_in_it(served: Served) -> None:
    node, other = await served.new_node(), await served.new_node()
    await served.world.propose(PutTask(task_on(node)), PutTask(task_on(other, 2)))
    end = await served.session(node)
    info = await end.expect(ClusterInfo)
    assert [n.id for n in info.nodes] == sorted([node, other])
    full = await end.expect(FullAssignment)
    assert list(full.page.tasks) == ["t1"]
    assert full.sequence == served.world.snapshot().index
    await served.world.propose(SetDesiredState(TaskId("t1"), TaskState.SHUTDOWN))
    diff = await end.expect(AssignmentDiff)
    assert diff.base == full.sequence
    assert diff.changed.tasks[TaskId("t1")].desired_state is TaskState.SHUTDOWN
    await served.world.propose(SetDesiredState(TaskId("t2"), TaskState.SHUTDOWN))
    await served.world.propose(DeleteTask(TaskId("t1")))
    gone = await end.expect(AssignmentDiff)
    assert (gone.base, gone.removed.tasks) == (diff.sequence, ("t1",))
    await end.channel.close(CloseCode.NORMAL, "")


async def test_what_a_node_says_of_itself_is_proposed_once(served: Served) -> None:
    node = await served.new_node()
    registration = Registration(NodeDescription("new name"), address="192.0.2.9")
    end = NodeEnd(served.connect(node))
    await end.send(Hello(registration))
    await wait_until(lambda: served.world.snapshot().nodes[node].address == "192.0.2.9")
    described = served.world.snapshot().nodes[node]
    assert described.description.hostname == "new name"
    assert described.data_address == "192.0.2.9"
    proposals = len(served.proposed)
    again = NodeEnd(served.connect(node))
    await again.send(Hello(registration))
    await again.expect(FullAssignment)
    assert len(served.proposed) == proposals
    await again.channel.close(CloseCode.NORMAL, "")


async def test_statuses_are_proposed_together_and_acknowledged(served: Served) -> None:
    nodes = [await served.new_node() for _ in range(3)]
    for number, node in enumerate(nodes):
        await served.world.propose(PutTask(task_on(node, number)))
    ends = [await served.session(node) for node in nodes]
    status = TaskStatus(TaskState.RUNNING, NOW)
    served.proposed.clear()
    for number, end in enumerate(ends):
        await end.send(StatusBatch(7, (StatusReport(TaskId(f"t{number}"), status),)))
    for end in ends:
        assert await end.expect(StatusAck) == StatusAck(7)
    tasks = served.world.snapshot().tasks.values()
    assert {t.status.state for t in tasks} == {TaskState.RUNNING}
    reports = [c for p in served.proposed for c in p if isinstance(c, ReportStatus)]
    assert {r.node for r in reports} == set(nodes)
    assert len([p for p in served.proposed if isinstance(p[0], ReportStatus)]) <= 2
    for end in ends:
        await end.channel.close(CloseCode.NORMAL, "")


async def test_a_node_speaks_only_for_its_own_tasks(served: Served) -> None:
    node, other = await served.new_node(), await served.new_node()
    await served.world.propose(PutTask(task_on(other)))
    end = await served.session(node)
    lie = StatusReport(TaskId("t1"), TaskStatus(TaskState.FAILED, NOW))
    await end.send(StatusBatch(1, (lie,)))
    await end.expect(StatusAck)
    assert served.world.snapshot().tasks[TaskId("t1")].status.state is TaskState.ASSIGNED
    await end.channel.close(CloseCode.NORMAL, "")


async def test_without_quorum_statuses_wait(served: Served) -> None:
    node = await served.new_node()
    await served.world.propose(PutTask(task_on(node)))
    end = await served.session(node)
    await end.expect(FullAssignment)
    served.has_quorum = False
    report = StatusReport(TaskId("t1"), TaskStatus(TaskState.RUNNING, NOW))
    await end.send(StatusBatch(1, (report,)))
    await wait_until(lambda: served.server.stats().statuses.retries == 1)
    served.has_quorum = True
    assert await end.expect(StatusAck) == StatusAck(1)
    await end.channel.close(CloseCode.NORMAL, "")


async def test_heartbeats_are_answered_and_seen(served: Served) -> None:
    node = await served.new_node()
    end = await served.session(node)
    await end.send(Heartbeat(5))
    assert await end.expect(HeartbeatAck) == HeartbeatAck(5)
    sighting = served.server.sightings()[node]
    assert sighting.has_session
    assert sighting.last_heard_at == pytest.approx(NOW, abs=5)
    await wait_until(lambda: bool(served.reports and served.reports[-1].sightings))
    assert served.reports[-1].sightings[0].node == node
    await end.channel.close(CloseCode.NORMAL, "")
    await wait_until(lambda: not served.server.sightings()[node].has_session)
    await wait_until(lambda: not served.reports[-1].sightings[0].is_connected)


async def test_the_leader_hears_which_gossip_keys_a_node_holds(served: Served) -> None:
    node = await served.new_node()
    end = await served.session(node)
    await end.send(Heartbeat(1, b"old"))
    await wait_until(lambda: served.server.rings() == {node: b"old"})
    await wait_until(lambda: served.reported_rings() == [b"old"])
    await end.send(Heartbeat(2, b"new"))
    await wait_until(lambda: served.server.rings() == {node: b"new"})
    await wait_until(lambda: served.reported_rings() == [b"new"])
    await end.channel.close(CloseCode.NORMAL, "")
    await wait_until(lambda: not served.server.has_session(node))
    assert served.server.rings() == {node: b"new"}
    elsewhere = ReportedSighting(node, 0.0, is_connected=True, ring=b"newer")
    served.server.receive_sightings(NodeId("m2"), SightingReport((elsewhere,)))
    assert served.server.rings() == {node: b"newer"}


@virtual
async def test_a_node_with_other_gossip_keys_is_told_again_but_not_at_every_heartbeat(
    tmp_path: Path,
) -> None:
    clock = asyncio.get_running_loop().time
    async with serving(tmp_path) as served:
        end = await served.session(await served.new_node())
        info = await end.expect(ClusterInfo)
        told = await served.loop_until_retold(end, b"other")
        assert told == info
        before = clock()
        await served.loop_until_retold(end, b"other")
        waited_s = clock() - before - 2 * info.heartbeat_period_s
        assert 0.0 <= waited_s <= 2 * BEAT_S  # the beat that is acknowledged first, and one more
        right = ring_digest(info.gossip_keys)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3 * info.heartbeat_period_s):
                await served.loop_until_retold(end, right)
        await end.channel.close(CloseCode.NORMAL, "")


@virtual
async def test_a_manager_out_of_touch_with_the_leader_sends_nodes_to_others(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as served:
        node = await served.new_node()
        end = await served.session(node)
        beating = served.group.create_task(end.beat())
        await asyncio.sleep(2 * OUT_OF_TOUCH_S)
        served.has_leader = False
        await asyncio.sleep(OUT_OF_TOUCH_S - REPORT_AFTER_S)
        assert served.server.has_session(node), "an election takes a while"

        assert (await end.ended()).code == CloseCode.GOING_AWAY
        beating.cancel()
        closed = await NodeEnd(served.connect(node)).ended()
        assert (closed.code, str(closed)) == (
            CloseCode.GOING_AWAY, "this manager is out of touch with the leader"
        )  # fmt: skip

        served.has_leader = True
        await asyncio.sleep(2 * REPORT_AFTER_S)
        end = await served.session(node)
        await end.channel.close(CloseCode.NORMAL, "")


async def test_the_leader_joins_reports(served: Served) -> None:
    node = await served.new_node()
    report = SightingReport((ReportedSighting(node, 2.0, is_connected=True),))
    served.server.receive_sightings(NodeId("m2"), report)
    sighting = served.server.sightings()[node]
    assert sighting.has_session
    assert sighting.last_heard_at == pytest.approx(NOW - 2.0, abs=0.5)


async def test_a_silent_node_loses_its_session(served: Served) -> None:
    node = await served.new_node()
    end = await served.session(node)
    closed = await end.ended()
    assert closed.code == CloseCode.SILENT
    assert "no heartbeat for 0.6 seconds" in str(closed)
    assert not served.server.has_session(node)
    assert served.server.stats().silent == 1


async def test_the_newest_session_of_a_node_counts(served: Served) -> None:
    node = await served.new_node()
    first = await served.session(node)
    await first.expect(FullAssignment)
    second = await served.session(node)
    assert (await first.ended()).code == CloseCode.SUPERSEDED
    await second.send(Heartbeat(1))
    await second.expect(HeartbeatAck)
    assert served.server.sightings()[node].has_session
    await second.channel.close(CloseCode.NORMAL, "")


async def test_a_removed_node_is_sent_away(served: Served) -> None:
    node = await served.new_node()
    end = await served.session(node)
    await end.expect(FullAssignment)
    await served.world.propose(DeleteNode(node))
    closed = await end.ended()
    assert closed.code == CloseCode.REMOVED
    assert str(closed) == "the node was removed from the cluster"


async def test_a_session_ends_with_its_certificate(served: Served) -> None:
    node = await served.new_node()
    end = await served.session(node)
    await end.expect(FullAssignment)
    served.clock.now += 2 * 3600
    await end.send(Heartbeat(1))
    assert (await end.ended()).code == CloseCode.REFUSED


async def test_a_node_that_knows_more_waits_for_this_manager_to_catch_up(served: Served) -> None:
    node = await served.new_node()
    index = served.world.snapshot().index + 1  # the node's description is a change, too
    end = await served.session(node, sequence=index + 1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await end.channel.receive()
    await served.world.propose(PutTask(task_on(node)))
    assert (await end.expect(FullAssignment)).sequence == index + 1
    await end.channel.close(CloseCode.NORMAL, "")


async def test_nonsense_ends_the_session(served: Served) -> None:
    node = await served.new_node()
    status = StatusReport(TaskId("t1"), TaskStatus(TaskState.RUNNING, NOW))
    cases: list[list[bytes]] = [
        [b"junk"],
        [encode(Heartbeat(1))],
        [encode(Hello(REGISTRATION)), b"junk"],
        [encode(Hello(REGISTRATION)), encode(Hello(REGISTRATION))],
        [encode(Hello(REGISTRATION)), *[encode(StatusBatch(1, (status,)))] * 2],
    ]
    served.has_quorum = False
    for messages in cases:
        channel = served.connect(node)
        for data in messages:
            await channel.send(data)
        assert (await NodeEnd(channel).ended()).code == CloseCode.MALFORMED
    assert served.server.stats().malformed == 2


async def test_an_answer_to_no_log_request_is_ignored(served: Served) -> None:
    node = await served.new_node()
    end = await served.session(node)
    await end.send(LogEnd(99))
    await end.send(Heartbeat(1))
    await end.expect(HeartbeatAck)
    await end.channel.close(CloseCode.NORMAL, "")


async def test_stopping_says_goodbye(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        end = await served.session(await served.new_node())
    assert (await end.ended()).code == CloseCode.GOING_AWAY


async def test_many_changes_become_few_differences(served: Served) -> None:
    node = await served.new_node()
    end = await served.session(node)
    await end.expect(FullAssignment)
    for number in range(300):
        await served.world.propose(PutTask(task_on(node, number)))
    tasks: set[TaskId] = set()
    messages = 0
    while len(tasks) < 300:
        diff = await end.expect(AssignmentDiff)
        tasks |= diff.changed.tasks.keys()
        messages += 1
    assert messages <= 10
    assert served.server.stats().sessions == 1
    await end.channel.close(CloseCode.NORMAL, "")
