"""What the API refuses before it proposes anything (pure).

`state.apply` refuses again what two requests at once may bring about; here are the rules that need
arithmetic, and texts for the user.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from cluster.control.addresses import first_host, parse_subnet
from cluster.model.errors import Conflict, FailedPrecondition, Invalid
from cluster.model.ids import ServiceId
from cluster.model.network import NetworkSpec, SubnetSpec
from cluster.model.service import PortSpec, PublishMode, ServiceSpec
from cluster.state.ports import clashing_port, ports_of_nodes
from cluster.state.snapshot import Snapshot
from dataplane.addressing import RESERVED

PREFIX_LENGTH_MAX = 29
"""Smallest subnet: a gateway, a virtual IP and a few tasks (Swarm's limit)."""
UNUSABLE = tuple(
    IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
)
"""This network, loopback, link-local, multicast and reserved (RFC 6890)."""


def validate_network(spec: NetworkSpec, snapshot: Snapshot) -> None:
    """Check the subnet that `spec` asks for.

    Raises:
        Invalid: it makes no sense.
        Conflict: it overlaps another network's, or nodes' own addresses.
    """
    if len(spec.subnets) > 1:
        raise Invalid(f"network {spec.name}: at most one subnet is supported")
    for wish in spec.subnets:
        subnet = _subnet(wish.subnet)
        _check_range(wish, subnet)
        _check_gateway(wish, subnet)
        _check_overlap(subnet, snapshot)


def check_ports(spec: ServiceSpec, snapshot: Snapshot, service_id: ServiceId) -> None:
    """Check the published ports of `spec`, which the service `service_id` has or is to have.

    Raises:
        Invalid: `spec` publishes a port twice.
        FailedPrecondition: another service has it, or the nodes talk to each other there.
    """
    held = ports_of_nodes(snapshot)
    seen: set[tuple[str, int]] = set()
    for port in spec.ports:
        key = (port.protocol, port.published_port)
        if port.published_port and key in seen:
            raise Invalid(f"published port {port.published_port}/{port.protocol} is given twice")
        seen.add(key)
        if key in held:
            raise FailedPrecondition(
                f"port '{port.published_port}' ({port.protocol}) is already in use by the nodes of "
                "the cluster among themselves"
            )
    clash = clashing_port(snapshot, service_id, spec.ports)
    if clash is not None:
        port, holder = clash
        raise FailedPrecondition(
            f"port '{port.published_port}' is already in use by service "
            f"'{holder.spec.name}' ({holder.id}) as {_as_what(port, holder.spec.ports)} port"
        )


def check_ingress(spec: ServiceSpec, snapshot: Snapshot) -> None:
    """Check that there is an ingress network if `spec` publishes ports through it.

    Raises:
        FailedPrecondition: there is none, with Swarm's words.
    """
    is_needed = any(port.mode is PublishMode.INGRESS for port in spec.ports)
    if is_needed and not any(n.spec.ingress for n in snapshot.networks.values()):
        raise FailedPrecondition("service needs ingress network, but no ingress network is present")


def _as_what(port: PortSpec, held: tuple[PortSpec, ...]) -> str:
    hosts = {(p.protocol, p.published_port) for p in held if p.mode is PublishMode.HOST}
    is_host = (port.protocol, port.published_port) in hosts
    return "a host-published" if is_host else "an ingress"


def _subnet(text: str) -> IPv4Network:
    """Return the subnet that the user wrote.

    Raises:
        Invalid: it is none, or none that can be used.
    """
    if ":" in text:
        raise Invalid(f"subnet {text}: IPv6 is not supported yet")
    try:
        subnet = IPv4Network(text, strict=False)
    except ValueError:
        raise Invalid(f"subnet '{text}' is no CIDR address, for example 10.1.0.0/24") from None
    if "/" not in text or subnet.prefixlen > PREFIX_LENGTH_MAX:
        raise Invalid(f"subnet {text} is too small: use /{PREFIX_LENGTH_MAX} or larger")
    if text.partition("/")[0] != str(subnet.network_address):
        raise Invalid(f"subnet {text} has host bits set: did you mean {subnet}?")
    for unusable in UNUSABLE:
        if subnet.overlaps(unusable):
            raise Invalid(f"subnet {text} overlaps {unusable}, which no host can use")
    if subnet.overlaps(RESERVED):
        raise Invalid(f"subnet {text} overlaps {RESERVED}, which hivewire reserves for its nodes")
    return subnet


def _check_range(wish: SubnetSpec, subnet: IPv4Network) -> None:
    if not wish.ip_range:
        return
    try:
        within = IPv4Network(wish.ip_range)
    except ValueError:
        raise Invalid(f"IP range '{wish.ip_range}' is no CIDR address without host bits") from None
    if not within.subnet_of(subnet):
        raise Invalid(f"IP range {wish.ip_range} is not inside subnet {subnet}")
    hosts = [a for a in (within[0], within[-1]) if _is_host(a, subnet)]
    gateway = wish.gateway or str(first_host(subnet))
    if not [a for a in hosts if str(a) != gateway]:
        raise Invalid(f"IP range {wish.ip_range} leaves no address for tasks")


def _check_gateway(wish: SubnetSpec, subnet: IPv4Network) -> None:
    if not wish.gateway:
        return
    try:
        gateway = IPv4Address(wish.gateway)
    except ValueError:
        raise Invalid(f"gateway '{wish.gateway}' is no IPv4 address") from None
    if not _is_host(gateway, subnet):
        raise Invalid(f"gateway {wish.gateway} is no host address of subnet {subnet}")


def _is_host(address: IPv4Address, subnet: IPv4Network) -> bool:
    return subnet.network_address < address < subnet.broadcast_address


def _check_overlap(subnet: IPv4Network, snapshot: Snapshot) -> None:
    for network in snapshot.networks.values():
        wished = network.spec.subnets[0].subnet if network.spec.subnets else ""
        other = network.subnet or wished
        if other and subnet.overlaps(IPv4Network(other)):
            raise Conflict(f"subnet {subnet} overlaps network {network.spec.name} ({other})")
    for node in snapshot.nodes.values():
        for text in {node.address, node.data_address}:
            address = parse_subnet(text)
            if address is not None and subnet.overlaps(address):
                name = node.description.hostname
                raise Conflict(f"subnet {subnet} contains the address of node {name} ({text})")
