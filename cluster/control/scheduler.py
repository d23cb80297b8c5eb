"""A node for each pending task (pure).

A node must pass every filter; among those that do, the task goes where it spreads its service best.
A task that fits nowhere says why, in swarmkit's words, and waits.

Invariants: only nodes READY and ACTIVE get tasks; the tasks of a node that have not ended have
different gateway hosts and host-mode ports, and together reserve no more than it has. Tasks that
were placed are never moved (nor does Swarm).
Source: swarmkit manager/scheduler (filter.go, nodeinfo.go, scheduler.go).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from cluster.control.constraints import Constraint, label_of, matches, parse_constraints
from cluster.model.errors import Invalid
from cluster.model.ids import NodeId, ServiceId
from cluster.model.node import Availability, Node, NodeState
from cluster.model.service import PortSpec
from cluster.model.task import Task, TaskState, is_ended
from cluster.state.changes import AssignTask, Change, ReportStatus
from cluster.state.snapshot import Snapshot

TASKS_PER_NODE_MAX = 250
"""Each needs a host of the node's /24 gateway subnet (see `dataplane.addressing`)."""
GATEWAY_HOSTS = range(2, 255)
"""Host 1 is the node itself."""
FAILURES_MAX = 5
"""A node with as many recent failures of a service is used last for it."""
FAILURES_WINDOW_S = 300.0
ASSIGNMENTS_MAX = 1000
"""Most assignments of one look; the rest waits for the next."""


def decide(snapshot: Snapshot, now: float) -> list[Change]:
    """Return an assignment for each pending task that fits somewhere, and why others do not."""
    pending = [
        t
        for t in snapshot.tasks.values()
        if t.status.state is TaskState.PENDING and t.desired_state <= TaskState.RUNNING
    ]
    if not pending:
        return []
    filters = _Filters()
    seats = _seats(snapshot, now)
    changes: list[Change] = []
    left: list[Task] = []
    candidates: dict[_Equals, list[_Seat]] = {}
    for task in pending:
        if _equals(task) not in candidates:
            candidates[_equals(task)] = _eligible(task, seats)
        seat = _choose(task, candidates[_equals(task)], seats, filters)
        if seat is None:
            left.append(task)
        else:
            host = seat.add(task, _host_ports(task))
            changes.append(AssignTask(task.id, seat.node.id, host, now))
            if len(changes) == ASSIGNMENTS_MAX:
                return changes
    return changes + _explain(left, seats, filters, now)


_Equals = tuple[ServiceId, int, tuple[PortSpec, ...] | None, NodeId | None]


def _equals(task: Task) -> _Equals:
    """Return what tasks have in common that differ in nothing the scheduler looks at."""
    return task.service, task.spec_version, task.host_ports, task.node


@dataclass(slots=True, eq=False)
class _Seat:
    """What one node has left, in the making."""

    node: Node
    nano_cpus: int
    memory_bytes: int
    active: Counter[ServiceId] = field(default_factory=Counter[ServiceId])
    """Tasks that are meant to run, by service."""
    active_total: int = 0
    failures: Counter[ServiceId] = field(default_factory=Counter[ServiceId])
    host_ports: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])
    gateway_hosts: set[int] = field(default_factory=set[int])
    recent_host: tuple[float, int] = (0.0, 0)
    """When the latest task was made, and its gateway host."""

    def hold(self, task: Task, host_ports: Iterable[tuple[str, int]]) -> None:
        """Count a task that has not ended."""
        self.nano_cpus -= task.spec.reservations.nano_cpus
        self.memory_bytes -= task.spec.reservations.memory_bytes
        self.host_ports.update(host_ports)
        self.gateway_hosts.add(task.gateway_host)
        if task.desired_state <= TaskState.RUNNING:
            self.active[task.service] += 1
            self.active_total += 1

    def add(self, task: Task, host_ports: Iterable[tuple[str, int]]) -> int:
        """Give `task` a place, and return its gateway host.

        Hosts are given in rising order and around, so that one just freed is not given at once.
        """
        after = self.recent_host[1]
        order = (*range(after + 1, GATEWAY_HOSTS.stop), *GATEWAY_HOSTS)
        host: int = next(h for h in order if h in GATEWAY_HOSTS and h not in self.gateway_hosts)
        self.hold(replace(task, gateway_host=host), host_ports)
        self.recent_host = (max(self.recent_host[0], task.meta.created_at), host)
        return host


def _seats(snapshot: Snapshot, now: float) -> dict[NodeId, _Seat]:
    seats = {
        node.id: _Seat(node, node.description.nano_cpus, node.description.memory_bytes)
        for node in sorted(snapshot.nodes.values(), key=lambda n: n.id)
    }
    for task in snapshot.tasks.values():
        seat = seats.get(task.node) if task.node else None
        if seat is None or task.status.state < TaskState.ASSIGNED:
            continue
        seat.recent_host = max(seat.recent_host, (task.meta.created_at, task.gateway_host))
        if not is_ended(task.status.state):
            seat.hold(task, _host_ports(task))
        elif (
            task.status.state in (TaskState.FAILED, TaskState.REJECTED)
            and task.status.timestamp > now - FAILURES_WINDOW_S
        ):
            seat.failures[task.service] += 1
    return seats


class _Filters:
    """What a seat must offer to a task; in swarmkit's order, with its words."""

    def __init__(self) -> None:
        self._constraints: dict[tuple[str, ...], tuple[Constraint, ...] | None] = {}
        self.all: tuple[tuple[Callable[[Task, _Seat], bool], str], ...] = (
            (_is_available, "{nodes} not available for new tasks"),
            (_has_resources, "insufficient resources on {nodes}"),
            (self._meets_constraints, "scheduling constraints not satisfied on {nodes}"),
            (_has_host_ports, "host-mode port already in use on {nodes}"),
            (_has_replicas_left, "max replicas per node limit exceed"),
            (_has_gateway_host, "task limit reached on {nodes}"),
        )

    def _meets_constraints(self, task: Task, seat: _Seat) -> bool:
        texts = task.spec.placement.constraints
        if texts not in self._constraints:
            try:
                self._constraints[texts] = parse_constraints(texts)
            except Invalid:
                self._constraints[texts] = None
        constraints = self._constraints[texts]
        return constraints is not None and matches(constraints, seat.node)


def _host_ports(task: Task) -> list[tuple[str, int]]:
    """Return the ports that `task` takes on its node, with their protocols."""
    return [(port.protocol, port.published_port) for port in task.host_ports or ()]


def _has_host_ports(task: Task, seat: _Seat) -> bool:
    return seat.host_ports.isdisjoint(_host_ports(task))


def _is_available(_: Task, seat: _Seat) -> bool:
    node = seat.node
    return node.state is NodeState.READY and node.spec.availability is Availability.ACTIVE


def _has_resources(task: Task, seat: _Seat) -> bool:
    asked = task.spec.reservations
    return not (
        (asked.nano_cpus and asked.nano_cpus > seat.nano_cpus)
        or (asked.memory_bytes and asked.memory_bytes > seat.memory_bytes)
    )


def _has_replicas_left(task: Task, seat: _Seat) -> bool:
    limit = task.spec.placement.replicas_max_per_node
    return not limit or seat.active[task.service] < limit


def _has_gateway_host(_: Task, seat: _Seat) -> bool:
    return len(seat.gateway_hosts) < TASKS_PER_NODE_MAX


def _choose(
    task: Task, candidates: list[_Seat], seats: dict[NodeId, _Seat], filters: _Filters
) -> _Seat | None:
    """Return the best of `candidates` that `task` fits in.

    Those found unfit on the way leave the list: placing only takes room away, so neither will the
    task's equals fit in them.
    """
    groups = _preference_groups(task, seats.values())
    while candidates:
        best = min(candidates, key=lambda seat: _rank(task, seat, groups))
        if all(is_fit(task, best) for is_fit, _ in filters.all):
            return best
        candidates.remove(best)
    return None


def _eligible(task: Task, seats: dict[NodeId, _Seat]) -> list[_Seat]:
    """Return the seats to look at: for a global service's task, its own node's only."""
    if task.node is None:
        return list(seats.values())
    return [seats[task.node]] if task.node in seats else []


def _preference_groups(task: Task, seats: Iterable[_Seat]) -> Counter[tuple[str, ...]]:
    """Count the service's tasks in every branch of the tree that the preferences make of nodes."""
    groups: Counter[tuple[str, ...]] = Counter()
    for seat in seats if task.spec.placement.spread_over else ():
        path = _path(task, seat)
        for depth in range(1, len(path) + 1):
            groups[path[:depth]] += seat.active[task.service]
    return groups


def _path(task: Task, seat: _Seat) -> tuple[str, ...]:
    """Return the values of the labels that `task` is spread over, on this node."""
    values = (label_of(seat.node, descriptor) for descriptor in task.spec.placement.spread_over)
    return tuple(value for value in values if value is not None)


def _rank(
    task: Task, seat: _Seat, groups: Counter[tuple[str, ...]]
) -> tuple[int, list[int], int, int, NodeId]:
    """Return how bad this seat is for `task`; the node's id breaks ties."""
    failures = seat.failures[task.service]
    path = _path(task, seat)
    return (
        failures if failures >= FAILURES_MAX else 0,
        [groups[path[:depth]] for depth in range(1, len(path) + 1)],
        seat.active[task.service],
        seat.active_total,
        seat.node.id,
    )


def _explain(
    left: list[Task], seats: dict[NodeId, _Seat], filters: _Filters, now: float
) -> list[Change]:
    """Tell each task of `left`, unless it was told, what kept it from every node."""
    errors: dict[_Equals, str] = {}
    changes: list[Change] = []
    for task in left:
        if _equals(task) not in errors:
            errors[_equals(task)] = _no_suitable_node(task, _eligible(task, seats), filters)
        error = errors[_equals(task)]
        if task.status.error != error:
            status = replace(task.status, timestamp=now, error=error)
            changes.append(ReportStatus(task.id, task.node, status))
    return changes


def _no_suitable_node(task: Task, seats: Iterable[_Seat], filters: _Filters) -> str:
    failed = [next((text for fits, text in filters.all if not fits(task, s)), "") for s in seats]
    reasons = [
        text.format(nodes="1 node" if count == 1 else f"{count} nodes")
        for text, count in Counter(failed).most_common()
        if text
    ]
    return f"no suitable node ({'; '.join(reasons)})" if reasons else "no suitable node"
