"""Placement constraints: `node.role == manager` and so on (pure).

Grammar and matching are swarmkit's (manager/constraint): two operators, values compared without
regard to case, an absent label is the empty text, an unknown key matches no node.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from cluster.model.errors import Invalid
from cluster.model.node import Node

_OPERATORS = ("==", "!=")
_KEY = re.compile(r"[a-z_][a-z0-9\-_.]+", re.IGNORECASE)
_VALUE = re.compile(r"[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+", re.IGNORECASE)
_NODE_LABELS = "node.labels."
_ENGINE_LABELS = "engine.labels."


@dataclass(frozen=True, slots=True)
class Constraint:
    """One condition on a node."""

    key: str
    is_equal: bool
    """Whether the operator is `==`."""
    value: str


def parse_constraints(texts: Iterable[str]) -> tuple[Constraint, ...]:
    """Return the constraints that `texts` say.

    Raises:
        Invalid: one of them is no constraint.
    """
    return tuple(_parse(text) for text in texts)


def matches(constraints: Sequence[Constraint], node: Node) -> bool:
    """Return whether `node` meets all of `constraints`."""
    return all(_matches(constraint, node) for constraint in constraints)


def label_of(node: Node, descriptor: str) -> str | None:
    """Return the label that `node.labels.X` or `engine.labels.X` names; None: it names none."""
    lowered = descriptor.lower()
    if lowered.startswith(_NODE_LABELS):
        return node.spec.labels.get(descriptor[len(_NODE_LABELS) :], "")
    if lowered.startswith(_ENGINE_LABELS):
        return node.description.engine_labels.get(descriptor[len(_ENGINE_LABELS) :], "")
    return None


def _parse(text: str) -> Constraint:
    for operator in _OPERATORS:
        left, found, right = text.partition(operator)
        if not found:
            continue
        key, value = left.strip(), right.strip()
        if not _KEY.fullmatch(key):
            raise Invalid(f"constraint '{text}': key '{key}' is invalid")
        if not _VALUE.fullmatch(value):
            raise Invalid(f"constraint '{text}': value '{value}' is invalid")
        return Constraint(key, operator == "==", value)
    raise Invalid(f"constraint '{text}': expected one operator from {', '.join(_OPERATORS)}")


def _matches(constraint: Constraint, node: Node) -> bool:
    key = constraint.key.lower()
    if key == "node.ip":
        return _matches_address(constraint, node.address)
    facts = {
        "node.id": node.id,
        "node.hostname": node.description.hostname,
        "node.role": node.spec.role.value,
        "node.platform.os": node.description.os,
        "node.platform.arch": node.description.architecture,
    }
    fact = facts[key] if key in facts else label_of(node, constraint.key)
    if fact is None:
        return False
    return (fact.lower() == constraint.value.lower()) is constraint.is_equal


def _matches_address(constraint: Constraint, address: str) -> bool:
    """Compare with an address or a CIDR; nonsense on either side matches nothing."""
    try:
        inside = ip_address(address) in ip_network(constraint.value, strict=False)
    except ValueError:
        return False
    return inside is constraint.is_equal
