"""What happened between two snapshots, as Docker's swarm events (pure).

Only what a user did or must know is an event: nodes, services and networks that appear, change or
go. Tasks have none in Docker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from cluster.api.docker_json.fields import Json
from cluster.api.filters import Filters
from cluster.api.lookup import node_name
from cluster.model.node import Node
from cluster.model.service import Service, ServiceMode
from cluster.state.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to one object."""

    kind: str
    """node, service or network."""
    action: str
    """create, update or remove."""
    id: str
    attributes: Mapping[str, str] = field(default_factory=dict[str, str])
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    time_ns: int = 0


class _Identified(Protocol):
    @property
    def id(self) -> str: ...


_Object = TypeVar("_Object", bound=_Identified)
_Key = TypeVar("_Key", bound=str)


def events_between(old: Snapshot, new: Snapshot, now: float) -> list[Event]:
    """Return the events that lead from one snapshot to a later one."""
    time_ns = int(now * 1e9)
    events: list[Event] = []
    for node in _changed(old.nodes, new.nodes):
        attributes = {"name": node_name(node.subject), **_node_changes(node)}
        events.append(_event("node", node, attributes, node.subject.spec.labels, time_ns))
    for network in _changed(old.networks, new.networks):
        attributes = {"name": network.subject.spec.name}
        events.append(_event("network", network, attributes, network.subject.spec.labels, time_ns))
    for service in _changed(old.services, new.services):
        attributes = {"name": service.subject.spec.name, **_service_changes(service)}
        events.append(_event("service", service, attributes, service.subject.spec.labels, time_ns))
    return events


def event_view(event: Event) -> Json:
    """Return an event as `GET /events` sends it."""
    return {
        "Type": event.kind,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": dict(event.attributes)},
        "scope": "swarm",
        "time": event.time_ns // 1_000_000_000,
        "timeNano": event.time_ns,
    }


def is_wanted(event: Event, filters: Filters) -> bool:
    """Return whether the filters let an event through."""
    name = event.attributes.get("name", "")
    return (
        filters.exact("scope", "swarm")
        and filters.exact("type", event.kind)
        and filters.exact("event", event.action)
        and filters.labels("label", {**event.labels, **event.attributes})
        and all(
            event.kind == kind and filters.exact(kind, event.id, name)
            for kind in _OBJECT_FILTERS
            if filters.values(kind)
        )
    )


_OBJECT_FILTERS = (
    "node", "service", "network", "secret", "config", "container", "image", "volume", "plugin",
    "daemon",
)  # fmt: skip
FILTERS = frozenset({*_OBJECT_FILTERS, "scope", "type", "event", "label"})
"""Keys that events can be filtered by."""


@dataclass(frozen=True, slots=True)
class _Difference(Generic[_Object]):
    """One object before and after; None where it is absent."""

    before: _Object | None
    after: _Object | None
    subject: _Object
    """The later of the two."""


def _changed(
    old: Mapping[_Key, _Object], new: Mapping[_Key, _Object]
) -> list[_Difference[_Object]]:
    if old is new:
        return []
    gone = [_Difference(item, None, item) for key, item in old.items() if key not in new]
    return gone + [
        _Difference(old.get(key), item, item)
        for key, item in new.items()
        if old.get(key) is not item
    ]


def _event(
    kind: str,
    difference: _Difference[_Object],
    attributes: Mapping[str, str],
    labels: Mapping[str, str],
    time_ns: int,
) -> Event:
    if difference.before is None:
        action = "create"
    else:
        action = "remove" if difference.after is None else "update"
    return Event(kind, action, difference.subject.id, attributes, labels, time_ns)


def _pair(name: str, old: str, new: str) -> dict[str, str]:
    return {f"{name}.old": old, f"{name}.new": new} if old != new else {}


def _node_changes(node: _Difference[Node]) -> dict[str, str]:
    old, new = node.before, node.after
    if old is None or new is None:
        return {}
    return {
        **_pair("state", old.state.value, new.state.value),
        **_pair("role", old.spec.role.value, new.spec.role.value),
        **_pair("availability", old.spec.availability.value, new.spec.availability.value),
    }


def _service_changes(service: _Difference[Service]) -> dict[str, str]:
    old, new = service.before, service.after
    if old is None or new is None:
        return {}
    changes = _pair("image", old.spec.task.image, new.spec.task.image)
    if new.spec.mode is ServiceMode.REPLICATED:
        changes |= _pair("replicas", str(old.spec.replicas), str(new.spec.replicas))
    return changes
