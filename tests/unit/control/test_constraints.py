"""Constraints: swarmkit's grammar and matching."""

from __future__ import annotations

import pytest

from cluster.control.constraints import label_of, matches, parse_constraints
from cluster.model.errors import Invalid
from cluster.model.ids import NodeId
from cluster.model.node import Node, NodeDescription, NodeSpec, Role

NODE = Node(
    NodeId("abc"),
    NodeSpec(Role.MANAGER, labels={"zone": "East", "disk.kind": "ssd"}),
    NodeDescription("Host1", engine_labels={"gpu": "yes"}),
    address="192.168.7.9",
)


@pytest.mark.parametrize(
    "text",
    [
        "node.id == abc",
        "node.ID==ABC",
        "node.hostname==host1",
        "node.hostname != host2",
        "node.role==manager",
        "node.role!=worker",
        "node.platform.os == linux",
        "node.platform.arch==x86_64",
        "node.labels.zone == east",
        "node.labels.disk.kind==SSD",
        "node.labels.absent != x",
        "engine.labels.gpu==yes",
        "node.ip==192.168.7.9",
        "node.ip==192.168.0.0/16",
        "node.ip!=10.0.0.1",
    ],
)
def test_met(text: str) -> None:
    assert matches(parse_constraints([text]), NODE)


@pytest.mark.parametrize(
    "text",
    [
        "node.id != abc",
        "node.role==worker",
        "node.labels.zone==west",
        "node.labels.Zone==east",  # label names have case, values have not
        "node.labels.absent==x",
        "engine.labels.gpu!=yes",
        "node.ip==192.168.7.10",
        "node.ip!=192.168.0.0/16",
        "node.ip!=nonsense",
        "node.unknown!=x",  # an unknown key matches nothing, whatever the operator
        "labels.zone==east",
    ],
)
def test_not_met(text: str) -> None:
    assert not matches(parse_constraints([text]), NODE)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("node.role=manager", "expected one operator from ==, !="),
        ("node.role", "expected one operator"),
        ("== x", "key '' is invalid"),
        ("1node==x", "key '1node' is invalid"),
        ("node role==x", "key 'node role' is invalid"),
        ("node.role==", "value '' is invalid"),
        ("node.role==a,b", "value 'a,b' is invalid"),
        ("node.role==a<b", "value 'a<b' is invalid"),
    ],
)
def test_no_constraint(text: str, complaint: str) -> None:
    with pytest.raises(Invalid, match="constraint") as error:
        parse_constraints([text])
    assert complaint in str(error.value)


def test_all_must_be_met() -> None:
    assert matches(parse_constraints([]), NODE)
    both = parse_constraints(["node.role==manager", "node.labels.zone==west"])
    assert not matches(both, NODE)


def test_labels_by_descriptor() -> None:
    assert label_of(NODE, "node.labels.zone") == "East"
    assert label_of(NODE, "engine.labels.none") == ""
    assert label_of(NODE, "node.hostname") is None
