"""The join of the three rooms (pure): what should exist, where it is, who lives -> one NodePlan.

Invariants: the same inputs, in any order, give an equal plan; an endpoint of another node is in the
plan exactly as long as its owner is of the cluster and its host lives, and its record stands;
connections are given only to endpoints that serve, of nodes that live; of one slot only to the
latest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from itertools import chain

from cluster.agent.claims import Settled, retire, settle
from cluster.agent.endpoints import endpoint_records
from cluster.agent.sightings import Endpoint, Reading
from cluster.allocation.compose import gateway_address, published_ports
from cluster.allocation.records import INGRESS_SCOPE, EndpointRecord, Phase, RecordPort
from cluster.model import network as model
from cluster.model.assignment import Assignment, ClusterInfo, NodeInfo
from cluster.model.ids import NetworkId, NodeId, TaskId
from cluster.model.service import EndpointMode, PublishMode
from cluster.model.task import SHORT_ID_LENGTH, Attachment
from dataplane.addressing import endpoint_mac, gateway_subnet
from dataplane.plan import (
    OVERLAY_MTU,
    IngressBackend,
    Interface,
    Name,
    Network,
    NodePlan,
    Peer,
    Pointer,
    Protocol,
    PublishedPort,
    RemoteEndpoint,
    Sandbox,
    Underlay,
    VirtualService,
)

MTU_OPTION = "com.docker.network.driver.mtu"
_MTU_MIN = 68
"""RFC 791."""


@dataclass(frozen=True, slots=True)
class View:
    """Everything that the plan of one node follows from."""

    node: NodeId
    assignment: Assignment
    info: ClusterInfo
    sandboxes: Collection[TaskId] = ()
    """Own tasks that have, or are to have, a sandbox."""
    phases: Mapping[TaskId, Phase] = field(default_factory=dict[TaskId, Phase])
    """Own tasks that may be reached."""
    reading: Reading = Reading()
    """What the live others say; what gossip has of this node itself does not count."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and what else follows from the same view."""

    plan: NodePlan
    draining: frozenset[tuple[str, TaskId]] = frozenset()
    """Scope and task of everything whose owner drains it: the plan gives it no new connections."""
    conflicts: int = 0
    """Things that several records claim."""


@dataclass(frozen=True, slots=True)
class _Node:
    """A view, and what follows from it at once."""

    view: View
    own: NodeInfo
    nodes: Mapping[NodeId, NodeInfo]
    tunnels: Mapping[NodeId, IPv4Address]
    """Data-path addresses of the other nodes that live, or whose hosts do."""
    endpoints: Mapping[str, list[Endpoint]]
    """Everyone's, by scope."""
    settled: Mapping[str, Settled]


def plan(view: View) -> Planned | None:
    """Return this node's plan; None while the cluster has not told who this node is."""
    nodes = {node.id: node for node in view.info.nodes}
    own = nodes.get(view.node)
    if own is None or (address := _address(own.data_address)) is None:
        return None
    said = _endpoints(view, nodes)
    endpoints = {scope: retire(found) for scope, found in said.items()}
    settled = {scope: settle(found) for scope, found in endpoints.items()}
    node = _Node(view, own, nodes, _tunnels(view, nodes), endpoints, settled)
    sandboxes = tuple(_sandboxes(node))
    networks = {NetworkId(i.network) for sandbox in sandboxes for i in sandbox.interfaces}
    peers = (
        Peer(nodes[peer].index, tunnel)
        for peer, tunnel in sorted(node.tunnels.items())
        if peer in nodes
    )
    made = NodePlan(
        underlay=Underlay(own.index, address, view.info.data_path_port),
        peers=tuple(peers),
        networks=tuple(
            _network(node, view.assignment.networks[network]) for network in sorted(networks)
        ),
        sandboxes=sandboxes,
        ports=_ports(node),
    )
    return Planned(made, _draining(said), sum(s.conflicts for s in settled.values()))


def _draining(endpoints: Mapping[str, list[Endpoint]]) -> frozenset[tuple[str, TaskId]]:
    return frozenset(
        (scope, endpoint.record.task)
        for scope, found in endpoints.items()
        for endpoint in found
        if endpoint.record.phase is Phase.DRAINING
    )


def _endpoints(view: View, nodes: Mapping[NodeId, NodeInfo]) -> dict[str, list[Endpoint]]:
    found: defaultdict[str, list[Endpoint]] = defaultdict(list)
    for place, record in endpoint_records(view.assignment, view.phases).items():
        found[place.scope].append(Endpoint(view.node, record))
    # A node that the managers removed may go on speaking: its allocations are worth nothing then.
    heard = {owner for owner in view.reading.live if owner in nodes}
    for scope, endpoints in view.reading.endpoints.items():
        found[scope].extend(e for e in endpoints if e.owner in heard)
    return dict(found)


def _sandboxes(node: _Node) -> Iterator[Sandbox]:
    assignment = node.view.assignment
    for task_id in sorted(node.view.sandboxes):
        task = assignment.tasks.get(task_id)
        if task is None or not all(map(partial(_is_allocated, assignment), task.attachments)):
            continue  # it waits for a network
        addresses = [(a.network, IPv4Address(a.address)) for a in task.attachments]
        yield Sandbox(
            id=task.id,
            interfaces=tuple(Interface(n, a, endpoint_mac(a)) for n, a in addresses),
            gateway_address=gateway_address(task, assignment.networks, node.own.index),
        )


def _is_allocated(assignment: Assignment, attachment: Attachment) -> bool:
    network = assignment.networks.get(attachment.network)
    if network is None or not attachment.address:
        return False
    return bool(network.subnet and network.gateway and network.vni)


def _tunnels(view: View, nodes: Mapping[NodeId, NodeInfo]) -> dict[NodeId, IPv4Address]:
    def tunnel_to(node: NodeId, said: str) -> IPv4Address | None:
        told = nodes[node].data_address if node in nodes else ""
        # What the node says of itself is fresher than what the managers last heard.
        return _address(said) or _address(told)

    tunnels: dict[NodeId, IPv4Address] = {}
    for node, said in view.reading.live.items():
        if node != view.node and (tunnel := tunnel_to(node, said)) is not None:
            tunnels[node] = tunnel
    taken = {*tunnels.values(), _address(nodes[view.node].data_address)}
    for node, said in view.reading.lost.items():
        tunnel = tunnel_to(node, said)
        # A machine may have come back as another node.
        if node in nodes and tunnel is not None and tunnel not in taken:
            tunnels[node] = tunnel
    return tunnels


def _address(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except AddressValueError:
        return None


def _network(node: _Node, network: model.Network) -> Network:
    subnet, gateway = IPv4Network(network.subnet), IPv4Address(network.gateway)
    settled = node.settled.get(network.id, Settled())
    endpoints = {a: e for a, e in settled.at.items() if a in subnet and a != gateway}
    serving = {a: e.record for a, e in endpoints.items() if e.record.phase is Phase.SERVING}
    name = network.spec.name
    last_words = {
        address: endpoint
        for endpoint in node.view.reading.last_words.get(network.id, ())
        if (address := endpoint.record.address) is not None and address in subnet
    }
    return Network(
        id=network.id,
        name=name,
        vni=network.vni,
        subnet=subnet,
        gateway=gateway,
        remotes=tuple(
            RemoteEndpoint(a, endpoint_mac(a), node.tunnels[e.owner])
            for a, e in sorted({**last_words, **endpoints}.items())
            if e.owner in node.tunnels
        ),
        services=_services(settled, (e.record for e in endpoints.values()), serving, subnet),
        names=tuple(
            Name(n, tuple(sorted(found, key=int)))
            for n, found in sorted(_names(settled, serving).items())
        ),
        pointers=_pointers(settled, serving, name),
        mtu=_mtu(network),
        internal=network.spec.internal,
    )


def _services(
    settled: Settled,
    records: Iterable[EndpointRecord],
    serving: Mapping[IPv4Address, EndpointRecord],
    subnet: IPv4Network,
) -> tuple[VirtualService, ...]:
    # A service whose last endpoint drains is kept: its clients are refused, not left waiting.
    vips = {vip for r in records if (vip := settled.vip_of(r)) is not None and vip in subnet}
    backends: dict[IPv4Address, list[IPv4Address]] = {vip: [] for vip in sorted(vips)}
    for address, record in serving.items():
        vip = settled.vip_of(record)
        if vip is not None and vip in backends:
            backends[vip].append(address)
    return tuple(VirtualService(vip, tuple(found)) for vip, found in backends.items())


def _names(
    settled: Settled, serving: Mapping[IPv4Address, EndpointRecord]
) -> dict[str, set[IPv4Address]]:
    names: defaultdict[str, set[IPv4Address]] = defaultdict(set)
    for address, record in serving.items():
        vip = settled.vip_of(record) if record.mode is EndpointMode.VIP else None
        called = (record.service_name,) if settled.has_name(record) else ()
        for name in (*called, *record.aliases):
            names[name.lower()].add(address if vip is None else vip)
            names[f"tasks.{name.lower()}"].add(address)
        for name in {record.task_name, record.task[:SHORT_ID_LENGTH], record.hostname} - {""}:
            names[name.lower()].add(address)
    return dict(names)


def _pointers(
    settled: Settled, serving: Mapping[IPv4Address, EndpointRecord], network: str
) -> tuple[Pointer, ...]:
    called = {address: record.task_name for address, record in serving.items()}
    for record in serving.values():
        vip = settled.vip_of(record) if record.mode is EndpointMode.VIP else None
        if vip is not None and settled.has_name(record):
            called.setdefault(vip, record.service_name)
    return tuple(Pointer(a, f"{called[a]}.{network}") for a in sorted(called, key=int))


def _mtu(network: model.Network) -> int:
    text = network.spec.options.get(MTU_OPTION, "")
    return max(_MTU_MIN, int(text)) if text.isdecimal() else OVERLAY_MTU


def _ports(node: _Node) -> tuple[PublishedPort, ...]:
    assignment = node.view.assignment
    found: dict[tuple[Protocol, int], set[IngressBackend]] = {
        (port.protocol, port.published): set()
        for service in assignment.services.values()
        for port in published_ports(service.endpoint.ports, PublishMode.INGRESS)
    }
    offers = chain(_ingress_offers(node), _host_offers(node))
    for port, index, address, is_serving in offers:
        backends = found.setdefault((port.protocol, port.published), set())
        if is_serving:
            backends.add(IngressBackend(index, address, port.target))
    return tuple(
        PublishedPort(protocol, number, tuple(sorted(backends, key=_backend_order)))
        for (protocol, number), backends in sorted(found.items())
    )


_Offer = tuple[RecordPort, int, IPv4Address, bool]
"""A port, the index of its node, the gateway address behind it, whether that serves."""


def _ingress_offers(node: _Node) -> Iterator[_Offer]:
    settled = node.settled.get(INGRESS_SCOPE, Settled())
    for endpoint in node.endpoints.get(INGRESS_SCOPE, ()):
        owner, record = node.nodes.get(endpoint.owner), endpoint.record
        if owner is None or record.gateway_address is None:
            continue
        if record.gateway_address not in gateway_subnet(owner.index):
            continue  # a node speaks for its own subnet only
        for port in record.ports:
            if settled.has_port(record, port):
                yield port, owner.index, record.gateway_address, record.phase is Phase.SERVING


def _host_offers(node: _Node) -> Iterator[_Offer]:
    assignment, index = node.view.assignment, node.own.index
    for task_id, phase in node.view.phases.items():
        task = assignment.tasks.get(task_id)
        if task is None or phase is Phase.STARTING:
            continue
        address = gateway_address(task, assignment.networks, index)
        if address is not None:
            for port in published_ports(task.host_ports or (), PublishMode.HOST):
                yield port, index, address, phase is Phase.SERVING


def _backend_order(backend: IngressBackend) -> tuple[int, IPv4Address, int]:
    return (backend.node_index, backend.address, backend.port)
