"""What a plan means for one node: its networks, sandboxes and ingress as things to hold (pure).

A `NodeState` is the vocabulary that the wanted and the found state of a node share: `wanted_state`
makes one from a plan, a driver reads one back from the kernel, `dataplane.diff` compares the two.
DNS names are left out: no device carries them.

Invariant: two plans that differ only in what a driver doesn't hold (names, pointers) have equal
states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from dataplane.plan import (
    OVERLAY_MTU,
    Network,
    NodePlan,
    Peer,
    PublishedPort,
    RemoteEndpoint,
    Sandbox,
    VirtualService,
)


@dataclass(frozen=True, slots=True)
class Segment:
    """The tunnel device of one network on this node."""

    vni: int
    mtu: int
    tunnel: IPv4Address
    """Source of what it encapsulates: this node's data-path address."""
    port: int
    """UDP port of the tunnel, here and on every peer."""


@dataclass(frozen=True, slots=True)
class NetworkState:
    """One network as this node holds it."""

    segment: Segment | None
    """None: the namespace and bridge are there, the tunnel is not."""
    remotes: frozenset[RemoteEndpoint] = frozenset()


@dataclass(frozen=True, slots=True)
class Port:
    """One end of a virtual cable, in a sandbox; the other is in a network's bridge."""

    network: str
    address: IPv4Address
    prefix_length: int
    mac: str
    mtu: int


@dataclass(frozen=True, slots=True)
class Uplink:
    """A sandbox's way out of the overlay: a cable to the node, with the default route."""

    address: IPv4Address
    node_index: int
    mtu: int


@dataclass(frozen=True, slots=True)
class SandboxState:
    """One sandbox as this node holds it."""

    interfaces: Mapping[int, Port | Uplink] = field(default_factory=dict[int, Port | Uplink])
    """By number: 0 is eth0. The uplink, if any, is the last one."""
    services: tuple[VirtualService, ...] | None = ()
    """None: the rules found are not the ones wanted, and what they are is not known."""


@dataclass(frozen=True, slots=True)
class Base:
    """This node's gateway address, its device on the ingress network and their routing."""

    index: int
    address: IPv4Address
    """Data-path address."""
    port: int
    mtu: int


@dataclass(frozen=True, slots=True)
class IngressRules:
    """Everything that the node's own firewall rules depend on."""

    base: Base
    peers: frozenset[Peer]
    ports: tuple[PublishedPort, ...]


@dataclass(frozen=True, slots=True)
class NodeState:
    """All that a driver holds on a node."""

    base: Base | None = None
    peers: frozenset[Peer] = frozenset()
    networks: Mapping[str, NetworkState] = field(default_factory=dict[str, NetworkState])
    sandboxes: Mapping[str, SandboxState] = field(default_factory=dict[str, SandboxState])
    rules: IngressRules | None = None
    """As found: None when there are none, or others than wanted."""
    is_observed: bool = False
    """Read back from the kernel: what was there before is not known."""


def wanted_state(
    plan: NodePlan, uplink_mtu: int = OVERLAY_MTU, previous: NodeState | None = None
) -> NodeState:
    """Return what the node must hold to match `plan`.

    uplink_mtu: MTU in bytes of the uplinks and the ingress tunnel. previous: a state whose equal
    parts are shared, so that comparing the two is quick.
    """
    underlay = plan.underlay
    if underlay is None:
        return NodeState()
    base = Base(underlay.index, underlay.address, underlay.vxlan_port, uplink_mtu)
    networks = {network.id: network for network in plan.networks}
    known = NodeState() if previous is None else previous
    services = _ServicesByNetworks(networks, known)
    peers = frozenset(peer for peer in plan.peers if peer.index != underlay.index)
    return NodeState(
        base=base,
        peers=peers,
        networks={
            network.id: NetworkState(
                Segment(network.vni, network.mtu, underlay.address, underlay.vxlan_port),
                _shared_remotes(network, known),
            )
            for network in plan.networks
        },
        sandboxes={
            sandbox.id: SandboxState(_interfaces(sandbox, networks, base), services.of(sandbox))
            for sandbox in plan.sandboxes
        },
        rules=IngressRules(
            base,
            peers,
            tuple(sorted(plan.ports, key=lambda port: (port.protocol, port.port))),
        ),
    )


class _ServicesByNetworks:
    """Joins the services of a sandbox's networks, once for all sandboxes on the same ones."""

    def __init__(self, networks: Mapping[str, Network], previous: NodeState) -> None:
        self._networks = networks
        self._previous = previous.sandboxes
        self._known: dict[tuple[str, ...], tuple[VirtualService, ...]] = {}

    def of(self, sandbox: Sandbox) -> tuple[VirtualService, ...]:
        """Return the services that `sandbox` may reach by virtual address."""
        key = tuple(interface.network for interface in sandbox.interfaces)
        if key not in self._known:
            services = tuple(
                service for network in key for service in self._networks[network].services
            )
            before = self._previous.get(sandbox.id)
            is_equal = before is not None and before.services == services
            self._known[key] = (before.services or ()) if before and is_equal else services
        return self._known[key]


def _shared_remotes(network: Network, previous: NodeState) -> frozenset[RemoteEndpoint]:
    remotes = frozenset(network.remotes)
    before = previous.networks.get(network.id)
    return before.remotes if before is not None and before.remotes == remotes else remotes


def _interfaces(
    sandbox: Sandbox, networks: Mapping[str, Network], base: Base
) -> dict[int, Port | Uplink]:
    found: dict[int, Port | Uplink] = {}
    for number, interface in enumerate(sandbox.interfaces):
        network = networks[interface.network]
        prefix_length = network.subnet.prefixlen
        found[number] = Port(
            network.id, interface.address, prefix_length, interface.mac, network.mtu
        )
    if sandbox.gateway_address is not None:
        found[len(sandbox.interfaces)] = Uplink(sandbox.gateway_address, base.index, base.mtu)
    return found
