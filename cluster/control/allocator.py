"""Gives networks, services and tasks what must be unique in the cluster (pure).

One look goes down the dependencies: networks (VNI, subnet, gateway), then services (a virtual IP in
each network, published ports), then NEW tasks (an address in each network), which are PENDING from
then on. What cannot be had yet is asked for again at every look, and the tasks that wait for it say
so in their status.

Invariants: at any moment an address of a network has at most one holder: its gateway, a service's
virtual IP, or a task that has not ended. What a service has been given stays when its spec changes,
as far as the new spec still asks for it. The ingress network is routed: no task and no service has
an address in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from cluster.control.addresses import AddressPool, carve, first_host, parse_subnet
from cluster.model.cluster import Cluster
from cluster.model.ids import NetworkId, ServiceId
from cluster.model.network import Network
from cluster.model.service import (
    Endpoint,
    EndpointMode,
    PortSpec,
    Service,
    ServiceSpec,
    VirtualAddress,
)
from cluster.model.task import Attachment, Task, TaskState, is_ended
from cluster.state.changes import (
    AllocateNetwork,
    AllocateService,
    AllocateTask,
    Change,
    ReportStatus,
)
from cluster.state.ports import ports_of_nodes, published_ports
from cluster.state.snapshot import Snapshot
from dataplane.addressing import INGRESS_VNI, RESERVED

VNI_FIRST = INGRESS_VNI + 1
VNI_LAST = (1 << 24) - 1
"""VXLAN network identifiers have 24 bits (RFC 7348)."""
DYNAMIC_PORTS = range(30000, 32768)
"""Published ports that nobody chose come from here (swarmkit's range)."""


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why something cannot be allocated now, for the user."""

    error: str


def decide(snapshot: Snapshot, now: float) -> list[Change]:
    """Return the allocations that can be made now."""
    if snapshot.cluster is None:
        return []
    new_networks = _allocate_networks(snapshot, snapshot.cluster)
    networks = {**snapshot.networks, **{n.id: n for n in new_networks}}
    addresses = _Addresses(snapshot, networks)
    endpoints = _Endpoints(snapshot, addresses)
    changes: list[Change] = [
        AllocateNetwork(n.id, n.vni, n.subnet, n.gateway) for n in new_networks
    ]
    shortages: dict[ServiceId, Shortage] = {}
    for service in snapshot.services.values():
        match endpoints.allocate(service):
            case Shortage() as shortage:
                shortages[service.id] = shortage
            case endpoint if endpoint != service.endpoint:
                changes.append(AllocateService(service.id, endpoint, service.meta.version))
            case _:
                pass
    for task in snapshot.tasks.values():
        if task.status.state is TaskState.NEW and task.desired_state <= TaskState.RUNNING:
            changes += _allocate_task(task, shortages.get(task.service), addresses, now)
    return changes


def wanted_networks(spec: ServiceSpec, networks: dict[NetworkId, Network]) -> list[NetworkId]:
    """Return the networks that tasks of `spec` have an interface in."""
    return [
        a.target
        for a in spec.task.networks
        if a.target not in networks or not networks[a.target].spec.ingress
    ]


def _allocate_task(
    task: Task, shortage: Shortage | None, addresses: _Addresses, now: float
) -> list[Change]:
    """Return the task's addresses, or, once, why there are none."""
    got = shortage or _attachments(task, addresses)
    if not isinstance(got, Shortage):
        return [AllocateTask(task.id, got, now)]
    if task.status.error == got.error:
        return []
    status = replace(task.status, timestamp=now, message="waiting for addresses", error=got.error)
    return [ReportStatus(task.id, task.node, status)]


def _attachments(task: Task, addresses: _Addresses) -> tuple[Attachment, ...] | Shortage:
    made: list[Attachment] = []
    shortage: Shortage | None = None
    for wish in task.spec.networks:
        if addresses.is_routed(wish.target):
            continue
        match addresses.take(wish.target):
            case Shortage() as found:
                shortage = found
                break
            case address:
                made.append(Attachment(wish.target, address, wish.aliases))
    if shortage is None:
        return tuple(made)
    for attachment in made:
        addresses.give_back(attachment.network, attachment.address)
    return shortage


def _allocate_networks(snapshot: Snapshot, cluster: Cluster) -> list[Network]:
    """Return the networks that get their VNI and subnet now, with them."""
    waiting = [n for n in snapshot.networks.values() if not n.vni]
    if not waiting:
        return []
    vnis = {n.vni for n in snapshot.networks.values()}
    allocated = [s for n in snapshot.networks.values() if n.vni and (s := parse_subnet(n.subnet))]
    chosen = [s for n in waiting if (s := _chosen_subnet(n))]
    avoided = [RESERVED, *allocated, *chosen, *_node_addresses(snapshot)]
    pools = [p for p in map(parse_subnet, cluster.address_pool) if p]
    made: list[Network] = []
    for network in sorted(waiting, key=lambda n: not n.spec.subnets):
        subnet = _chosen_subnet(network)
        if subnet is None:
            subnet = carve(pools, cluster.subnet_size, avoided)
        elif any(subnet.overlaps(s) for s in (RESERVED, *allocated)):
            continue  # lost a race between two requests; waits for the other network to go
        if subnet is None:
            continue
        vni = INGRESS_VNI if network.spec.ingress else _lowest_free(vnis)
        allocated.append(subnet)
        avoided.append(subnet)
        vnis.add(vni)
        gateway = _chosen_gateway(network) or str(first_host(subnet))
        made.append(replace(network, vni=vni, subnet=str(subnet), gateway=gateway))
    return made


def _chosen_subnet(network: Network) -> IPv4Network | None:
    """Return the subnet that the user asked for."""
    return parse_subnet(network.spec.subnets[0].subnet) if network.spec.subnets else None


def _chosen_gateway(network: Network) -> str:
    return network.spec.subnets[0].gateway if network.spec.subnets else ""


def _node_addresses(snapshot: Snapshot) -> Iterable[IPv4Network]:
    """Yield the nodes' own addresses: a subnet over them would cut its tasks off from the nodes."""
    for node in snapshot.nodes.values():
        for text in {node.address, node.data_address}:
            address = parse_subnet(text)
            if address is not None:
                yield address


def _lowest_free(vnis: set[int]) -> int:
    return next(vni for vni in range(VNI_FIRST, VNI_LAST + 1) if vni not in vnis)


class _Endpoints:
    """What services hold already, and what they get now."""

    def __init__(self, snapshot: Snapshot, addresses: _Addresses) -> None:
        self._snapshot = snapshot
        self._addresses = addresses
        self._ports: set[tuple[str, int]] | None = None

    def allocate(self, service: Service) -> Endpoint | Shortage:
        """Return the endpoint of `service` as its spec asks for it."""
        ports = self._published(service)
        if isinstance(ports, Shortage):
            return ports
        virtual = self._virtual_addresses(service)
        if isinstance(virtual, Shortage):
            return virtual
        held = service.endpoint or Endpoint()
        return Endpoint(ports, virtual, held.allocation)

    def _virtual_addresses(self, service: Service) -> tuple[VirtualAddress, ...] | Shortage:
        if service.spec.endpoint_mode is not EndpointMode.VIP:
            return ()
        held = service.endpoint.virtual_addresses if service.endpoint else ()
        had = {v.network: v for v in held}
        found: list[VirtualAddress] = []
        for network in wanted_networks(service.spec, self._snapshot.networks):
            if network in had:
                found.append(had[network])
                continue
            match self._addresses.take(network):
                case Shortage() as shortage:
                    for fresh in (v for v in found if v.network not in had):
                        self._addresses.give_back(fresh.network, fresh.address)
                    return shortage
                case address:
                    found.append(VirtualAddress(network, address))
        return tuple(found)

    def _published(self, service: Service) -> tuple[PortSpec, ...] | Shortage:
        chosen = {(p.protocol, p.published_port) for p in service.spec.ports}
        held = service.endpoint.ports if service.endpoint else ()
        spare = [p for p in held if (p.protocol, p.published_port) not in chosen]
        found: list[PortSpec] = []
        for port in service.spec.ports:
            published = port.published_port or _kept(port, spare) or self._free_port(port)
            if not published:
                return Shortage(f"no published port is free for {port.protocol}")
            found.append(replace(port, published_port=published))
        return tuple(found)

    def _free_port(self, port: PortSpec) -> int:
        """Return a dynamic port that is now held; 0: there is none."""
        if self._ports is None:
            services = self._snapshot.services.values()
            held = [p for service in services for p in published_ports(service)]
            self._ports = ports_of_nodes(self._snapshot)
            self._ports |= {(p.protocol, p.published_port) for p in held}
        for number in DYNAMIC_PORTS:
            if (port.protocol, number) not in self._ports:
                self._ports.add((port.protocol, number))
                return number
        return 0


def _kept(port: PortSpec, spare: list[PortSpec]) -> int:
    """Return the number that this port had before, and take it out of `spare`; 0: none."""
    for old in spare:
        same = (old.protocol, old.target_port, old.mode) == (
            port.protocol,
            port.target_port,
            port.mode,
        )
        if same:
            spare.remove(old)
            return old.published_port
    return 0


class _Addresses:
    """The address pools of all networks; each is made when it is first needed."""

    def __init__(self, snapshot: Snapshot, networks: dict[NetworkId, Network]) -> None:
        self._snapshot = snapshot
        self._networks = networks
        self._pools: dict[NetworkId, AddressPool] = {}
        self._usage: dict[NetworkId, _Usage] | None = None

    def is_routed(self, network_id: NetworkId) -> bool:
        """Return whether tasks have no interface in this network."""
        network = self._networks.get(network_id)
        return network is not None and network.spec.ingress

    def take(self, network_id: NetworkId) -> str | Shortage:
        """Return an address of the network that is held from now on."""
        network = self._networks.get(network_id)
        if network is None:
            return Shortage(f"network {network_id} not found")
        if not network.vni:
            return Shortage(_why_unallocated(network))
        address = self._pool(network).take()
        if address is None:
            return Shortage(
                f"no available IPv4 addresses on network {network.spec.name} ({network.subnet})"
            )
        return address

    def give_back(self, network_id: NetworkId, address: str) -> None:
        """Make an address free that `take` returned in this look."""
        self._pool(self._networks[network_id]).give_back(address)

    def _pool(self, network: Network) -> AddressPool:
        pool = self._pools.get(network.id)
        if pool is None:
            if self._usage is None:
                self._usage = _usage(self._snapshot)
            usage = self._usage.get(network.id, _Usage(set()))
            held = {*usage.held, int(IPv4Address(network.gateway))}
            spec = network.spec.subnets[0] if network.spec.subnets else None
            pool = AddressPool(IPv4Network(network.subnet), spec, held, usage.recent[1])
            self._pools[network.id] = pool
        return pool


def _why_unallocated(network: Network) -> str:
    if network.spec.subnets:
        return f"network {network.spec.name}: its subnet overlaps another network's"
    return f"network {network.spec.name}: no subnet is left in the cluster's address pool"


@dataclass(slots=True)
class _Usage:
    """One network's addresses."""

    held: set[int]
    recent: tuple[float, int] = (0.0, 0)
    """When the latest holder was made that is still known, and its address."""

    def add(self, address: str, made_at: float, *, is_held: bool) -> None:
        number = int(IPv4Address(address))
        if is_held:
            self.held.add(number)
        self.recent = max(self.recent, (made_at, number))


def _usage(snapshot: Snapshot) -> dict[NetworkId, _Usage]:
    found: dict[NetworkId, _Usage] = {}
    for service in snapshot.services.values():
        for virtual in service.endpoint.virtual_addresses if service.endpoint else ():
            usage = found.setdefault(virtual.network, _Usage(set()))
            usage.add(virtual.address, service.meta.created_at, is_held=True)
    for task in snapshot.tasks.values():
        is_held = not is_ended(task.status.state)
        for attachment in task.attachments:
            usage = found.setdefault(attachment.network, _Usage(set()))
            usage.add(attachment.address, task.meta.created_at, is_held=is_held)
    return found
