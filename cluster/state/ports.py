"""Who holds a port of the nodes: a service that publishes it, or the nodes themselves (pure)."""

from __future__ import annotations

from collections.abc import Iterable

from cluster.model.ids import ServiceId
from cluster.model.service import PortSpec, PublishMode, Service
from cluster.state.snapshot import Snapshot
from dataplane.plan import VXLAN_PORT


def published_ports(service: Service) -> tuple[PortSpec, ...]:
    """Return the ports that a service holds: those allocated, and those that its spec names."""
    allocated = service.endpoint.ports if service.endpoint else ()
    return (*allocated, *(p for p in service.spec.ports if p.published_port))


def clashing_port(
    snapshot: Snapshot, service_id: ServiceId, ports: Iterable[PortSpec]
) -> tuple[PortSpec, Service] | None:
    """Return the first of `ports` that another service holds, with that service.

    Swarm's rule: two host-mode ports never clash here (the scheduler keeps them on different
    nodes); any other pair with the same protocol and number does.
    """
    wanted = [p for p in ports if p.published_port]
    if not wanted:
        return None
    for other in snapshot.services.values():
        if other.id == service_id:
            continue
        for held in published_ports(other):
            for port in wanted:
                if _same(port, held):
                    return port, other
    return None


def ports_of_nodes(snapshot: Snapshot) -> set[tuple[str, int]]:
    """Return (protocol, port) of everything that the nodes say to each other.

    Published, such a port would take the cluster's own new connections on every node.
    """
    cluster = snapshot.cluster
    held = {("udp", cluster.data_path_port if cluster is not None else VXLAN_PORT)}
    for node in snapshot.nodes.values():
        held |= {("udp", node.gossip_port), ("tcp", node.gossip_port)}
        if node.manager_address:
            held.add(("tcp", int(node.manager_address.rpartition(":")[2])))
    return held


def _same(a: PortSpec, b: PortSpec) -> bool:
    both_host = a.mode is PublishMode.HOST and b.mode is PublishMode.HOST
    return (a.protocol, a.published_port) == (b.protocol, b.published_port) and not both_host
