"""What a user should know of wishes that are kept, though a part of the cluster cannot fulfil them.

Docker says the same of a kernel without memory limits: the task runs, the limit is discarded.
"""

from __future__ import annotations

from cluster.api.backend import EngineFacts
from cluster.api.lookup import node_name
from cluster.control.constraints import matches, parse_constraints
from cluster.model.node import NodeState
from cluster.model.service import PublishMode, Resources, ServiceSpec
from cluster.state.snapshot import Snapshot

NODES_SHOWN_MAX = 5


def cautions(spec: ServiceSpec, snapshot: Snapshot, facts: EngineFacts) -> list[str]:
    """Return a sentence for each such wish; facts: of the node that was asked."""
    return [*_limits(spec, snapshot), *_low_ports(spec, facts)]


def _limits(spec: ServiceSpec, snapshot: Snapshot) -> list[str]:
    if spec.task.limits == Resources():
        return []
    constraints = parse_constraints(spec.task.placement.constraints)
    without = sorted(
        node_name(node)
        for node in snapshot.nodes.values()
        if not node.description.has_limits
        and node.state is not NodeState.DOWN
        and matches(constraints, node)
    )
    if not without:
        return []
    more = len(without) - NODES_SHOWN_MAX
    shown = ", ".join(without[:NODES_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")
    text = (
        f"limits of memory and CPU have no effect on {shown}: no control groups to write to there"
    )
    return [f"{text}. Limitation discarded."]


def _low_ports(spec: ServiceSpec, facts: EngineFacts) -> list[str]:
    low = [
        f"{port.published_port}/{port.protocol}"
        for port in spec.ports
        if port.mode is PublishMode.INGRESS and 0 < port.published_port < facts.published_port_min
    ]
    if not low:
        return []
    text = f"port {', '.join(low)} does not answer at this machine's 127.0.x.y addresses"
    why = f"ports below {facts.published_port_min} need root"
    return [f"{text}, only inside the cluster: {why} (sysctl net.ipv4.ip_unprivileged_port_start)"]
