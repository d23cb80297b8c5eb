"""What this node holds now, read back from the kernel.

Driven once after a start, and whenever an application of a plan failed. Found things that are
half made, or not as our own code makes them, are reported as different from anything that can be
wanted (`_BROKEN`), so that the difference repairs or removes them. Cables whose other end is in no
known sandbox are removed on sight: their addresses may be wanted elsewhere.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from dataplane.addressing import (
    RESERVED,
    gateway_address,
    gateway_subnet,
    ingress_address,
    ingress_mac,
)
from dataplane.kernel import ingress_rules, inventory, names, nft, vip_rules
from dataplane.kernel import rtnetlink as rt
from dataplane.kernel.channel import NETLINK_NETFILTER, Channel
from dataplane.kernel.ingress_rules import Abilities
from dataplane.kernel.netns import is_namespace, run_in_namespace
from dataplane.kernel.node import RETURN_ADDRESS, is_ingress_device
from dataplane.plan import Peer, RemoteEndpoint, VirtualService
from dataplane.state import (
    Base,
    NetworkState,
    NodeState,
    Port,
    SandboxState,
    Segment,
    Uplink,
)

_NOWHERE = IPv4Address(0)
_BROKEN = Port("", _NOWHERE, 0, "", 0)
_BROKEN_BASE = Base(0, _NOWHERE, 0, 0)
_NFPROTO_NETDEV = 5
_EVERYWHERE = IPv4Network("0.0.0.0/0")


@dataclass(frozen=True, slots=True)
class _View:
    """One namespace's dumps."""

    links: dict[str, inventory.Link]
    addresses: list[inventory.Address]
    routes: list[inventory.Route]
    neighbours: list[inventory.Entry]
    forwarding: list[inventory.Entry]
    chains: list[tuple[int, str]]

    def has_generation(self, digest: str) -> bool:
        """Return whether our IPv4 table holds what has this digest."""
        return (int(socket.AF_INET), nft.generation_chain(digest)) in self.chains


@dataclass(frozen=True, slots=True)
class _Views:
    """All namespaces; None where a file is no namespace."""

    node: _View
    networks: dict[str, _View | None]
    sandboxes: dict[str, _View | None]


def observe(
    directory: Path, wanted: NodeState, kernel: Abilities
) -> tuple[NodeState, int, dict[str, str]]:
    """Return what the node holds, how many stray cables were removed, and what cannot be looked at.

    wanted: tables are compared by digest with what is wanted; others are "unknown". The third are
    sandboxes, with the reason; they are not in the state.

    Raises:
        OSError: the node itself, or a network, cannot be looked at.
    """
    services = {sandbox.services for sandbox in wanted.sandboxes.values() if sandbox.services}
    digests = {found: vip_rules.render(found).digest for found in services}
    networks, _ = _look_at_all(directory, "n-")
    sandboxes, unreadable = _look_at_all(directory, "t-", may_fail=wanted.sandboxes.keys())
    views = _Views(_look(None), networks, sandboxes)
    node = views.node
    state = NodeState(
        base=_base(node, wanted.base),
        peers=_peers(node, has_egress_hook=kernel.has_egress_hook),
        networks={
            name: _network(view)
            for name, view in views.networks.items()
            if _is_usable(view, names.NETWORK_BRIDGE) or name not in wanted.networks
        },
        sandboxes={
            name: _sandbox(name, views, wanted.sandboxes.get(name), digests)
            for name, view in views.sandboxes.items()
            if _is_usable(view, "lo") or name not in wanted.sandboxes
        },
        rules=None,
        is_observed=True,
    )
    rules = wanted.rules
    if rules is not None:
        digest = ingress_rules.render(rules, kernel).digest
        has_egress = not kernel.has_egress_hook or any(f == _NFPROTO_NETDEV for f, _ in node.chains)
        if node.has_generation(digest) and has_egress:
            state = replace(state, rules=rules)
    # Whose cables those are that go to an unreadable sandbox cannot be told.
    removed = 0 if unreadable else _remove_strays(directory, views)
    return state, removed, unreadable


def _look(path: Path | None) -> _View:
    def look() -> _View:
        with Channel() as channel:
            links = inventory.read_links(channel.dump(rt.list_links()))
            addresses = inventory.read_addresses(channel.dump(rt.list_addresses()))
            routes = inventory.read_routes(channel.dump(rt.list_routes()))
            neighbours, forwarding = (
                inventory.read_entries(channel.dump(rt.list_neighbours(family)))
                for family in (socket.AF_INET, socket.AF_BRIDGE)
            )
        with Channel(NETLINK_NETFILTER) as channel:
            chains = inventory.read_chains(channel.dump(inventory.list_chains()), names.TABLE)
        return _View(
            {link.name: link for link in links}, addresses, routes, neighbours, forwarding, chains
        )

    return run_in_namespace(path, look)


def _look_at_all(
    directory: Path, prefix: str, may_fail: Collection[str] | None = None
) -> tuple[dict[str, _View | None], dict[str, str]]:
    """Return the views by name, and why those in `may_fail` cannot be looked at.

    Others count as no namespace, so that they are removed. may_fail: None: errors are raised.
    """
    views: dict[str, _View | None] = {}
    unreadable: dict[str, str] = {}
    for path in sorted(directory.glob(f"{prefix}*")):
        name = path.name.removeprefix(prefix)
        try:
            views[name] = _look(path) if is_namespace(path) else None
        except OSError as error:
            if may_fail is None:
                raise
            if name in may_fail:
                unreadable[name] = f"cannot be looked at: {error}"
            else:
                views[name] = None
    return views, unreadable


def _is_usable(view: _View | None, device: str) -> bool:
    return view is not None and device in view.links and view.links[device].is_up


def _base(node: _View, wanted: Base | None) -> Base | None:
    bridge = node.links.get(names.GATEWAY_DEVICE)
    device = node.links.get(names.INGRESS_DEVICE)
    if bridge is None and device is None and not node.chains:
        return None
    if bridge is None or device is None or wanted is None:
        return _BROKEN_BASE
    index = wanted.index
    held = {(address.index, address.address) for address in node.addresses}
    returning = {(route.index, route.via) for route in node.routes}
    is_whole = (
        bridge.is_up
        and device.is_up
        and bridge.mtu == wanted.mtu
        and is_ingress_device(device, wanted)
        and (bridge.index, gateway_address(index)) in held
        and (device.index, ingress_address(index)) in held
        and (device.index, RETURN_ADDRESS) in returning
    )
    return wanted if is_whole else _BROKEN_BASE


def _peers(node: _View, *, has_egress_hook: bool) -> frozenset[Peer]:
    device = node.links.get(names.INGRESS_DEVICE)
    if device is None:
        return frozenset()
    routed = {route.destination for route in node.routes if route.index == device.index}
    known = {entry.mac for entry in node.neighbours if entry.index == device.index}
    found: set[Peer] = set()
    for entry in node.forwarding:
        if entry.index != device.index or entry.address is None:
            continue
        index = int(entry.mac.replace(":", ""), 16) & 0xFFFF
        if not 1 <= index < names.RETURN_HOST or ingress_mac(index) != entry.mac:
            continue
        is_whole = has_egress_hook and entry.mac in known and gateway_subnet(index) in routed
        found.add(Peer(index, entry.address if is_whole else _NOWHERE))
    return frozenset(found)


def _network(view: _View | None) -> NetworkState:
    if view is None:
        return NetworkState(None)
    bridge = view.links.get(names.NETWORK_BRIDGE)
    tunnel = view.links.get(names.NETWORK_TUNNEL)
    if bridge is None or tunnel is None or tunnel.kind != "vxlan":
        return NetworkState(None)
    segment = Segment(tunnel.vni, tunnel.mtu, tunnel.tunnel, tunnel.port)
    if tunnel.master != bridge.index or not tunnel.is_up:
        segment = replace(segment, mtu=0)
    tunnels = {
        entry.mac: entry.address
        for entry in view.forwarding
        if entry.index == tunnel.index and entry.address is not None
    }
    remotes = {
        RemoteEndpoint(entry.address, entry.mac, tunnels.get(entry.mac, _NOWHERE))
        for entry in view.neighbours
        if entry.index == tunnel.index
        and entry.address is not None
        and entry.state & rt.NUD_PERMANENT
    }
    resolved = {remote.mac for remote in remotes}
    remotes |= {
        RemoteEndpoint(_NOWHERE, mac, address)
        for mac, address in tunnels.items()
        if mac not in resolved
    }
    return NetworkState(segment, frozenset(remotes))


def _sandbox(
    name: str,
    views: _Views,
    wanted: SandboxState | None,
    digests: Mapping[tuple[VirtualService, ...], str],
) -> SandboxState:
    view = views.sandboxes[name]
    if view is None:
        return SandboxState()
    interfaces: dict[int, Port | Uplink] = {}
    for device, link in view.links.items():
        number = device.removeprefix("eth")
        if device != number and number.isdecimal():
            far = names.port_name(name, int(number))
            interfaces[int(number)] = _interface(view, link, far, views)
    return SandboxState(interfaces, _services(view, wanted, digests))


def _services(
    view: _View, wanted: SandboxState | None, digests: Mapping[tuple[VirtualService, ...], str]
) -> tuple[VirtualService, ...] | None:
    if not view.chains:
        return ()
    services = None if wanted is None else wanted.services
    return services if services and view.has_generation(digests[services]) else None


def _interface(view: _View, link: inventory.Link, far: str, views: _Views) -> Port | Uplink:
    address = next((a for a in view.addresses if a.index == link.index), None)
    if address is None or not link.is_up:
        return _BROKEN
    for network, other in views.networks.items():
        if other is not None and _is_connected(other, far, link):
            length = address.prefix_length
            return Port(network, address.address, length, link.mac, link.mtu)
    return _uplink(view, link, address.address, far, views.node)


def _uplink(
    view: _View, link: inventory.Link, address: IPv4Address, far_name: str, node: _View
) -> Port | Uplink:
    far = node.links.get(far_name)
    if far is None or far.peer != link.index or not far.is_up or far.group != names.INSIDE_GROUP:
        return _BROKEN
    if (far.index, IPv4Network(address)) not in {(r.index, r.destination) for r in node.routes}:
        return _BROKEN
    for route in view.routes:
        via = route.via
        if route.destination == _EVERYWHERE and route.index == link.index and via is not None:
            node_index = (int(via) - int(RESERVED.network_address)) >> 8
            return Uplink(address, node_index, link.mtu)
    return _BROKEN


def _is_connected(view: _View, far: str, near: inventory.Link) -> bool:
    link, master = view.links.get(far), view.links.get(names.NETWORK_BRIDGE)
    return (
        link is not None
        and master is not None
        and link.is_up
        and link.master == master.index
        and link.peer == near.index
    )


def _remove_strays(directory: Path, views: _Views) -> int:
    known = {
        names.port_name(name, number)
        for name, view in views.sandboxes.items()
        if view is not None
        for number in range(len(view.links))
    }
    removed = _remove_ports(None, views.node, known)
    for name, view in views.networks.items():
        if view is not None:
            removed += _remove_ports(names.network_path(directory, name), view, known)
    return removed


def _remove_ports(path: Path | None, view: _View, known: set[str]) -> int:
    strays = [name for name in view.links if names.is_port_name(name) and name not in known]

    def remove() -> None:
        with Channel() as channel:
            channel.request(*map(rt.remove_link, strays), ignore=(errno.ENODEV,))

    if strays:
        run_in_namespace(path, remove)
    return len(strays)
