"""Assignments: what a node is told, differences, pages, and how a node puts them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.allocation.issue import Issuer
from cluster.allocation.tokens import Verifier, new_key
from cluster.control.keys import ring_digest
from cluster.dispatch.inbox import AssignmentInbox, OutOfStep
from cluster.dispatch.messages import (
    AssignmentDiff,
    FullAssignment,
    ManagerAddress,
    Removed,
    encode,
)
from cluster.dispatch.session import (
    PAGE_OBJECTS,
    View,
    assignment_of,
    diff_pages,
    difference,
    full_pages,
    is_same_for,
    managers_in,
    patch,
    view_of,
)
from cluster.model.assignment import Allocation, Assignment, ServiceInfo
from cluster.model.cluster import Cluster, ClusterSpec, JoinTokens
from cluster.model.ids import ClusterId, NetworkId, NodeId, ServiceId, TaskId
from cluster.model.meta import Meta
from cluster.model.network import Network, NetworkSpec
from cluster.model.node import Node, NodeDescription, NodeSpec, NodeState, RemovedNode, Role
from cluster.model.service import (
    Endpoint,
    EndpointMode,
    PortSpec,
    Service,
    ServiceSpec,
    TaskSpec,
)
from cluster.model.task import Attachment, Task, TaskState, TaskStatus
from cluster.state.snapshot import Snapshot

N1, N2 = NodeId("n1"), NodeId("n2")
SPEC = TaskSpec("host", ("true",))


def task(number: int, node: NodeId | None = N1, service: str = "s1", **more: object) -> Task:
    made = Task(
        TaskId(f"t{number}"),
        ServiceId(service),
        "web",
        SPEC,
        slot=number,
        node=node,
        status=TaskStatus(TaskState.ASSIGNED),
        attachments=(Attachment(NetworkId(f"w{number % 3}"), f"10.0.0.{number}"),),
    )
    return replace(made, **more)  # type: ignore[arg-type]


def network(number: int) -> Network:
    return Network(NetworkId(f"w{number}"), NetworkSpec(f"net{number}"), 4097 + number)


def snapshot_of(
    tasks: Sequence[Task], index: int = 1, services: Sequence[Service] = ()
) -> Snapshot:
    return Snapshot(
        index=index,
        networks={n.id: n for n in map(network, range(4))},
        services={s.id: s for s in services},
        tasks={t.id: t for t in tasks},
    )


def test_a_node_gets_its_tasks_with_their_networks_and_services() -> None:
    service = Service(ServiceId("s1"), ServiceSpec("web", SPEC), endpoint=Endpoint())
    other = Service(ServiceId("s2"), ServiceSpec("db", SPEC))
    tasks = [task(1), task(2, N2), task(4), task(5, None)]
    view = view_of(snapshot_of(tasks, services=[service, other]))
    assignment = assignment_of(view, N1, Issuer())
    assert list(assignment.tasks) == ["t1", "t4"]
    assert list(assignment.networks) == ["w1"]
    assert assignment.services == {
        ServiceId("s1"): ServiceInfo(ServiceId("s1"), "web", EndpointMode.VIP, Endpoint())
    }
    assert assignment_of(view, NodeId("stranger"), Issuer()) == Assignment()


def test_a_task_that_is_not_assigned_yet_is_nothing_to_run() -> None:
    """A global service's task has its node from the start."""
    pending = task(1, status=TaskStatus(TaskState.PENDING))
    assert assignment_of(view_of(snapshot_of([pending])), N1, Issuer()) == Assignment()


def test_tasks_outlive_the_service_and_network_that_they_name() -> None:
    view = view_of(Snapshot(tasks={TaskId("t1"): task(1)}))
    assert assignment_of(view, N1, Issuer()) == Assignment(tasks={TaskId("t1"): task(1)})


KEY = new_key(bytes(32))


def allocating(tasks: Sequence[Task], **more: object) -> Snapshot:
    """Return the state of a cluster with a key, one node and one service."""
    service = Service(ServiceId("s1"), ServiceSpec("web", SPEC), endpoint=Endpoint())
    made = replace(
        snapshot_of(tasks, services=[service]),
        cluster=Cluster(
            ClusterId("c"), ClusterSpec(), b"", b"", JoinTokens("", ""), (), allocation_keys=(KEY,)
        ),
        nodes={N1: Node(N1, NodeSpec(Role.WORKER), NodeDescription("h"), index=3)},
    )
    return replace(made, **more)  # type: ignore[arg-type]


def test_a_node_is_told_what_it_may_publish_and_the_public_key_only() -> None:
    view = view_of(allocating([task(1)]))
    assignment = assignment_of(view, N1, Issuer())
    assert view.info.allocation_keys == (KEY.public,)
    assert list(assignment.allocations) == ["t1"]
    verifier = Verifier(view.info.cluster, view.info.allocation_keys)
    for made in assignment.allocations[TaskId("t1")]:
        assert made.scope == "w1"
        assert verifier.is_allocated_untrusted(N1, made.scope, made.key, made.body, made.token)
    for message in (view.info, next(full_pages(1, assignment))):
        assert KEY.secret not in encode(message)


@pytest.mark.parametrize(
    ("ended", "more"),
    [(TaskStatus(TaskState.FAILED), {}), (TaskStatus(TaskState.RUNNING), {"services": {}})],
)
def test_a_task_that_is_over_is_drained_with_what_it_has(
    ended: TaskStatus, more: dict[str, object]
) -> None:
    issuer = Issuer()
    before = assignment_of(view_of(allocating([task(1)])), N1, issuer)
    after = assignment_of(view_of(allocating([task(1, status=ended)], **more)), N1, issuer)
    assert after.allocations == {}
    changes = difference(before, after)
    assert changes is None or changes.removed.services
    if changes is not None:
        assert patch(before, changes).allocations == before.allocations
    gone = difference(before, Assignment())
    assert gone is not None
    assert patch(before, gone) == Assignment()


def test_a_new_port_changes_the_allocations_only() -> None:
    issuer = Issuer()
    old = task(1, gateway_host=5)
    before = assignment_of(view_of(allocating([old])), N1, issuer)
    port = Endpoint((PortSpec("tcp", 80, 8080),), allocation=9)
    service = Service(ServiceId("s1"), ServiceSpec("web", SPEC), endpoint=port)
    told = assignment_of(view_of(allocating([old], services={service.id: service})), N1, issuer)
    changes = difference(before, told)
    assert changes is not None
    assert changes.changed.tasks == {}
    assert [a.scope for a in changes.changed.allocations[old.id]] == ["w1", "ingress"]
    assert patch(before, changes) == told


def test_a_view_shares_what_has_not_changed() -> None:
    before = view_of(snapshot_of([task(1), task(2, N2)]))
    same = view_of(replace(before.snapshot, index=2), before)
    assert same.info is before.info
    assert same.tasks is before.tasks
    snapshot = replace(before.snapshot, tasks={**before.snapshot.tasks, TaskId("t3"): task(3, N2)})
    after = view_of(snapshot, before)
    assert after.tasks[N1] is before.tasks[N1]
    assert is_same_for(N1, after, before)
    assert not is_same_for(N2, after, before)
    assert is_same_for(NodeId("stranger"), after, before)


def test_every_node_is_told_whom_the_managers_removed() -> None:
    removed = {n: RemovedNode(n, 1.0) for n in (NodeId("z"), NodeId("b"))}
    assert view_of(allocating([], removed=removed)).info.removed == ("z", "b")


def test_the_clusters_facts() -> None:
    node = Node(
        N1,
        NodeSpec(Role.MANAGER),
        NodeDescription("h"),
        index=3,
        address="192.0.2.1",
        manager_address="192.0.2.1:2377",
        state=NodeState.READY,
    )
    worker = replace(node, id=N2, spec=NodeSpec(Role.WORKER), manager_address="", index=4)
    info = view_of(Snapshot(nodes={N2: worker, N1: node})).info
    assert [n.id for n in info.nodes] == [N1, N2]
    assert (info.nodes[0].index, info.nodes[0].hostname) == (3, "h")
    assert managers_in(info) == (ManagerAddress(N1, "192.0.2.1:2377"),)


def test_the_tasks_own_status_is_no_difference() -> None:
    old = Assignment(tasks={TaskId("t1"): task(1)})
    running = task(1, status=TaskStatus(TaskState.RUNNING, 5.0), meta=Meta(version=9))
    assert difference(old, Assignment(tasks={TaskId("t1"): running})) is None
    stopping = replace(running, desired_state=TaskState.SHUTDOWN)
    changed = difference(old, Assignment(tasks={TaskId("t1"): stopping}))
    assert changed is not None
    assert changed.changed.tasks == {TaskId("t1"): stopping}


numbers = st.sets(st.integers(1, 9))
specs = st.sampled_from([SPEC, TaskSpec("other")])
bodies = st.sampled_from([b"1", b"2"])


@st.composite
def assignments(draw: st.DrawFn) -> Assignment:
    tasks = [task(n, spec=draw(specs)) for n in sorted(draw(numbers))]
    networks = [
        replace(network(n), subnet=draw(st.sampled_from(["a", "b"]))) for n in draw(numbers)
    ]
    return Assignment(
        tasks={t.id: t for t in tasks},
        networks={n.id: n for n in networks},
        allocations={t.id: (Allocation("w1", t.id, draw(bodies), b""),) for t in tasks},
    )


@given(assignments(), assignments())
def test_a_difference_makes_the_new_of_the_old(old: Assignment, new: Assignment) -> None:
    changes = difference(old, new)
    if changes is None:
        assert old == new
    else:
        assert patch(old, changes) == new
    assert difference(new, new) is None


@given(st.lists(assignments(), min_size=1, max_size=4))
def test_a_node_puts_the_pages_together(history: list[Assignment]) -> None:
    inbox = AssignmentInbox()
    inbox.begin_session()
    for page in full_pages(1, history[0]):
        inbox.receive(page)
    sequence = 1
    for at, (old, new) in enumerate(pairwise(history), 2):
        changes = difference(old, new)
        if changes is not None:
            for part in diff_pages(sequence, at, changes):
                inbox.receive(part)
            sequence = at
    assert inbox.assignment == history[-1]
    assert inbox.sequence == sequence


def test_large_assignments_come_in_pages_tasks_last() -> None:
    tasks = {t.id: t for t in (task(n) for n in range(250))}
    networks = {n.id: n for n in (network(n) for n in range(3))}
    pages = list(full_pages(1, Assignment(tasks=tasks, networks=networks)))
    assert len(pages) == 3
    assert all(len(p.page.tasks) + len(p.page.networks) <= PAGE_OBJECTS for p in pages)
    assert pages[0].page.networks == networks
    assert [p.is_last for p in pages] == [False, False, True]
    inbox = AssignmentInbox()
    assert inbox.receive(pages[0]) is None
    assert inbox.assignment is None
    inbox.begin_session()
    for page in pages:
        inbox.receive(page)
    assert inbox.assignment == Assignment(tasks=tasks, networks=networks)


def test_nothing_at_all_is_one_page() -> None:
    assert list(full_pages(1, Assignment())) == [FullAssignment(1, Assignment(), is_last=True)]
    inbox = AssignmentInbox()
    assert inbox.receive(FullAssignment(1, Assignment(), is_last=True)) == Assignment()


def test_what_does_not_fit_is_not_taken() -> None:
    inbox = AssignmentInbox()
    with pytest.raises(OutOfStep):
        inbox.receive(AssignmentDiff(1, 2, Assignment(), Removed(), is_last=True))
    inbox.receive(FullAssignment(5, Assignment(), is_last=True))
    with pytest.raises(OutOfStep):
        inbox.receive(AssignmentDiff(4, 6, Assignment(), Removed(), is_last=True))
    inbox.begin_session()
    with pytest.raises(OutOfStep):
        inbox.receive(AssignmentDiff(5, 6, Assignment(), Removed(), is_last=True))
    with pytest.raises(OutOfStep, match="assignment 4 came after 5"):
        inbox.receive(FullAssignment(4, Assignment(), is_last=True))
    inbox.forget_sequence()
    assert inbox.receive(FullAssignment(4, Assignment(), is_last=True)) == Assignment()


def test_views_can_be_empty() -> None:
    assert view_of(Snapshot()) == View(Snapshot(), view_of(Snapshot()).info, ring_digest(()))
