"""Finding an object by id, name or id prefix, as Docker's clients name them (pure)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol, TypeVar

from cluster.model.errors import Invalid, NotFound
from cluster.model.network import Network
from cluster.model.node import Node
from cluster.model.service import Service
from cluster.model.task import Task, task_name
from cluster.state.snapshot import Snapshot


class _Identified(Protocol):
    @property
    def id(self) -> str: ...


_Object = TypeVar("_Object", bound=_Identified)


def find_service(snapshot: Snapshot, text: str) -> Service:
    """Return the service. Raises NotFound, or Invalid when it is ambiguous."""
    return _find("service", text, snapshot.services.values(), lambda s: s.spec.name)


def find_network(snapshot: Snapshot, text: str) -> Network:
    """Return the network. Raises NotFound, or Invalid when it is ambiguous."""
    return _find("network", text, snapshot.networks.values(), lambda n: n.spec.name)


def find_node(snapshot: Snapshot, text: str) -> Node:
    """Return the node, by host name too. Raises NotFound, or Invalid when it is ambiguous."""
    return _find("node", text, snapshot.nodes.values(), node_name)


def find_task(snapshot: Snapshot, text: str) -> Task:
    """Return the task. Raises NotFound, or Invalid when it is ambiguous."""
    return _find("task", text, snapshot.tasks.values(), task_name)


def node_name(node: Node) -> str:
    """Return what a node is called: its given name, else its host name."""
    return node.spec.name or node.description.hostname


def _find(
    kind: str, text: str, objects: Collection[_Object], name: Callable[[_Object], str]
) -> _Object:
    found = (
        [o for o in objects if o.id == text]
        or [o for o in objects if name(o) == text]
        or [o for o in objects if text and o.id.startswith(text)]
    )
    if not found:
        raise NotFound(f"{kind} {text} not found")
    if len(found) > 1:
        raise Invalid(f"{kind} {text} is ambiguous ({len(found)} matches found)")
    return found[0]
