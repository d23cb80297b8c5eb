"""The desired state of one node's data plane, as plain immutable values (pure).

The planner builds a `NodePlan`, a driver makes the node match it, and the DNS server answers from
the same value, so that names and addresses never disagree.

Invariant: a plan is complete. What is absent from it must not exist on the node.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network

VXLAN_PORT = 4789
"""UDP port of every tunnel (RFC 7348)."""
OVERLAY_MTU = 1450
"""Bytes: an Ethernet MTU of 1500 less the 50 bytes of VXLAN over IPv4 (RFC 7348)."""


class Protocol(StrEnum):
    """Transport protocol of a published port."""

    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, slots=True)
class Underlay:
    """How this node is reached by the other nodes of the cluster."""

    index: int
    """Number of the node in its cluster, 1..4094, allocated by the managers, never reused while
    the node exists. Fixes the node's gateway subnet and MAC (see `dataplane.addressing`)."""
    address: IPv4Address
    """Data-path address: source of everything that this node encapsulates."""
    vxlan_port: int = VXLAN_PORT


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node of the cluster that ingress traffic may go to or come from."""

    index: int
    address: IPv4Address
    """Data-path address."""


@dataclass(frozen=True, slots=True)
class RemoteEndpoint:
    """A sandbox on another node, in one network."""

    address: IPv4Address
    mac: str
    tunnel: IPv4Address
    """Data-path address of its node."""


@dataclass(frozen=True, slots=True)
class Name:
    """One DNS name of one network and what it resolves to."""

    name: str
    """Lower case, without the network's name: `web`, `tasks.web`, `web.1.abc`."""
    addresses: tuple[IPv4Address, ...]


@dataclass(frozen=True, slots=True)
class Pointer:
    """Reverse name of an address."""

    address: IPv4Address
    name: str
    """`<task name>.<network name>`."""


@dataclass(frozen=True, slots=True)
class VirtualService:
    """A virtual IP and the endpoints it is balanced over, round robin, any port."""

    vip: IPv4Address
    backends: tuple[IPv4Address, ...]
    """Sorted. Endpoints that drain or are unhealthy are absent."""


@dataclass(frozen=True, slots=True)
class Network:
    """One overlay network that has a sandbox on this node."""

    id: str
    name: str
    vni: int
    subnet: IPv4Network
    gateway: IPv4Address
    """Address of the subnet that no task gets; the bridge itself carries none."""
    remotes: tuple[RemoteEndpoint, ...] = ()
    services: tuple[VirtualService, ...] = ()
    names: tuple[Name, ...] = ()
    pointers: tuple[Pointer, ...] = ()
    mtu: int = OVERLAY_MTU
    internal: bool = False
    """Sandboxes only on internal networks get no gateway interface."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A sandbox's port in one network."""

    network: str
    """Id of a `Network` of the same plan."""
    address: IPv4Address
    mac: str


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The network namespace of one task."""

    id: str
    """The task's id."""
    interfaces: tuple[Interface, ...] = ()
    """eth0, eth1, ... in this order."""
    gateway_address: IPv4Address | None = None
    """Address in this node's gateway subnet: the way out and in of the overlay (default route,
    ingress); None for none."""


@dataclass(frozen=True, slots=True)
class IngressBackend:
    """One replica behind a published port."""

    node_index: int
    address: IPv4Address
    """The replica's gateway address, on whatever node it runs."""
    port: int
    """Target port in the sandbox."""


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """A port that this node answers on for a service."""

    protocol: Protocol
    port: int
    backends: tuple[IngressBackend, ...]
    """Sorted; empty: connections are refused."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """Everything this node forwards."""

    underlay: Underlay | None = None
    """None before the node has joined a cluster: then everything else is empty."""
    peers: tuple[Peer, ...] = ()
    networks: tuple[Network, ...] = ()
    sandboxes: tuple[Sandbox, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
