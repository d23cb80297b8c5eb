"""A replica that waits with its snapshots has the same state as one transaction after another."""

from __future__ import annotations

from copy import copy
from dataclasses import fields
from random import Random

import pytest

from cluster.model.errors import ClusterError
from cluster.model.ids import NetworkId, NodeId, ServiceId, TaskId
from cluster.model.network import Network, NetworkSpec
from cluster.model.node import Node, NodeDescription, NodeSpec, NodeState, Role
from cluster.model.service import NetworkAttachmentSpec, Service, ServiceSpec, TaskSpec
from cluster.model.task import Task, TaskState, TaskStatus
from cluster.state.apply import apply
from cluster.state.changes import (
    Change,
    DeleteNetwork,
    DeleteNode,
    DeleteService,
    DeleteTask,
    PutNetwork,
    PutNode,
    PutService,
    PutTask,
    ReportStatus,
    SetDesiredState,
    SetNodeState,
)
from cluster.state.codec import encode_changes
from cluster.state.snapshot import Snapshot
from cluster.store.replica import Replica, read_outcome


def a_change(rng: Random) -> Change:
    """Return any change of few objects, so that many are refused."""
    name = f"x{rng.randrange(3)}"
    other = f"x{rng.randrange(3)}"
    node, network = NodeId(name), NetworkId(name)
    service, task = ServiceId(name), TaskId(f"{name}{rng.randrange(4)}")
    expect = rng.choice((None, None, 3))
    networks = tuple(NetworkAttachmentSpec(NetworkId(n)) for n in rng.sample(("x0", "x1"), 1))
    state = rng.choice((TaskState.NEW, TaskState.RUNNING, TaskState.FAILED))
    return rng.choice(
        (
            PutNode(
                Node(
                    node,
                    NodeSpec(Role.WORKER),
                    NodeDescription(name),
                    rng.randrange(3),
                ),
                expect,
            ),
            DeleteNode(node),
            PutNetwork(Network(network, NetworkSpec(other)), expect),
            DeleteNetwork(network),
            PutService(Service(service, ServiceSpec(other, TaskSpec("host", networks=networks)))),
            DeleteService(service),
            PutTask(Task(task, service, name, TaskSpec("host"), 1, node)),
            DeleteTask(task),
            ReportStatus(task, node, TaskStatus(state, rng.random())),
            SetDesiredState(task, TaskState.SHUTDOWN),
            SetNodeState(node, rng.choice((NodeState.READY, NodeState.DOWN)), "", 1.0),
        )
    )


@pytest.mark.parametrize("seed", range(40))
def test_one_after_another(seed: int) -> None:
    rng = Random(seed)
    replica, expected = Replica(), Snapshot()
    seen: list[tuple[Snapshot, dict[str, object]]] = []
    refused = 0
    for index in range(1, 200):
        changes = [a_change(rng) for _ in range(rng.choice((1, 1, 1, 2)))]
        outcome = replica.apply(index, encode_changes(changes))
        refusal: ClusterError | None = None
        try:
            expected = apply(expected, changes, index)
        except ClusterError as error:
            refusal = error
        if refusal is None:
            assert read_outcome(outcome) == index
        else:
            refused += 1
            with pytest.raises(type(refusal)) as caught:
                read_outcome(outcome)
            assert str(caught.value) == str(refusal)
        if rng.random() < 0.2:
            now = replica.snapshot()
            assert now == expected
            seen.append((now, _copied(now)))

    assert replica.snapshot() == expected
    assert 0 < refused < 190
    for snapshot, copied in seen:
        assert _copied(snapshot) == copied, "what was seen does not change"


def _copied(snapshot: Snapshot) -> dict[str, object]:
    """Return the tables of a snapshot as they are now."""
    return {f.name: copy(getattr(snapshot, f.name)) for f in fields(snapshot)}
