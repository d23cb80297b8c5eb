"""A cluster as the tests of drivers see it, and the plan of each node that follows."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from dataplane.addressing import endpoint_mac, gateway_subnet
from dataplane.plan import (
    IngressBackend,
    Interface,
    Network,
    NodePlan,
    Peer,
    Protocol,
    PublishedPort,
    RemoteEndpoint,
    Sandbox,
    Underlay,
    VirtualService,
)

CLIENT = 100
NETWORK = "blue"
VNI = 5001
SUBNET = IPv4Network("198.19.0.0/24")
VIP = IPv4Address("198.19.0.200")
TCP_PORT = 9000
UDP_PORT = 9001
PUBLISHED = 8080


def underlay(number: int) -> IPv4Address:
    return IPv4Address(f"198.18.0.{number}")


@dataclass(frozen=True)
class Replica:
    """A sandbox with a server in it."""

    name: str
    node: int
    number: int
    """Its addresses end in this."""

    @property
    def address(self) -> IPv4Address:
        return SUBNET.network_address + self.number

    @property
    def gateway_address(self) -> IPv4Address:
        return gateway_subnet(self.node).network_address + self.number


@dataclass(frozen=True)
class World:
    """What exists in the cluster; each node's plan follows from it."""

    nodes: int
    replicas: tuple[Replica, ...] = ()
    """All sandboxes."""
    backends: tuple[Replica, ...] = ()
    """Those that the service balances over."""
    ports: tuple[tuple[Protocol, int, int], ...] = (
        (Protocol.TCP, PUBLISHED, TCP_PORT),
        (Protocol.UDP, PUBLISHED, UDP_PORT),
    )
    vxlan_port: int = 4789

    def plan(self, node: int) -> NodePlan:
        """Return what node number `node` has to forward."""
        here = [replica for replica in self.replicas if replica.node == node]
        network = Network(
            id=NETWORK,
            name=NETWORK,
            vni=VNI,
            subnet=SUBNET,
            gateway=SUBNET.network_address + 1,
            remotes=tuple(
                RemoteEndpoint(r.address, endpoint_mac(r.address), underlay(r.node))
                for r in self.replicas
                if r.node != node
            ),
            services=(VirtualService(VIP, tuple(sorted(r.address for r in self.backends))),),
        )
        return NodePlan(
            underlay=Underlay(node, underlay(node), self.vxlan_port),
            peers=tuple(Peer(n, underlay(n)) for n in range(1, self.nodes + 1) if n != node),
            networks=(network,) if here else (),
            sandboxes=tuple(
                Sandbox(
                    r.name,
                    (Interface(NETWORK, r.address, endpoint_mac(r.address)),),
                    r.gateway_address,
                )
                for r in here
            ),
            ports=tuple(
                PublishedPort(
                    protocol,
                    published,
                    tuple(IngressBackend(r.node, r.gateway_address, target) for r in self.backends),
                )
                for protocol, published, target in self.ports
            ),
        )
