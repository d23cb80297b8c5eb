"""Two states of a node into the operations that lead from one to the other, in order (pure).

`operations(found, wanted)` first makes room where something new needs what something old holds,
then makes what is missing, then turns rules over to it, then forgets the flows of what went away
(`ForgetGone` may come later), and only then removes. So a backend exists before the first rule
names it and is out of every rule before it goes.

Invariants: `operations(s, s) == ()`; every operation may be performed again, and over what an
interrupted performance left.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from dataplane.plan import Peer, Protocol, RemoteEndpoint, VirtualService
from dataplane.state import (
    Base,
    IngressRules,
    NetworkState,
    NodeState,
    Port,
    SandboxState,
    Segment,
    Uplink,
)


@dataclass(frozen=True, slots=True)
class MakeBase:
    """Make the gateway device, the ingress tunnel device and their routing."""

    base: Base


@dataclass(frozen=True, slots=True)
class RemoveBase:
    """Remove what `MakeBase` and `SetRules` made."""


@dataclass(frozen=True, slots=True)
class AddPeers:
    """Make nodes reachable through the ingress tunnel, or follow them to another address."""

    base: Base
    peers: tuple[Peer, ...]


@dataclass(frozen=True, slots=True)
class DropPeers:
    """Undo `AddPeers`; a peer that only moved is not dropped."""

    peers: tuple[Peer, ...]


@dataclass(frozen=True, slots=True)
class MakeNetwork:
    """Make a network's namespace and bridge."""

    network: str


@dataclass(frozen=True, slots=True)
class SetSegment:
    """Make, or replace, a network's tunnel device; it starts without remotes."""

    network: str
    segment: Segment


@dataclass(frozen=True, slots=True)
class RemoveNetwork:
    """Remove a network's namespace with everything in it."""

    network: str


@dataclass(frozen=True, slots=True)
class AddRemotes:
    """Make endpoints on other nodes reachable, or follow them to another node."""

    network: str
    remotes: tuple[RemoteEndpoint, ...]


@dataclass(frozen=True, slots=True)
class DropRemotes:
    """Forget addresses and MACs of endpoints on other nodes."""

    network: str
    addresses: tuple[IPv4Address, ...]
    macs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MakeSandbox:
    """Make a sandbox's namespace, with loopback only."""

    sandbox: str


@dataclass(frozen=True, slots=True)
class Plug:
    """Make, or replace, one interface of a sandbox."""

    sandbox: str
    number: int
    interface: Port | Uplink


@dataclass(frozen=True, slots=True)
class Unplug:
    """Remove one interface of a sandbox."""

    sandbox: str
    number: int


@dataclass(frozen=True, slots=True)
class RemoveSandboxes:
    """Unplug sandboxes and forget their namespaces, which end with their last processes."""

    sandboxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SetServices:
    """Make a sandbox's virtual addresses balance as wanted."""

    sandbox: str
    before: tuple[VirtualService, ...] | None
    """None: unknown, replace everything."""
    after: tuple[VirtualService, ...]
    is_new: bool
    """Nothing was balanced in the sandbox so far."""


@dataclass(frozen=True, slots=True)
class SetRules:
    """Make the node's ports balance as wanted."""

    before: IngressRules | None
    """None: unknown, replace everything."""
    after: IngressRules
    is_new: bool
    """Nothing was balanced on the node so far."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A set of tracked connections: those that were balanced to one backend."""

    backend: IPv4Address
    vip: IPv4Address | None = None
    """None: whatever address the client asked for."""
    protocol: Protocol | None = None
    """None: all."""
    port: int | None = None
    """Port of the backend; None: all. Needs `protocol`."""


@dataclass(frozen=True, slots=True)
class ForgetFlows:
    """Let the next packet of these connections be balanced anew."""

    sandbox: str | None
    """Where they are tracked; None: on the node itself."""
    flows: tuple[Flow, ...]


@dataclass(frozen=True, slots=True)
class ForgetGone:
    """Let the next packet of a sandbox's connections to endpoints that are gone be balanced anew.

    Another endpoint resets them then. There is no hurry, it may come after all else: where an
    endpoint's task ended, not its node, the task's own kernel has closed them.
    """

    sandbox: str
    flows: tuple[Flow, ...]


Operation = (
    MakeBase
    | RemoveBase
    | AddPeers
    | DropPeers
    | MakeNetwork
    | SetSegment
    | RemoveNetwork
    | AddRemotes
    | DropRemotes
    | MakeSandbox
    | Plug
    | Unplug
    | RemoveSandboxes
    | SetServices
    | SetRules
    | ForgetFlows
    | ForgetGone
)


def operations(found: NodeState, wanted: NodeState) -> tuple[Operation, ...]:
    """Return what leads from `found` to `wanted`, in order."""
    early, late = _removals(found, wanted)
    return (
        *early,
        *_base(found, wanted),
        *_networks(found, wanted),
        *_sandboxes(found, wanted),
        *_services(found, wanted),
        *_rules(found, wanted),
        *_flows(found, wanted),
        *late,
    )


def _base(found: NodeState, wanted: NodeState) -> list[Operation]:
    if wanted.base is None:
        return []
    made: list[Operation] = []
    known = found.peers
    if found.base != wanted.base:
        made.append(MakeBase(wanted.base))
        known = frozenset[Peer]()
    if missing := wanted.peers - known:
        made.append(AddPeers(wanted.base, tuple(sorted(missing, key=_by_index))))
    return made


def _networks(found: NodeState, wanted: NodeState) -> list[Operation]:
    made: list[Operation] = []
    for name, network in wanted.networks.items():
        current = found.networks.get(name)
        if current is None:
            made.append(MakeNetwork(name))
            current = NetworkState(None)
        known = current.remotes
        if network.segment is not None and current.segment != network.segment:
            made.append(SetSegment(name, network.segment))
            known = frozenset[RemoteEndpoint]()
        if missing := network.remotes - known:
            made.append(AddRemotes(name, tuple(sorted(missing, key=_by_address))))
    return made


def _sandboxes(found: NodeState, wanted: NodeState) -> list[Operation]:
    made: list[Operation] = []
    for name, sandbox in wanted.sandboxes.items():
        current = found.sandboxes.get(name)
        if current is None:
            made.append(MakeSandbox(name))
            current = SandboxState()
        surplus = current.interfaces.keys() - sandbox.interfaces.keys()
        # Before the new ones: an address or a default route may only be there once.
        made.extend(Unplug(name, number) for number in sorted(surplus))
        for number, interface in sandbox.interfaces.items():
            if current.interfaces.get(number) != interface:
                made.append(Plug(name, number, interface))
    return made


def _services(found: NodeState, wanted: NodeState) -> list[Operation]:
    made: list[Operation] = []
    for name, sandbox in wanted.sandboxes.items():
        before = found.sandboxes.get(name, SandboxState()).services
        if sandbox.services is not None and before != sandbox.services:
            is_new = name not in found.sandboxes or (before == () and not found.is_observed)
            made.append(SetServices(name, before, sandbox.services, is_new=is_new))
    return made


def _rules(found: NodeState, wanted: NodeState) -> list[Operation]:
    if wanted.rules is None or found.rules == wanted.rules:
        return []
    # Making the base anew may have taken the devices that the rules hang on with it.
    before = found.rules if found.base == wanted.base else None
    return [SetRules(before, wanted.rules, is_new=found.base is None)]


def _flows(found: NodeState, wanted: NodeState) -> list[Operation]:
    forgotten: list[Operation] = []
    gone = _gone_endpoints(found, wanted)
    for name, sandbox in wanted.sandboxes.items():
        before = found.sandboxes.get(name)
        if before is None:
            continue
        if flows := _datagram_flows(before.services or (), sandbox.services or ()):
            forgotten.append(ForgetFlows(name, tuple(flows)))
        flows = [
            Flow(address)
            for network, address in sorted(gone)
            if any(
                isinstance(interface, Port) and interface.network == network
                for interface in before.interfaces.values()
            )
        ]
        if flows:
            forgotten.append(ForgetGone(name, tuple(flows)))
    if flows := _port_flows(found.rules, wanted.rules):
        forgotten.append(ForgetFlows(None, tuple(flows)))
    return forgotten


def _gone_endpoints(found: NodeState, wanted: NodeState) -> set[tuple[str, IPv4Address]]:
    """Return network and address of the endpoints that no node has any more."""
    gone = _local_endpoints(found) - _local_endpoints(wanted)
    for name, network in found.networks.items():
        kept = wanted.networks.get(name, NetworkState(None)).remotes
        gone |= {(name, remote.address) for remote in network.remotes - kept}
    if not gone:
        return gone
    # What only moved to another node is not gone.
    return gone - endpoints(wanted)


def endpoints(state: NodeState) -> set[tuple[str, IPv4Address]]:
    """Return network and address of the endpoints that this node has or knows on others."""
    remotes = {
        (name, remote.address)
        for name, network in state.networks.items()
        for remote in network.remotes
    }
    return remotes | _local_endpoints(state)


def _local_endpoints(state: NodeState) -> set[tuple[str, IPv4Address]]:
    return {
        (interface.network, interface.address)
        for sandbox in state.sandboxes.values()
        for interface in sandbox.interfaces.values()
        if isinstance(interface, Port)
    }


def _datagram_flows(
    before: tuple[VirtualService, ...], after: tuple[VirtualService, ...]
) -> list[Flow]:
    """Return the UDP flows to leave their backend: TCP's may finish while it drains."""
    if before is after:
        return []
    left = {service.vip: service.backends for service in after}
    return [
        Flow(backend, service.vip, Protocol.UDP)
        for service in before
        if service.backends != left.get(service.vip)
        for backend in sorted({*service.backends} - {*left.get(service.vip, ())})
    ]


def _port_flows(before: IngressRules | None, after: IngressRules | None) -> list[Flow]:
    if before is None or before is after:
        return []
    left = {} if after is None else {(p.protocol, p.port): {*p.backends} for p in after.ports}
    nodes = set[int]() if after is None else {after.base.index, *(p.index for p in after.peers)}
    flows: list[Flow] = []
    for port in before.ports:
        for backend in port.backends:
            if backend in left.get((port.protocol, port.port), ()):
                continue
            # On a node that is gone nobody is left who could reset the connection.
            if port.protocol is Protocol.UDP or backend.node_index not in nodes:
                flow = Flow(backend.address, None, port.protocol, backend.port)
                flows.append(flow)
    return flows


def _removals(found: NodeState, wanted: NodeState) -> tuple[list[Operation], list[Operation]]:
    """Return the removals that must come first (their VNI or address is wanted anew) and last."""
    claimed = {
        interface.address
        for name, sandbox in wanted.sandboxes.items()
        for interface in sandbox.interfaces.values()
        if name not in found.sandboxes
    }
    vnis = {
        network.segment.vni
        for name, network in wanted.networks.items()
        if network.segment is not None and name not in found.networks
    }
    early: list[Operation] = []
    late: list[Operation] = []
    surplus = {n: sandbox for n, sandbox in found.sandboxes.items() if n not in wanted.sandboxes}
    in_the_way = {
        name
        for name, sandbox in surplus.items()
        if any(interface.address in claimed for interface in sandbox.interfaces.values())
    }
    for names, removals in ((in_the_way, early), (surplus.keys() - in_the_way, late)):
        if names:
            removals.append(RemoveSandboxes(tuple(sorted(names))))
    for name, network in found.networks.items():
        if name in wanted.networks:
            late.extend(_dropped_remotes(name, network, wanted.networks[name]))
        else:
            is_early = network.segment is not None and network.segment.vni in vnis
            (early if is_early else late).append(RemoveNetwork(name))
    if wanted.base is None:
        if found.base is not None:
            late.insert(0, RemoveBase())
    else:
        moved = {peer.index for peer in wanted.peers}
        dropped = tuple(peer for peer in found.peers if peer.index not in moved)
        if dropped:
            late.append(DropPeers(tuple(sorted(dropped, key=_by_index))))
    return early, late


def _dropped_remotes(name: str, found: NetworkState, wanted: NetworkState) -> list[Operation]:
    surplus = found.remotes - wanted.remotes
    addresses = {remote.address for remote in surplus} - {r.address for r in wanted.remotes}
    macs = {remote.mac for remote in surplus} - {remote.mac for remote in wanted.remotes}
    if not addresses and not macs:
        return []
    return [DropRemotes(name, tuple(sorted(addresses)), tuple(sorted(macs)))]


def _by_index(peer: Peer) -> int:
    return peer.index


def _by_address(remote: RemoteEndpoint) -> IPv4Address:
    return remote.address
