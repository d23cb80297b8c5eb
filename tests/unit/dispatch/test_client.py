"""The node's side of sessions, against scripted managers over channels in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random

from cluster.dispatch.channel import ChannelClosed, CloseCode
from cluster.dispatch.client import ClientTiming, SessionClient
from cluster.dispatch.conversation import SessionTiming
from cluster.dispatch.messages import (
    FullAssignment,
    Heartbeat,
    HeartbeatAck,
    Hello,
    ManagerAddress,
    ManagerMessage,
    NodeMessage,
    StatusAck,
    StatusBatch,
    StatusReport,
    Welcome,
    decode_from_node_untrusted,
    encode,
)
from cluster.model.assignment import Assignment, ClusterInfo, NodeInfo
from cluster.model.errors import Unavailable
from cluster.model.ids import ClusterId, NodeId, TaskId
from cluster.model.node import NodeState, Role
from cluster.model.task import TaskState, TaskStatus
from tests.unit.dispatch.control_plane import REGISTRATION, RecordingAgent, wait_until
from tests.unit.dispatch.memory_channel import MemoryChannel, channel_pair

FAST = ClientTiming(
    SessionTiming(welcome_s=0.2, ack_s=0.05), backoff_s_min=0.001, backoff_s_max=0.01, settled_s=0
)
M1, M2 = ManagerAddress(NodeId("m1"), "one"), ManagerAddress(NodeId("m2"), "two")
RUNNING = TaskStatus(TaskState.RUNNING, 1.0)


def info_of(*managers: ManagerAddress) -> ClusterInfo:
    return ClusterInfo(
        ClusterId("c"),
        tuple(
            NodeInfo(m.node, 1, "h", Role.MANAGER, NodeState.READY, "::", 1, "::", m.address)
            for m in managers
        ),
        heartbeat_period_s=0.02,
    )


@dataclass
class ScriptedManager:
    """Answers as a manager would, and can be told to misbehave."""

    channel: MemoryChannel
    sequence: int = 1
    has_quorum: bool = True
    heard: list[NodeMessage] = field(default_factory=list[NodeMessage])

    async def send(self, message: ManagerMessage) -> None:
        await self.channel.send(encode(message))

    async def hear(self) -> NodeMessage:
        message = decode_from_node_untrusted(await self.channel.receive())
        self.heard.append(message)
        return message

    async def welcome(self, *managers: ManagerAddress) -> Hello:
        hello = await self.hear()
        assert isinstance(hello, Hello)
        await self.send(Welcome("s", 0.02))
        if hello.sequence > self.sequence:
            await self.channel.close(CloseCode.BEHIND, "behind")
            return hello
        await self.send(info_of(*managers))
        await self.send(FullAssignment(self.sequence, Assignment(), is_last=True))
        return hello

    async def serve(self, *managers: ManagerAddress) -> None:
        await self.welcome(*managers)
        while True:
            match await self.hear():
                case Heartbeat(number=number):
                    await self.send(HeartbeatAck(number))
                case StatusBatch(number=number) if self.has_quorum:
                    await self.send(StatusAck(number))
                case _:
                    pass

    def statuses(self) -> list[StatusReport]:
        return [r for m in self.heard if isinstance(m, StatusBatch) for r in m.statuses]


Behaviour = Callable[[ScriptedManager], Awaitable[object]]


@dataclass
class Network:
    """Managers that can be reached: name -> what they do with a session."""

    behaviours: dict[NodeId, Behaviour] = field(default_factory=dict[NodeId, Behaviour])
    sessions: list[tuple[NodeId, ScriptedManager]] = field(
        default_factory=list[tuple[NodeId, ScriptedManager]]
    )
    attempts: list[NodeId] = field(default_factory=list[NodeId])
    group: asyncio.TaskGroup | None = None

    async def connect(self, manager: ManagerAddress) -> MemoryChannel:
        self.attempts.append(manager.node)
        behaviour = self.behaviours.get(manager.node)
        if behaviour is None:
            raise Unavailable(f"{manager.address} is not there")
        ours, theirs = channel_pair()
        scripted = ScriptedManager(theirs)
        self.sessions.append((manager.node, scripted))
        assert self.group is not None
        self.group.create_task(_quietly(behaviour(scripted)))
        return ours


async def _quietly(work: Awaitable[object]) -> None:
    with suppress(ChannelClosed):
        await work


@asynccontextmanager
async def client_of(
    network: Network, *managers: ManagerAddress, timing: ClientTiming = FAST
) -> AsyncGenerator[tuple[SessionClient, RecordingAgent]]:
    agent = RecordingAgent()
    client = SessionClient(
        agent=agent,
        connect=network.connect,
        registration=lambda: REGISTRATION,
        managers=managers,
        rng=Random(4),
        timing=timing,
    )
    async with asyncio.TaskGroup() as group:
        network.group = group
        running = group.create_task(client.run())
        yield client, agent
        running.cancel()
        await asyncio.wait({running})
        for _, scripted in network.sessions:
            await scripted.channel.close(CloseCode.NORMAL, "")


async def test_it_is_told_and_stays() -> None:
    network = Network({M1.node: lambda m: m.serve(M1, M2)})
    async with client_of(network, M1) as (client, agent):
        await wait_until(lambda: len(agent.assignments) == 1)
        assert client.managers == (M1, M2)
        assert client.stats().manager == M1.node
        assert agent.infos[0].cluster == "c"
        manager = network.sessions[0][1]
        await wait_until(lambda: sum(isinstance(m, Heartbeat) for m in manager.heard) > 3)
        assert network.attempts == [M1.node]
    assert manager.heard[0] == Hello(REGISTRATION, 0)


async def test_a_manager_that_is_gone_is_replaced_at_once() -> None:
    network = Network({M1.node: lambda m: m.serve(M1, M2), M2.node: lambda m: m.serve(M1, M2)})
    slow = ClientTiming(FAST.session, backoff_s_min=60.0, settled_s=0)
    async with client_of(network, M1, timing=slow) as (client, agent):
        await wait_until(lambda: len(agent.assignments) == 1)
        await network.sessions[0][1].channel.close(CloseCode.GOING_AWAY, "bye")
        await wait_until(lambda: client.stats().manager == M2.node)
        assert network.attempts == [M1.node, M2.node]
        assert client.stats().last_error == "bye"


async def test_a_manager_without_power_is_noticed_by_its_silence() -> None:
    network = Network({M1.node: lambda m: m.serve(M1, M2), M2.node: lambda m: m.serve(M1, M2)})
    async with client_of(network, M1) as (client, agent):
        await wait_until(lambda: len(agent.assignments) == 1)
        network.sessions[0][1].channel.is_lost = True
        await wait_until(lambda: client.stats().manager == M2.node)
        assert "no answer to a heartbeat" in client.stats().last_error


async def test_silence_from_the_start_is_noticed_too() -> None:
    network = Network({M1.node: lambda m: m.hear(), M2.node: lambda m: m.serve(M1, M2)})
    quick = ClientTiming(SessionTiming(welcome_s=0.05, ack_s=1), 0.001, 0.01, 0)
    async with client_of(network, M1, M2, timing=quick) as (client, _):
        await wait_until(lambda: client.stats().manager == M2.node)


async def test_it_waits_only_when_all_have_failed() -> None:
    network = Network()
    async with client_of(network, M1, M2) as (_, agent):
        await wait_until(lambda: len(network.attempts) >= 6)
        assert {*network.attempts[:2]} == {*network.attempts[2:4]} == {M1.node, M2.node}
        network.behaviours[M2.node] = lambda m: m.serve(M1, M2)
        await wait_until(lambda: len(agent.assignments) == 1)


async def test_malformed_managers_are_left() -> None:
    async def babble(manager: ScriptedManager) -> None:
        await manager.channel.send(b"\x00")

    async def rush(manager: ScriptedManager) -> None:
        await manager.hear()
        await manager.send(StatusAck(1))

    network = Network({M1.node: babble, M2.node: rush})
    async with client_of(network, M1, M2) as (client, _):
        await wait_until(lambda: client.stats().failures > 3)
        network.behaviours[M1.node] = lambda m: m.serve(M1)
        await wait_until(lambda: client.stats().manager == M1.node)


async def test_a_new_ring_does_not_wait_for_the_next_heartbeat() -> None:
    async def patient(manager: ScriptedManager) -> None:
        await manager.hear()
        await manager.send(Welcome("s", 3600.0))
        while isinstance(message := await manager.hear(), Heartbeat):
            await manager.send(HeartbeatAck(message.number))

    network = Network({M1.node: patient})
    async with client_of(network, M1) as (client, _):
        client.hold_ring(b"one")
        await wait_until(lambda: bool(network.sessions))
        manager = network.sessions[0][1]
        await wait_until(lambda: Heartbeat(1, b"one") in manager.heard)
        client.hold_ring(b"two")
        await wait_until(lambda: Heartbeat(2, b"two") in manager.heard)
        client.hold_ring(b"two")
        client.ask_for_ring()
        await wait_until(lambda: Heartbeat(3, b"two") in manager.heard)
        await asyncio.sleep(2 * FAST.session.ack_s)
        assert len(manager.heard) == 4


async def test_statuses_without_acknowledgement_are_sent_again_elsewhere() -> None:
    async def without_quorum(manager: ScriptedManager) -> None:
        manager.has_quorum = False
        await manager.serve(M1, M2)

    network = Network({M1.node: without_quorum, M2.node: lambda m: m.serve(M1, M2)})
    async with client_of(network, M1) as (client, _):
        client.report({TaskId("t1"): RUNNING})
        await wait_until(lambda: bool(network.sessions and network.sessions[0][1].statuses()))
        client.report({TaskId("t2"): RUNNING})
        assert client.stats().statuses_waiting == 2
        first = network.sessions[0][1]
        await first.channel.close(CloseCode.GOING_AWAY, "")
        await wait_until(lambda: client.stats().statuses_waiting == 0)
    assert first.statuses() == [StatusReport(TaskId("t1"), RUNNING)]
    assert {r.task for r in network.sessions[1][1].statuses()} == {"t1", "t2"}


async def test_only_the_latest_status_waits() -> None:
    network = Network({M1.node: lambda m: m.serve(M1)})
    async with client_of(network, M1) as (client, _):
        client.report({TaskId("t1"): TaskStatus(TaskState.STARTING, 1.0)})
        client.report({TaskId("t1"): RUNNING})
        client.report({TaskId(f"x{n}"): RUNNING for n in range(150)})
        await wait_until(lambda: client.stats().statuses_waiting == 0)
    reports = network.sessions[0][1].statuses()
    assert [r.status for r in reports if r.task == "t1"] == [RUNNING]
    assert len(reports) == 151


async def test_it_does_not_go_back_in_time_unless_all_managers_do() -> None:
    def at(sequence: int) -> Behaviour:
        async def serve(manager: ScriptedManager) -> None:
            manager.sequence = sequence
            await manager.serve(M1, M2)

        return serve

    network = Network({M1.node: at(10), M2.node: at(4)})
    async with client_of(network, M1) as (client, agent):
        await wait_until(lambda: len(agent.assignments) == 1)
        await network.sessions[0][1].channel.close(CloseCode.GOING_AWAY, "")
        await wait_until(lambda: client.stats().manager == M1.node and len(network.sessions) > 2)
        hellos = [s.heard[0] for _, s in network.sessions if s.heard]
        assert hellos[1] == Hello(REGISTRATION, 10)
        # The cluster was restored from a backup: now nobody knows state 10.
        network.behaviours = {M1.node: at(3), M2.node: at(3)}
        await network.sessions[-1][1].channel.close(CloseCode.GOING_AWAY, "")
        before = len(agent.assignments)
        await wait_until(lambda: len(agent.assignments) > before)
        assert network.sessions[-1][1].heard[0] == Hello(REGISTRATION, 0)


async def test_a_slow_agent_does_not_cost_the_session() -> None:
    network = Network({M1.node: lambda m: m.serve(M1)})
    release = asyncio.Event()

    class SlowAgent(RecordingAgent):
        async def informed(self, info: ClusterInfo) -> None:
            await super().informed(info)
            await release.wait()

    agent = SlowAgent()
    client = SessionClient(
        agent=agent,
        connect=network.connect,
        registration=lambda: REGISTRATION,
        managers=[M1],
        rng=Random(1),
        timing=FAST,
    )
    async with asyncio.TaskGroup() as group:
        network.group = group
        running = group.create_task(client.run())
        await wait_until(lambda: len(agent.infos) == 1)
        manager = network.sessions[0][1]
        await manager.send(FullAssignment(2, Assignment(), is_last=True))
        await wait_until(lambda: sum(isinstance(m, Heartbeat) for m in manager.heard) > 8)
        assert agent.assignments == []
        release.set()
        await wait_until(lambda: len(agent.assignments) == 1)
        assert network.attempts == [M1.node]
        running.cancel()
        await asyncio.wait({running})
        await manager.channel.close(CloseCode.NORMAL, "")
