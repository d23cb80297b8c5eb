"""Whole managers over loopback TLS: what the rest of the cluster relies on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from pathlib import Path

import pytest

from cluster.consensus.config import COMMAND_BYTES_MAX, RaftConfig
from cluster.consensus.errors import StorageFailure
from cluster.consensus.files import AppendFile, DiskDirectory
from cluster.consensus.founding import Bootstrap, Join
from cluster.model.errors import FailedPrecondition, Invalid, Unavailable
from tests.unit.consensus.managers import Cluster, Manager, running, until


class FaultyDirectory(DiskDirectory):
    """A disk that can become full, or let whoever syncs wait."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.is_full = False
        self.answers = threading.Event()
        self.answers.set()

    def create(self, name: str, *, room_bytes: int = 0) -> AppendFile:  # type: ignore[override]
        return _FaultyFile(self, super().create(name, room_bytes=room_bytes))


class _FaultyFile:
    def __init__(self, directory: FaultyDirectory, file: AppendFile) -> None:
        self._directory = directory
        self._file = file
        self.close = file.close

    def append(self, data: bytes) -> None:
        if self._directory.is_full:
            raise StorageFailure("cannot write: no space left on device")
        self._file.append(data)

    def sync(self) -> None:
        assert self._directory.answers.wait(20)
        self._file.sync()


def names(cluster: Cluster, *, leader: bool) -> list[str]:
    return [name for name, m in cluster.running.items() if m.node.is_leader is leader]


async def _unavailable(work: Awaitable[object]) -> None:
    with pytest.raises(Unavailable):
        await work


async def one_leader(cluster: Cluster) -> Manager:
    await until(lambda: len(names(cluster, leader=True)) == 1)
    return cluster.leader()


async def test_one_manager_alone(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as (cluster, group):
        node = cluster.running["n0"].node

        assert await node.propose(b"a") == b"1"
        await node.read_barrier()
        await cluster.stop("n0")
        await cluster.start(group, "n0", None)

        assert await cluster.running["n0"].node.propose(b"b") == b"2"
        assert cluster.running["n0"].machine.applied == [b"a", b"b"]


async def test_three_managers_agree_whoever_is_asked(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as (cluster, _):
        managers = list(cluster.running.values())

        answers = await asyncio.gather(
            *(m.node.propose(b"%d" % i) for i in range(30) for m in [managers[i % 3]])
        )

        assert {int(a) for a in answers} == set(range(1, 31))
        for manager in managers:
            await manager.node.read_barrier()
            assert manager.machine.applied == managers[0].machine.applied
            assert manager.node.members() == cluster.addresses
            assert manager.node.is_member


async def test_propose_returns_when_it_is_applied_here(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as (cluster, _):
        await one_leader(cluster)
        follower = cluster.running[names(cluster, leader=False)[0]]

        await follower.node.propose(b"mine")

        assert follower.machine.applied == [b"mine"]


async def test_commands_apply_once_across_a_leader_kill(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as (cluster, group):
        leader = await one_leader(cluster)
        name = names(cluster, leader=True)[0]
        others = [m for m in cluster.running.values() if m is not leader]
        expected = {b"%d" % i for i in range(60)}
        async with asyncio.TaskGroup() as proposals:
            for i in range(60):
                proposals.create_task(others[i % 2].node.propose(b"%d" % i))
                if i == 30:
                    await asyncio.sleep(0)
                    await cluster.stop(name)

        await cluster.start(group, name, None)
        for manager in cluster.running.values():
            await manager.node.read_barrier()
            assert len(manager.machine.applied) == 60
            assert set(manager.machine.applied) == expected


async def test_full_disk_stops_the_leader_and_another_takes_over(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    disk = FaultyDirectory(tmp_path / "full")
    failure = asyncio.get_running_loop().create_future()

    async def outlive(manager: Manager) -> None:
        with pytest.raises(StorageFailure) as raised:
            await manager.node.run()
        failure.set_result(raised.value)

    async with asyncio.TaskGroup() as group:
        first = await cluster.start(group, "n0", Bootstrap(), directory=disk, run=outlive)
        for name in ("n1", "n2"):
            joiner = await cluster.start(group, name, Join(dict(cluster.addresses)))
            await first.node.add_member(name, joiner.address)
        assert first.node.is_leader

        disk.is_full = True
        other = cluster.running["n1"].node
        assert await other.propose(b"after") == b"1"

        assert "no space left" in str(await failure)
        assert first.machine.applied == []
        with pytest.raises(Unavailable):
            await first.node.propose(b"x")
        for name in list(cluster.running):
            await cluster.stop(name)


async def test_nothing_else_waits_for_a_disk_that_stalls(tmp_path: Path) -> None:
    disk = FaultyDirectory(tmp_path / "slow")
    cluster = Cluster(tmp_path)
    async with asyncio.TaskGroup() as group:
        node = (await cluster.start(group, "n0", Bootstrap(), directory=disk)).node
        assert await node.propose(b"before") == b"1"
        disk.answers.clear()
        proposals = [group.create_task(node.propose(b"%d" % i)) for i in range(3)]

        await until(lambda: node.disk_wait_s > 0.05)  # the loop goes on
        assert not any(proposal.done() for proposal in proposals)
        assert cluster.running["n0"].machine.applied == [b"before"]

        disk.answers.set()
        assert {await proposal for proposal in proposals} == {b"2", b"3", b"4"}
        await until(lambda: node.disk_wait_s == 0.0)
        await cluster.stop("n0")


async def test_a_follower_whose_disk_stalls_catches_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.consensus.driver.WAITING_MAX", 4)
    disk = FaultyDirectory(tmp_path / "slow")
    cluster = Cluster(tmp_path)
    async with asyncio.TaskGroup() as group:
        first = (await cluster.start(group, "n0", Bootstrap())).node
        for name, directory in (("n1", tmp_path / "n1"), ("n2", disk)):
            founding = Join(dict(cluster.addresses))
            joiner = await cluster.start(group, name, founding, directory=directory)
            await first.add_member(name, joiner.address)
        await first.propose(b"before")
        slow = cluster.running["n2"]
        await until(lambda: slow.machine.applied == [b"before"])
        disk.answers.clear()

        for i in range(30):
            await first.propose(b"%d" % i)  # with the other follower
        await until(lambda: slow.node.disk_wait_s > 0.3)
        assert first.is_leader
        assert slow.machine.applied == [b"before"]

        disk.answers.set()
        await until(lambda: slow.machine.applied == cluster.running["n0"].machine.applied)
        assert len(slow.machine.applied) == 31
        for name in list(cluster.running):
            await cluster.stop(name)


async def test_a_manager_is_stopped_while_its_disk_stalls(tmp_path: Path) -> None:
    disk = FaultyDirectory(tmp_path / "slow")
    cluster = Cluster(tmp_path)
    async with asyncio.TaskGroup() as group:
        node = (await cluster.start(group, "n0", Bootstrap(), directory=disk)).node
        await node.propose(b"before")
        disk.answers.clear()
        proposal = group.create_task(_unavailable(node.propose(b"late")))
        await until(lambda: node.disk_wait_s > 0.0)
        threading.Timer(0.1, disk.answers.set).start()

        await cluster.stop("n0")  # waits, too: the file must not be closed under the write
        await proposal
        again = await cluster.start(group, "n0", None, directory=tmp_path / "slow")
        assert await again.node.propose(b"after") == b"3"
        assert again.machine.applied == [b"before", b"late", b"after"]
        await cluster.stop("n0")


async def test_no_majority_is_unavailable(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as (cluster, _):
        leader = await one_leader(cluster)
        for name in names(cluster, leader=False):
            await cluster.stop(name)

        with pytest.raises(Unavailable, match="the outcome is unknown"):
            await leader.node.propose(b"x", timeout_s=0.1)
        with pytest.raises(Unavailable, match="nothing was read"):
            await leader.node.read_barrier(timeout_s=0.5)

        assert not leader.node.is_leader, "it has stepped down"
        assert leader.machine.applied == []


async def test_poison_command_is_an_error_and_the_cluster_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as (cluster, _):
        node = cluster.running["n1"].node

        with pytest.raises(Invalid, match="poison"):
            await node.propose(b"boom")

        assert await node.propose(b"fine") == b"1"


async def test_too_large_a_command_is_invalid(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as (cluster, _):
        node = cluster.running["n0"].node

        with pytest.raises(Invalid):
            await node.propose(bytes(COMMAND_BYTES_MAX + 1))
        assert await node.propose(bytes(COMMAND_BYTES_MAX)) == b"1"


async def test_growing_to_five_and_back(tmp_path: Path) -> None:
    async with running(tmp_path, 5) as (cluster, _):
        await cluster.running["n3"].node.propose(b"x")
        leader_name = names(cluster, leader=True)[0]
        asked = next(m for name, m in cluster.running.items() if name != leader_name)

        await asked.node.remove_member(leader_name)
        gone = {leader_name, next(n for n in names(cluster, leader=False) if n != leader_name)}
        survivor = next(m for name, m in cluster.running.items() if name not in gone)
        await survivor.node.remove_member(next(iter(gone - {leader_name})))
        await survivor.node.propose(b"y")

        assert survivor.node.members().keys() == cluster.running.keys() - gone
        await survivor.node.remove_member(leader_name)


@pytest.mark.parametrize("is_leader", [True, False])
async def test_manager_learns_at_once_that_it_removed_itself(
    tmp_path: Path, *, is_leader: bool
) -> None:
    async with running(tmp_path, 3) as (cluster, _):
        await one_leader(cluster)
        name = names(cluster, leader=is_leader)[0]
        leaving = cluster.running[name].node

        async with asyncio.timeout(3.0):  # a leader hands over first
            await leaving.remove_member(name, timeout_s=60.0)

        assert leaving.was_removed


async def test_removal_that_would_cost_the_majority_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as (cluster, _):
        leader = await one_leader(cluster)
        first, second = names(cluster, leader=False)
        await cluster.stop(first)
        await until(lambda: first not in leader.node.stats().mesh.sessions_out)
        await asyncio.sleep(cluster.config.election_timeout_s_max)

        with pytest.raises(FailedPrecondition, match="majority"):
            await leader.node.remove_member(second)
        await leader.node.remove_member(first)


async def test_joiner_that_does_not_answer_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.consensus.membership._JOINER_S", 0.2)
    async with running(tmp_path, 1) as (cluster, _):
        node = cluster.running["n0"].node

        with pytest.raises(FailedPrecondition, match="does not answer"):
            await node.add_member("n9", ("127.0.0.1", 9))

        assert node.members().keys() == {"n0"}


async def test_adding_a_member_again(tmp_path: Path) -> None:
    async with running(tmp_path, 2) as (cluster, _):
        node = cluster.running["n1"].node

        await node.add_member("n1", cluster.addresses["n1"])
        with pytest.raises(Invalid):
            await node.add_member("n1", ("127.0.0.1", 9))


async def test_emptied_disk_is_refused_and_a_new_one_may_join_after_removal(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, 3) as (cluster, group):
        node = cluster.running["n0"].node
        await node.propose(b"x")
        await cluster.stop("n2")
        emptied = await cluster.start(
            group, "n2", Join(dict(cluster.addresses)), directory=tmp_path / "new"
        )
        await until(lambda: node.stats().mesh.refused.get("OTHER_DISK", 0) > 0)
        assert not emptied.node.is_member
        await node.propose(b"y")

        await node.remove_member("n2")
        await node.add_member("n2", emptied.address)

        await until(lambda: emptied.machine.applied == [b"x", b"y"])
        await until(lambda: emptied.node.is_member)


async def test_manager_comes_back_at_another_port(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as (cluster, group):
        await cluster.stop("n1")
        moved = await cluster.start(group, "n1", None)

        await moved.node.propose(b"x")

        for manager in cluster.running.values():
            await until(lambda m=manager: m.node.members()["n1"] == moved.address)  # type: ignore[misc]


async def test_leadership_is_handed_over(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as (cluster, _):
        leader = await one_leader(cluster)
        target = names(cluster, leader=False)[0]
        with leader.node.watch_leadership() as changed:
            await cluster.running[target].node.transfer_leadership(target)

            await changed.wait()
        await until(lambda: leader.node.leader_id == target)
        with pytest.raises(Invalid):
            await leader.node.transfer_leadership("stranger")


async def test_leadership_that_anybody_may_take_is_not_handed_on(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as (cluster, _):
        leader = await one_leader(cluster)
        term = leader.node.term

        await leader.node.transfer_leadership()

        assert not leader.node.is_leader
        await leader.node.propose(b"x")
        assert not leader.node.is_leader
        assert leader.node.term == term + 1


async def test_snapshots_bring_up_a_joiner(tmp_path: Path) -> None:
    config = RaftConfig(
        election_timeout_s_min=0.1,
        election_timeout_s_max=0.25,
        heartbeat_s=0.03,
        snapshot_entries=20,
        trailing_entries=5,
        chunk_bytes=100,
    )
    async with running(tmp_path, 1, config=config) as (cluster, group):
        first = cluster.running["n0"].node
        for i in range(100):
            await first.propose(b"%d" % i)
        await until(lambda: first.stats().core.snapshot_index >= 80)

        joiner = await cluster.start(group, "n1", Join(dict(cluster.addresses)))
        await first.add_member("n1", joiner.address)

        await until(lambda: len(joiner.machine.applied) == 100)
        assert joiner.node.stats().core.snapshots_installed >= 1
        assert first.stats().core.log_entries < 50


async def test_idle_managers_hardly_tick(tmp_path: Path) -> None:
    async with running(tmp_path, 3, config=RaftConfig()) as (cluster, _):
        await cluster.running["n0"].node.propose(b"x")
        before = {n: m.node.stats().core for n, m in cluster.running.items()}
        await asyncio.sleep(0.5)
        for name, manager in cluster.running.items():
            after = manager.node.stats().core
            assert after.ticks - before[name].ticks <= 30, "heartbeats are 5 in this time"
            assert after.syncs - before[name].syncs <= 1
            assert after.term == before[name].term


async def test_stopped_manager_is_unavailable(tmp_path: Path) -> None:
    async with running(tmp_path, 2) as (cluster, _):
        node = cluster.running["n0"].node
        await node.propose(b"x")
        await cluster.stop("n1")
        async with asyncio.TaskGroup() as waiting:
            propose = waiting.create_task(_unavailable(node.propose(b"y")))
            await asyncio.sleep(0)
            await cluster.stop("n0")

        assert propose.done()
        await _unavailable(node.propose(b"z"))


async def test_bootstrap_and_join_want_an_empty_directory(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as (cluster, group):
        await cluster.stop("n0")
        for founding in (Bootstrap(), Join({})):
            with pytest.raises(Invalid):
                await cluster.start(group, "n0", founding)
        with pytest.raises(StorageFailure):
            await cluster.start(group, "n1", None)
        with pytest.raises(StorageFailure, match="not of n1"):
            await cluster.start(group, "n1", None, directory=tmp_path / "n0")
