"""The worker: tasks come, run, drain and go; daemons, managers and drivers fail."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from cluster.agent.applied import APPLIED_KEY, encode_applied
from cluster.agent.state_file import StateFile
from cluster.allocation.records import INGRESS_SCOPE, Phase, decode_untrusted
from cluster.model.assignment import Assignment
from cluster.model.service import EndpointMode
from cluster.model.task import TaskState
from cluster.private_file import next_of
from dataplane.plan import NodePlan, Protocol
from gossip.wire import State
from tests.unit.agent.bench import Bench, wait_until
from tests.unit.agent.objects import (
    NET,
    VIP,
    A,
    B,
    C,
    assignment,
    desire,
    info,
    published,
    record,
    service,
    signed,
    task,
)
from tests.unit.virtual_time import virtual

ONE, TWO = task(1), task(2)
ONE_ADDRESS = IPv4Address("10.0.1.11")
S = TaskState
LIFE = [S.ACCEPTED, S.PREPARING, S.READY, S.STARTING, S.RUNNING]


def phase_of(bench: Bench, scope: str = NET) -> Phase | None:
    value = bench.ether.said_by(A, scope).get(ONE.id)
    return None if value is None else decode_untrusted(value).phase


def backends(bench: Bench) -> list[IPv4Address]:
    networks = bench.driver.plan.networks
    return [b for network in networks for service in network.services for b in service.backends]


@virtual
async def test_task_runs_only_after_its_sandbox_exists(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE))
        bench.driver.delay_s = 0.5
        await wait_until(lambda: S.PREPARING in bench.states(ONE.id))
        await asyncio.sleep(0.4)
        assert S.READY not in bench.states(ONE.id)
        await wait_until(lambda: S.RUNNING in bench.states(ONE.id))

        assert bench.states(ONE.id) == LIFE
        assert bench.driver.has_sandbox(ONE.id)
        assert bench.named[0] == bench.driver.plans[0]
        assert phase_of(bench) is Phase.SERVING
        assert bench.status(ONE.id).pid > 0


@virtual
async def test_facts_count_as_remembered_once_they_are_on_the_disk(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    state = StateFile(tmp_path / "worker")
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        await wait_until(lambda: bench.remembered == [info()])
        assert state.load().info == info()
        later = replace(info(), data_path_port=4790)
        in_the_way = next_of(tmp_path / "worker" / "state")
        in_the_way.mkdir()
        worker.set_cluster_info(later)
        await asyncio.sleep(5)
        assert later not in bench.remembered
        in_the_way.rmdir()
        await wait_until(lambda: later in bench.remembered)
        assert state.load().info == later
        bench.remembered.clear()
        worker.set_cluster_info(later)  # told again, and nothing to save
        await wait_until(lambda: bench.remembered == [later])


@virtual
async def test_exit_is_reported_and_withdrawn_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE))
        await wait_until(lambda: phase_of(bench) is Phase.SERVING)
        bench.runtime.finish(ONE.id, 3, "oops")
        took_s = await wait_until(lambda: phase_of(bench) is None)
        assert took_s < 0.005
        await wait_until(lambda: not bench.driver.has_sandbox(ONE.id))

    status = bench.status(ONE.id)
    assert (status.state, status.exit_code) == (S.FAILED, 3)
    assert status.error == "task: non-zero exit (3): oops"


@virtual
async def test_task_that_completes(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(task(1, command=("true",))))
        await wait_until(lambda: S.COMPLETE in bench.states(ONE.id))
    assert bench.states(ONE.id) == [*LIFE, S.COMPLETE]


@virtual
async def test_task_that_cannot_run_is_rejected(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(task(1, command=("nonsense",)), task(2)))
        await wait_until(lambda: S.RUNNING in bench.states(task(2).id))
        await wait_until(lambda: not bench.driver.has_sandbox(ONE.id))
    status = bench.status(ONE.id)
    assert status.state is S.REJECTED
    assert "executable file not found" in status.error


@virtual
async def test_thirty_tasks_share_few_plans(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    tasks = [task(n) for n in range(1, 31)]
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(*tasks))
        took_s = await wait_until(
            lambda: (
                worker.stats().tasks.get(S.RUNNING) == len(tasks)
                and len(backends(bench)) == len(tasks)
            )
        )
    assert took_s < 0.5
    assert len(bench.driver.plans) <= 6


@virtual
async def test_drain_waits_for_every_node_that_is_attached(tmp_path: Path) -> None:
    bench = Bench(tmp_path, B, C)
    bench.ether.say(B, NET, APPLIED_KEY, encode_applied([]))
    tasks = assignment(ONE)
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(tasks)
        await wait_until(lambda: phase_of(bench) is Phase.SERVING)
        worker.set_assignment(desire(tasks, S.SHUTDOWN, 1))
        await wait_until(lambda: phase_of(bench) is Phase.DRAINING)
        await asyncio.sleep(0.5)
        assert bench.driver.connect(IPv4Address(VIP)) is None
        assert bench.driver.has_sandbox(ONE.id)
        assert S.SHUTDOWN not in bench.states(ONE.id)

        bench.ether.say(B, NET, APPLIED_KEY, encode_applied([ONE.id]))
        took_s = await wait_until(lambda: S.SHUTDOWN in bench.states(ONE.id))
        assert took_s < 0.2
        assert phase_of(bench) is None
        await wait_until(lambda: not bench.driver.has_sandbox(ONE.id))
        assert (worker.stats().drains, worker.stats().drains_timed_out) == (1, 0)
        assert bench.status(ONE.id).exit_code == 128 + 15


@virtual
async def test_drain_does_not_wait_for_ever(tmp_path: Path) -> None:
    bench = Bench(tmp_path, B)
    bench.ether.say(B, NET, APPLIED_KEY, encode_applied([]))
    tasks = assignment(ONE)
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(tasks)
        await wait_until(lambda: phase_of(bench) is Phase.SERVING)
        worker.set_assignment(desire(tasks, S.SHUTDOWN, 1))
        took_s = await wait_until(lambda: S.SHUTDOWN in bench.states(ONE.id))
        assert 2.0 <= took_s < 2.3
        assert worker.stats().drains_timed_out == 1


@virtual
async def test_drain_does_not_wait_for_the_dead(tmp_path: Path) -> None:
    bench = Bench(tmp_path, B)
    bench.ether.say(B, NET, APPLIED_KEY, encode_applied([]))
    tasks = assignment(ONE)
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(tasks)
        await wait_until(lambda: phase_of(bench) is Phase.SERVING)
        worker.set_assignment(desire(tasks, S.SHUTDOWN, 1))
        await asyncio.sleep(0.3)
        bench.ether.set_state(B, State.DEAD)
        took_s = await wait_until(lambda: S.SHUTDOWN in bench.states(ONE.id))
        assert took_s < 0.2


@virtual
@pytest.mark.parametrize("fate", [State.DEAD, State.ALIVE])
async def test_drain_waits_until_a_suspect_is_dead_or_back(tmp_path: Path, fate: State) -> None:
    """Its daemon may be on its way back, and its kernel forwards meanwhile as it was told last."""
    bench = Bench(tmp_path, B)
    bench.ether.say(B, NET, APPLIED_KEY, encode_applied([]))
    tasks = assignment(ONE)
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(tasks)
        await wait_until(lambda: phase_of(bench) is Phase.SERVING)
        worker.set_assignment(desire(tasks, S.SHUTDOWN, 1))
        await asyncio.sleep(0.3)
        bench.ether.set_state(B, State.SUSPECT)
        await asyncio.sleep(3.0)
        assert phase_of(bench) is Phase.DRAINING
        assert S.SHUTDOWN not in bench.states(ONE.id)
        bench.ether.set_state(B, fate)
        if fate is State.ALIVE:
            bench.ether.say(B, NET, APPLIED_KEY, None)  # its new daemon has yet to be heard
            await asyncio.sleep(0.5)
            assert S.SHUTDOWN not in bench.states(ONE.id)
            bench.ether.say(B, NET, APPLIED_KEY, encode_applied([ONE.id]))
        took_s = await wait_until(lambda: S.SHUTDOWN in bench.states(ONE.id))
        assert took_s < 0.2
        assert worker.stats().drains_timed_out == 0


@virtual
async def test_drain_does_not_wait_for_ever_for_a_suspect(tmp_path: Path) -> None:
    bench = Bench(tmp_path, B)
    bench.ether.say(B, NET, APPLIED_KEY, encode_applied([]))
    bench.ether.set_state(B, State.SUSPECT)
    tasks = assignment(ONE)
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(tasks)
        await wait_until(lambda: phase_of(bench) is Phase.SERVING)
        worker.set_assignment(desire(tasks, S.SHUTDOWN, 1))
        took_s = await wait_until(lambda: S.SHUTDOWN in bench.states(ONE.id))
        assert 6.0 <= took_s < 6.3
        assert worker.stats().drains_timed_out == 1


@virtual
async def test_drain_of_a_published_port_waits_for_nodes_without_the_network(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, B)
    bench.ether.say(B, INGRESS_SCOPE, APPLIED_KEY, encode_applied([]))
    tasks = assignment(ONE, services=(service(EndpointMode.VIP, published()),))
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(tasks)
        await wait_until(lambda: bench.driver.connect_port(Protocol.TCP, 8080))
        worker.set_assignment(desire(tasks, S.SHUTDOWN, 1))
        await asyncio.sleep(0.5)
        assert S.SHUTDOWN not in bench.states(ONE.id)
        assert bench.driver.connect_port(Protocol.TCP, 8080) is None
        bench.ether.say(B, INGRESS_SCOPE, APPLIED_KEY, encode_applied([ONE.id]))
        await wait_until(lambda: S.SHUTDOWN in bench.states(ONE.id))


@virtual
async def test_node_says_which_draining_tasks_its_plan_avoids(tmp_path: Path) -> None:
    bench = Bench(tmp_path, B)
    two = record(2)
    bench.ether.say(B, NET, two.task, signed(B, two))
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE))
        await wait_until(lambda: len(backends(bench)) == 2)

        bench.driver.delay_s = 0.1
        bench.ether.say(B, NET, two.task, signed(B, replace(two, phase=Phase.DRAINING)))
        await asyncio.sleep(0.05)
        assert bench.ether.said_by(A, NET)[APPLIED_KEY] == encode_applied([])
        await asyncio.sleep(0.1)
        assert bench.ether.said_by(A, NET)[APPLIED_KEY] == encode_applied([two.task])
        assert bench.driver.connect(IPv4Address(VIP)) == IPv4Address("10.0.1.11")
        assert [r.address for r in bench.driver.plan.networks[0].remotes] == [two.address]

        bench.ether.say(B, NET, two.task, None)
        await wait_until(lambda: bench.ether.said_by(A, NET)[APPLIED_KEY] == encode_applied([]))
        assert bench.driver.plan.networks[0].remotes == ()


@virtual
async def test_process_that_ends_while_it_drains(tmp_path: Path) -> None:
    bench = Bench(tmp_path, B)
    bench.ether.say(B, NET, APPLIED_KEY, encode_applied([]))
    tasks = assignment(ONE)
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(tasks)
        await wait_until(lambda: phase_of(bench) is Phase.SERVING)
        worker.set_assignment(desire(tasks, S.SHUTDOWN, 1))
        await asyncio.sleep(0.5)
        bench.runtime.finish(ONE.id, 0)
        took_s = await wait_until(lambda: S.SHUTDOWN in bench.states(ONE.id))
        assert took_s < 0.01


@virtual
async def test_deleted_task_is_drained_then_removed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE))
        await wait_until(lambda: phase_of(bench) is Phase.SERVING)
        worker.set_assignment(Assignment())
        await wait_until(lambda: phase_of(bench) is Phase.DRAINING)
        assert bench.driver.has_sandbox(ONE.id)
        await wait_until(lambda: not worker.statuses())
        assert await bench.runtime.adopt() == []
        await wait_until(lambda: not bench.driver.plan.sandboxes)
        assert bench.peer.scopes == {INGRESS_SCOPE}


@virtual
async def test_failing_driver_is_reported_and_tried_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.driver.failure = "no such device"
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE))
        await asyncio.sleep(2.0)
        status = bench.status(ONE.id)
        assert status.state is S.PREPARING
        assert "no such device" in status.error
        assert worker.stats().plan.failures >= 3

        bench.driver.failure = ""
        await wait_until(lambda: S.RUNNING in bench.states(ONE.id))
        assert bench.status(ONE.id).error == ""


@virtual
async def test_broken_sandbox_fails_its_own_task_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.driver.obstacles = {ONE.id: "no room for another cable"}
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE, TWO))
        took_s = await wait_until(lambda: S.RUNNING in bench.states(TWO.id))
        assert took_s < 0.5
        await wait_until(lambda: "no room" in bench.status(ONE.id).error)
        assert bench.status(ONE.id).state is S.PREPARING
        took_s = await wait_until(lambda: S.REJECTED in bench.states(ONE.id))
        assert took_s < 5.0
        assert "the network cannot be made: no room for another cable" in bench.status(ONE.id).error
        assert bench.status(TWO.id).state is S.RUNNING
        await wait_until(lambda: worker.stats().plan.broken == 0)


@virtual
async def test_sandbox_that_is_mended_in_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.driver.obstacles = {ONE.id: "not yet"}
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE))
        await wait_until(lambda: worker.stats().plan.broken == 1)
        bench.driver.obstacles = {}
        await wait_until(lambda: S.RUNNING in bench.states(ONE.id))
        assert bench.status(ONE.id).error == ""


@virtual
async def test_running_task_whose_sandbox_breaks_goes_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE))
        await wait_until(lambda: S.RUNNING in bench.states(ONE.id))
        bench.driver.obstacles = {ONE.id: "its namespace is gone"}
        worker.set_assignment(assignment(ONE, TWO))
        await wait_until(lambda: S.RUNNING in bench.states(TWO.id))
        await asyncio.sleep(120.0)
        assert bench.status(ONE.id).state is S.RUNNING
        assert worker.stats().plan.broken == 1
        assert worker.stats().plan.failures < 20  # ever more seldom


@virtual
async def test_running_tasks_survive_the_daemon(tmp_path: Path) -> None:
    bench = Bench(tmp_path, B)
    two = record(2)
    bench.ether.say(B, NET, two.task, signed(B, two))
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE))
        await wait_until(lambda: phase_of(bench) is Phase.SERVING)
        await wait_until(lambda: len(backends(bench)) == 2)
    plan = bench.driver.plan
    bench.driver.plans.clear()
    bench.reports.clear()
    bench.ether.records.pop((NET, A))
    bench.ether.set_state(B, None)

    async with bench.worker() as worker:
        # No manager, and gossip knows nobody yet.
        await wait_until(lambda: bench.driver.plans)
        assert bench.driver.plans[0] == plan
        await wait_until(lambda: phase_of(bench) is Phase.SERVING)
        assert worker.stats().adopted == 1
        await asyncio.sleep(20)
        assert {p.networks for p in bench.driver.plans} == {plan.networks}
        bench.ether.set_state(B, State.ALIVE)
        await asyncio.sleep(20)
        assert {p.networks for p in bench.driver.plans} == {plan.networks}
        bench.runtime.finish(ONE.id, 0)
        await wait_until(lambda: S.COMPLETE in bench.states(ONE.id))


@virtual
async def test_first_plan_is_no_older_than_what_the_kernel_has(tmp_path: Path) -> None:
    """What changed since the state file was written is heard before anything is applied."""
    bench = Bench(tmp_path, B)
    two, three = record(2), record(3)
    bench.ether.say(B, NET, two.task, signed(B, two))
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE))
        await wait_until(lambda: len(backends(bench)) == 2)
        await asyncio.sleep(2)
    bench.driver.plans.clear()
    bench.named.clear()
    bench.ether.say(B, NET, two.task, None)
    bench.ether.say(B, NET, three.task, signed(B, three))
    bench.ether.set_state(B, None)
    async with bench.worker():
        await wait_until(lambda: phase_of(bench) is Phase.SERVING)
        assert bench.ether.said_by(A, NET)[APPLIED_KEY] == encode_applied([])
        await asyncio.sleep(0.5)
        assert bench.driver.plans == []
        assert bench.named[0].networks[0].names, "names are answered meanwhile, as remembered"
        bench.ether.partial.add((NET, B))  # the newest of its records come first
        bench.ether.set_state(B, State.ALIVE)
        await asyncio.sleep(0.5)
        assert bench.driver.plans == []
        bench.ether.partial.clear()
        bench.ether.wake()
        took_s = await wait_until(lambda: bench.driver.plans)
        assert took_s < 0.1
        assert backends(bench) == [ONE_ADDRESS, three.address]


@virtual
async def test_new_node_takes_what_is_known_of_an_owner_that_goes_on_writing(
    tmp_path: Path,
) -> None:
    """Nothing is remembered of it, so there is nothing that a part would cut off."""
    bench = Bench(tmp_path, B)
    two = record(2)
    bench.ether.say(B, NET, two.task, signed(B, two))
    bench.ether.partial.add((NET, B))
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE))
        took_s = await wait_until(lambda: bench.driver.plans and len(backends(bench)) == 2)
        assert took_s < 0.5


@virtual
async def test_task_that_was_started_just_before_the_daemon_was_killed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    state = tmp_path / "worker" / "state"
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE))
        await wait_until(lambda: S.RUNNING in bench.states(ONE.id))
        worker.set_assignment(assignment(ONE, TWO))
        await wait_until(lambda: worker.statuses()[TWO.id].state is S.RUNNING)
        on_disk = state.read_bytes()
    state.write_bytes(on_disk)  # a killed daemon writes nothing more
    bench.driver.plans.clear()
    async with bench.worker() as worker:
        await wait_until(lambda: bench.driver.plans)
        worker.set_assignment(assignment(ONE, TWO))
        await asyncio.sleep(5)
        sandboxes = [{s.id for s in plan.sandboxes} for plan in bench.driver.plans]
        assert sandboxes == [{ONE.id, TWO.id}] * len(sandboxes)


@virtual
async def test_task_does_not_start_before_the_disk_knows_of_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE))
        await wait_until(lambda: S.RUNNING in bench.states(ONE.id))
        in_the_way = next_of(tmp_path / "worker" / "state")
        in_the_way.mkdir()
        worker.set_assignment(assignment(ONE, TWO))
        await wait_until(lambda: "cannot remember" in worker.statuses()[TWO.id].error)
        await asyncio.sleep(5)
        assert bench.status(TWO.id).state is S.STARTING
        in_the_way.rmdir()
        await wait_until(lambda: worker.statuses()[TWO.id].state is S.RUNNING)
        assert bench.status(TWO.id).error == ""


@virtual
async def test_members_that_gossip_never_finds_are_forgotten(tmp_path: Path) -> None:
    bench = Bench(tmp_path, B)
    two = record(2)
    bench.ether.say(B, NET, two.task, signed(B, two))
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE))
        await wait_until(lambda: bench.driver.plan.networks)
        await wait_until(lambda: bench.driver.plan.networks[0].remotes)
    bench.ether.set_state(B, None)
    async with bench.worker():
        await asyncio.sleep(29)
        assert bench.driver.plan.networks[0].remotes
        await asyncio.sleep(2)
        assert bench.driver.plan.networks[0].remotes == ()


@virtual
async def test_task_that_ended_while_the_daemon_was_away(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE))
        await wait_until(lambda: phase_of(bench) is Phase.SERVING)
    bench.runtime.finish(ONE.id, 7)
    bench.ether.records.clear()
    async with bench.worker():
        await wait_until(lambda: S.FAILED in bench.states(ONE.id))
        await asyncio.sleep(0.1)
        assert phase_of(bench) is None
    assert bench.status(ONE.id).exit_code == 7


@virtual
async def test_restart_of_the_host(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE))
        await wait_until(lambda: phase_of(bench) is Phase.SERVING)
    after = Bench(tmp_path)
    async with after.worker():
        await wait_until(lambda: S.FAILED in after.states(ONE.id))
    assert after.status(ONE.id).exit_code == 137
    assert "gone" in after.status(ONE.id).error


@virtual
async def test_unknown_processes_are_stopped_only_on_a_managers_word(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE, task(2)))
        await wait_until(lambda: worker.stats().tasks.get(S.RUNNING) == 2)
    plans = len(bench.driver.plans)
    (tmp_path / "worker" / "state").write_bytes(b"garbage")

    async with bench.worker() as worker:
        await asyncio.sleep(60)
        worker.set_cluster_info(info())
        await asyncio.sleep(60)
        assert len(bench.driver.plans) == plans
        assert len(await bench.runtime.adopt()) == 2
        # The managers remember one of them: it goes on, as it was.
        running = task(1, state=S.RUNNING)
        worker.set_assignment(assignment(running))
        await wait_until(lambda: phase_of(bench) is Phase.SERVING)
        await wait_until(lambda: len(bench.driver.plan.sandboxes) == 1)
        assert S.FAILED not in bench.states(ONE.id)
        assert await bench.runtime.adopt() == [ONE.id]


@virtual
async def test_lost_report_is_repeated(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE))
        await wait_until(lambda: S.RUNNING in bench.states(ONE.id))
        bench.reports.clear()
        worker.set_assignment(assignment(ONE))
        assert bench.states(ONE.id) == [S.RUNNING]


@virtual
async def test_task_is_held_back_until_it_may_run(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    tasks = assignment(task(1, desired=S.READY))
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(tasks)
        await wait_until(lambda: S.READY in bench.states(ONE.id))
        await asyncio.sleep(5)
        assert bench.states(ONE.id)[-1] is S.READY
        assert phase_of(bench) is Phase.STARTING
        worker.set_assignment(desire(tasks, S.RUNNING, 1))
        await wait_until(lambda: S.RUNNING in bench.states(ONE.id))


@virtual
async def test_nodes_that_die_and_return(tmp_path: Path) -> None:
    bench = Bench(tmp_path, B)
    two = record(2)
    bench.ether.say(B, NET, two.task, signed(B, two))
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE))
        await wait_until(lambda: bench.driver.plan.networks and bench.driver.plan.peers)
        before = bench.driver.plan.networks[0].remotes
        assert before
        bench.ether.set_state(B, State.DEAD)
        await wait_until(lambda: not bench.driver.plan.networks[0].remotes)
        assert bench.driver.plan.peers == ()
        bench.ether.set_state(B, State.ALIVE)
        await wait_until(lambda: bench.driver.plan.networks[0].remotes == before)
        bench.ether.set_state(B, State.SUSPECT)
        await asyncio.sleep(1)
        assert bench.driver.plan.networks[0].remotes == before


@virtual
async def test_the_way_to_a_dead_daemons_node_stays_open_while_its_host_lives(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, B)
    bench.hosts_answer = True
    two = record(2)
    bench.ether.say(B, NET, two.task, signed(B, two))
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE))
        await wait_until(lambda: len(backends(bench)) == 2)
        bench.ether.set_state(B, State.DEAD)
        await wait_until(lambda: len(backends(bench)) == 1)
        await asyncio.sleep(60)
        assert [r.address for r in bench.driver.plan.networks[0].remotes] == [two.address]
        assert [p.index for p in bench.driver.plan.peers] == [2]
        bench.hosts_answer = False
        took_s = await wait_until(lambda: not bench.driver.plan.peers)
        assert took_s < 6.0
        assert bench.driver.plan.networks[0].remotes == ()
        bench.ether.set_state(B, State.ALIVE)
        await wait_until(lambda: len(backends(bench)) == 2)
        bench.hosts_answer = True
        bench.ether.set_state(B, State.DEAD)
        await asyncio.sleep(1)
        bench.ether.set_state(B, State.LEFT)
        took_s = await wait_until(lambda: not bench.driver.plan.peers)
        assert took_s < 0.1


@virtual
async def test_stubborn_task_is_killed_after_its_grace(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    stubborn = task(1, command=("sh", "-c", "trap '' TERM; sleep infinity"), stop_grace_s=3.0)
    tasks = assignment(stubborn)
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(tasks)
        await wait_until(lambda: phase_of(bench) is Phase.SERVING)
        worker.set_assignment(desire(tasks, S.SHUTDOWN, 1))
        took_s = await wait_until(lambda: S.SHUTDOWN in bench.states(ONE.id))
        assert 3.0 <= took_s < 3.3
        assert bench.status(ONE.id).exit_code == 137


@virtual
async def test_leave_leaves_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE, task(2)))
        await wait_until(lambda: worker.stats().tasks.get(S.RUNNING) == 2)
        await worker.leave()
        assert bench.driver.plan == NodePlan()
        assert await bench.runtime.adopt() == []


@virtual
async def test_a_leaving_node_takes_nothing_more(tmp_path: Path) -> None:
    # The managers, told of the stopped task, assign its successor to the same node.
    bench = Bench(tmp_path)
    async with bench.worker() as worker, asyncio.TaskGroup() as group:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE))
        await wait_until(lambda: worker.stats().tasks.get(S.RUNNING) == 1)
        leaving = group.create_task(worker.leave())
        await asyncio.sleep(0)
        worker.set_assignment(assignment(task(2)))
        async with asyncio.timeout(30.0):
            await leaving
        assert bench.driver.plan == NodePlan()
        assert await bench.runtime.adopt() == []


@virtual
async def test_leave_of_a_node_that_never_had_anything(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.worker() as worker:
        await asyncio.sleep(0)
        await worker.leave()
    assert bench.driver.plan == NodePlan()


@virtual
async def test_task_gets_no_traffic_before_it_listens(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.open_ports = set()
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE, services=(service(EndpointMode.VIP, published()),)))
        await wait_until(lambda: S.RUNNING in bench.states(ONE.id))
        await asyncio.sleep(1)
        assert phase_of(bench) is Phase.STARTING
        assert bench.driver.connect_port(Protocol.TCP, 8080) is None
        bench.open_ports = {("tcp", 80)}
        await wait_until(lambda: bench.driver.connect_port(Protocol.TCP, 8080))
        assert phase_of(bench) is Phase.SERVING


@virtual
async def test_task_that_never_listened_may_be_gone_when_it_is_looked_at(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.open_ports = set()
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(assignment(ONE, services=(service(EndpointMode.VIP, published()),)))
        await wait_until(lambda: S.RUNNING in bench.states(ONE.id))
        await asyncio.sleep(3)
        worker.set_assignment(Assignment())
        await wait_until(lambda: not worker.statuses())
        await asyncio.sleep(60)
        worker.set_assignment(assignment(task(2)))
        await wait_until(lambda: S.RUNNING in bench.states(task(2).id))


@virtual
async def test_adopted_task_gets_traffic_once_it_listens(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.open_ports = set()
    tasks = assignment(ONE, services=(service(EndpointMode.VIP, published()),))
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(tasks)
        await wait_until(lambda: bench.states(ONE.id) == LIFE)
    bench.driver.plans.clear()
    async with bench.worker():
        await wait_until(lambda: bench.driver.plans)
        await asyncio.sleep(1)
        assert phase_of(bench) is Phase.STARTING
        bench.open_ports = {("tcp", 80)}
        await wait_until(lambda: bench.driver.connect_port(Protocol.TCP, 8080))
    bench.driver.plans.clear()
    async with bench.worker():
        await wait_until(lambda: bench.driver.plans)
        assert bench.driver.plans[0].ports[0].backends


@virtual
async def test_adopted_task_that_runs_for_long_goes_on_getting_traffic(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.open_ports = set()
    tasks = assignment(ONE, services=(service(EndpointMode.VIP, published()),))
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(tasks)
        await wait_until(lambda: phase_of(bench) is Phase.SERVING)  # it was waited for in vain
        await asyncio.sleep(2)
    bench.started_at += 100.0
    bench.driver.plans.clear()
    async with bench.worker():
        await wait_until(lambda: bench.driver.plans)
        assert bench.driver.plans[0].ports[0].backends
