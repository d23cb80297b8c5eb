"""Issuing: the same state gives the same bytes, and nothing is signed twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.allocation import issue
from cluster.allocation.issue import Issuer
from cluster.allocation.tokens import Verifier, new_key
from cluster.model.assignment import Allocation
from cluster.model.cluster import Cluster, ClusterSpec, JoinTokens
from cluster.model.meta import Meta
from cluster.model.network import Network
from cluster.model.node import Node, NodeDescription, NodeSpec, Role
from cluster.model.service import EndpointMode
from cluster.model.task import Task, TaskState, TaskStatus
from tests.unit.agent.objects import CLUSTER, KEY, NET, A, network, published, service, task

STATE = Cluster(
    CLUSTER,
    ClusterSpec(),
    ca_certificate=b"",
    ca_key=b"",
    join_tokens=JoinTokens("", ""),
    gossip_keys=(),
    allocation_keys=(KEY,),
)
NODE = Node(A, NodeSpec(Role.WORKER), NodeDescription("h"), index=1)
ONE = task(1)
WEB = service(EndpointMode.VIP, published())


def issued(
    issuer: Issuer,
    *,
    cluster: Cluster = STATE,
    node: Node = NODE,
    task: Task = ONE,
    inside: Network | None = None,
    port: int = 8080,
) -> tuple[Allocation, ...]:
    web = service(EndpointMode.VIP, published(port))
    return issuer.issue(cluster, node, task, web, {NET: inside or network()})


def test_two_managers_agree() -> None:
    made = issued(Issuer())
    assert [a.scope for a in made] == [NET, "ingress"]
    assert issued(Issuer()) == made


def test_what_stays_the_same_is_not_signed_again() -> None:
    issuer = Issuer()
    first = issued(issuer)
    later = replace(
        ONE,
        status=TaskStatus(TaskState.RUNNING, 5.0),
        desired_state=TaskState.SHUTDOWN,
        meta=Meta(version=9, updated_at=5.0),
    )
    assert issued(issuer, task=later) is first


def test_what_changes_is_signed_anew() -> None:
    issuer = Issuer()
    first = issued(issuer)
    assert issued(issuer, port=8081) != first
    assert issued(issuer) == first
    assert issued(issuer, node=replace(NODE, index=2)) != first
    assert [a.scope for a in issued(issuer, inside=network(internal=True))] == [NET]
    assert issued(issuer, task=replace(ONE, allocation=1)) != first
    rotated = replace(STATE, allocation_keys=(new_key(bytes(32)), KEY))
    renewed = issued(issuer, cluster=rotated)
    assert [a.body for a in renewed] == [a.body for a in first]
    assert renewed != first


def test_a_cluster_without_keys_allows_nothing() -> None:
    assert issued(Issuer(), cluster=replace(STATE, allocation_keys=())) == ()


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issue, "ISSUED_MAX", 2)
    issuer = Issuer()
    made = [issued(issuer, task=task(n)) for n in (1, 2, 3)]
    assert issued(issuer, task=task(3)) is made[2]
    assert issued(issuer, task=task(1)) is not made[0]
    assert issued(issuer, task=task(1)) == made[0]


def test_the_node_can_prove_what_it_got() -> None:
    verifier = Verifier(CLUSTER, (KEY.public,))
    for made in issued(Issuer()):
        assert verifier.is_allocated_untrusted(A, made.scope, made.key, made.body, made.token)
