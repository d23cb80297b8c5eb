"""Whatever users, nodes and tasks do: nothing is given twice, and in the end all is as wished."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Network
from itertools import combinations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.control.batch import BATCH_BYTES_MAX, decide_all
from cluster.control.scheduler import GATEWAY_HOSTS, TASKS_PER_NODE_MAX
from cluster.control.slots import is_wanted, slot_key
from cluster.model.node import Availability, NodeState
from cluster.model.task import TaskState, TaskStatus, is_ended
from cluster.state.changes import AssignTask, Change, PutService, ReportStatus
from cluster.state.codec import encode_changes
from cluster.state.snapshot import Snapshot
from tests.unit.control.world import World

NODES = ("a", "b", "c")
SERVICES = ("web", "api")
SETUP = "cluster\nnetwork app\nnetwork db\n" + "\n".join(f"node {n}" for n in NODES)
NEXT_STATES = (
    TaskState.PREPARING,
    TaskState.RUNNING,
    TaskState.COMPLETE,
    TaskState.FAILED,
    TaskState.REJECTED,
)

services = st.builds(
    "service {} replicas={} networks={} image={} delay={} max={} cpus={}".format,
    st.sampled_from(SERVICES),
    st.integers(0, 6),
    st.sampled_from(["app", "app,db", ""]),
    st.sampled_from(["v1", "v2"]),
    st.sampled_from([0, 5]),
    st.sampled_from([0, 3]),
    st.sampled_from([0, 1]),
)
agents = st.builds("service agent mode=global networks=app image={}".format, st.integers(1, 2))
nodes = st.builds(
    "node {} state={} availability={}".format,
    st.sampled_from(NODES),
    st.sampled_from(["ready", "ready", "down", "unknown"]),
    st.sampled_from(["active", "active", "drain", "pause"]),
)
deletions = st.builds(
    "delete {}".format, st.sampled_from([*(f"service {s}" for s in SERVICES), "node c"])
)
progress = st.builds("progress {}".format, st.integers(0, 2**32))
passing = st.builds("pass {}".format, st.sampled_from([1, 10, 90_000]))
steps = st.lists(
    st.one_of(services, agents, nodes, deletions, progress, progress, passing), max_size=25
)


def perform(world: World, step: str) -> None:
    """Do what one step says; `progress SEED` lets some tasks report something they may."""
    verb, _, rest = step.partition(" ")
    if verb == "pass":
        world.now += float(rest)
    elif verb == "progress":
        rng = Random(int(rest))
        reports = [report(world, task_id, rng) for task_id in world.snapshot.tasks]
        world.apply([r for r in reports if r is not None])
    else:
        world.handle(step)


def report(world: World, task_id: str, rng: Random) -> ReportStatus | None:
    task = next(t for t in world.snapshot.tasks.values() if t.id == task_id)
    state = rng.choice(NEXT_STATES)
    if not is_wanted(task) and task.status.state >= TaskState.ASSIGNED:
        state = TaskState.SHUTDOWN
    if task.status.state < TaskState.ASSIGNED or is_ended(task.status.state):
        return None
    return (
        ReportStatus(task.id, task.node, TaskStatus(state, world.now))
        if rng.random() < 0.5
        else None
    )


def check_decision(snapshot: Snapshot, changes: Sequence[Change]) -> None:
    """Check what a batch may never do."""
    for change in changes:
        if isinstance(change, AssignTask):
            node = snapshot.nodes[change.node]
            assert node.state is NodeState.READY
            assert node.spec.availability is Availability.ACTIVE
            assert change.gateway_host in GATEWAY_HOSTS


def check_state(snapshot: Snapshot) -> None:
    """Check what must hold at any moment."""
    unended = [t for t in snapshot.tasks.values() if not is_ended(t.status.state)]
    holders = Counter[object]()
    for network in snapshot.networks.values():
        holders[network.id, network.gateway] += 1
    for service in snapshot.services.values():
        for virtual in service.endpoint.virtual_addresses if service.endpoint else ():
            holders[virtual.network, virtual.address] += 1
    for task in unended:
        holders.update((a.network, a.address) for a in task.attachments)
        if task.gateway_host:
            holders[task.node, task.gateway_host] += 1
    assert all(count == 1 for count in holders.values()), holders.most_common(1)
    wanted = Counter((t.service, slot_key(t)) for t in snapshot.tasks.values() if is_wanted(t))
    assert all(count == 1 for count in wanted.values()), wanted.most_common(1)
    for node in snapshot.nodes.values():
        reserved = sum(t.spec.reservations.nano_cpus for t in unended if t.node == node.id)
        assert reserved <= node.description.nano_cpus
    subnets = [IPv4Network(n.subnet) for n in snapshot.networks.values() if n.subnet]
    assert not any(a.overlaps(b) for a, b in combinations(subnets, 2))


def heal(world: World) -> None:
    """Bring all nodes back, make every service satisfiable, and let time pass."""
    for node in world.snapshot.nodes:
        world.handle(f"node {node}")
    for service in world.snapshot.services.values():
        if service.id in SERVICES:
            world.handle(f"service {service.id} replicas={service.spec.replicas} networks=app")
    for _ in range(4):
        world.run()
        world.now += 10


def check_as_wished(snapshot: Snapshot) -> None:
    """Check that every service has exactly the tasks it should, and nothing else is left."""
    live = Counter(t.service for t in snapshot.tasks.values() if not is_ended(t.status.state))
    running = Counter(
        t.service for t in snapshot.tasks.values() if t.status.state is TaskState.RUNNING
    )
    assert live == running
    for service in snapshot.services.values():
        is_global = service.id == "agent"
        wish = len(snapshot.nodes) if is_global else service.spec.replicas
        assert running[service.id] == wish
    assert set(live) <= set(snapshot.services)
    assert {t.service for t in snapshot.tasks.values()} <= set(snapshot.services)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_nothing_is_given_twice_and_all_ends_as_wished(script: list[str]) -> None:
    world = World()
    world.handle(SETUP)
    for step in script:
        perform(world, step)
        before = world.snapshot
        check_decision(before, world.decide(lambda s: decide_all(s, world.now, world.rng)))
        check_state(world.snapshot)
    heal(world)
    check_state(world.snapshot)
    check_as_wished(world.snapshot)


@settings(max_examples=30, deadline=None)
@given(steps, st.randoms(use_true_random=False))
def test_any_prefix_of_a_decision_may_be_committed_alone(script: list[str], rng: Random) -> None:
    world = World()
    world.handle(SETUP)
    for step in script:
        perform(world, step)
        changes = decide_all(world.snapshot, world.now, world.rng)
        world.apply(changes[: rng.randint(0, len(changes))])
        check_state(world.snapshot)
    heal(world)
    check_as_wished(world.snapshot)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=6))
def test_scaling_any_way_ends_with_exactly_so_many(replicas: list[int]) -> None:
    world = World()
    world.handle(SETUP)
    for number in replicas:
        world.handle(f"service web replicas={number} networks=app")
        world.decide(lambda s: decide_all(s, world.now, world.rng))
    world.run()
    check_as_wished(world.snapshot)
    per_node = Counter(t.node for t in world.snapshot.tasks.values())
    counts = [per_node[node] for node in world.snapshot.nodes]
    assert max(counts) - min(counts) <= 1 or len(set(replicas)) > 1


def place_all(world: World) -> list[int]:
    """Commit what is decided until nothing is, and return the size of each transaction."""
    sizes: list[int] = []
    while changes := decide_all(world.snapshot, world.now, world.rng):
        world.apply(changes)
        sizes.append(len(encode_changes(changes)))
    return sizes


@pytest.mark.parametrize("replicas", [30, 600])
def test_a_big_service_takes_few_commits(replicas: int) -> None:
    world = World()
    world.handle("cluster size=16\nnetwork app\nnode a\nnode b\nnode c")
    world.handle(f"service web replicas={replicas} networks=app")
    commits = place_all(world)
    states = Counter(t.status.state for t in world.snapshot.tasks.values())
    assert states == {TaskState.ASSIGNED: replicas}
    assert len(commits) <= 1 + replicas // 200


def test_big_specs_are_committed_in_parts() -> None:
    world = World()
    world.handle("cluster size=16\nnode a\nnode b\nservice web replicas=0")
    [service] = world.snapshot.services.values()
    big = replace(service.spec.task, environment=(("BIG", "x" * 20_000),))
    world.apply([PutService(replace(service, spec=replace(service.spec, task=big, replicas=60)))])
    sizes = place_all(world)
    states = Counter(t.status.state for t in world.snapshot.tasks.values())
    assert states == {TaskState.ASSIGNED: 60}
    assert max(sizes) <= BATCH_BYTES_MAX + 1024
    assert len(sizes) == 7


def test_a_node_takes_so_many_tasks_and_gives_its_gateway_hosts_around() -> None:
    world = World()
    world.handle("cluster\nnode a\nservice web replicas=200")
    world.run()
    world.now += 1
    world.handle("service late replicas=40")
    world.run()
    world.handle("service web replicas=10")
    world.run()
    world.handle("service web replicas=260")
    world.run()
    check_state(world.snapshot)
    placed = [t for t in world.snapshot.tasks.values() if t.node]
    assert len(placed) == TASKS_PER_NODE_MAX
    [error] = {t.status.error for t in world.snapshot.tasks.values() if not t.node}
    assert error == "no suitable node (task limit reached on 1 node)"
