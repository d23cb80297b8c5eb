"""Performing the operations on the node itself: gateway, ingress tunnel, ports, routing.

All of it is in the namespace that the daemon runs in. Every function may run again over what an
interrupted run left.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network

from dataplane.addressing import (
    INGRESS_VNI,
    gateway_address,
    gateway_subnet,
    ingress_address,
    ingress_mac,
)
from dataplane.diff import AddPeers
from dataplane.kernel import ingress_rules, inventory
from dataplane.kernel import rtnetlink as rt
from dataplane.kernel.channel import Channel
from dataplane.kernel.names import (
    GATEWAY_DEVICE,
    INGRESS_DEVICE,
    INSIDE_GROUP,
    MARK,
    MARK_MASK,
    RETURN_HOST,
    RETURN_MAC,
    ROUTE_TABLE,
    ROUTE_TABLE_OF_NODE,
)
from dataplane.kernel.netlink import Message
from dataplane.kernel.netns import write_sysctl
from dataplane.kernel.nftables import Nft
from dataplane.plan import Peer
from dataplane.state import Base

_EVERYWHERE = IPv4Network("0.0.0.0/0")
_ALREADY = (errno.EEXIST,)
_GONE = (errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL)
RETURN_ADDRESS = IPv4Address((int(ingress_address(1)) & 0xFFFF0000) + RETURN_HOST)
"""Next hop of replies: the egress hook replaces its MAC by the entry node's."""


def make_base(base: Base, *, has_egress_hook: bool) -> None:
    """Perform `MakeBase`; keeps devices that are as wanted, with what they carry."""
    write_sysctl("net/ipv4/ip_forward", "1")
    with Channel() as channel:
        links = {link.name: link for link in inventory.read_links(channel.dump(rt.list_links()))}
        if GATEWAY_DEVICE not in links:
            # A bridge without ports: every kernel that we can run on has that.
            channel.request(rt.make_bridge(GATEWAY_DEVICE, mtu=base.mtu))
        tunnel = links.get(INGRESS_DEVICE)
        if tunnel is not None and not is_ingress_device(tunnel, base):
            channel.request(rt.remove_link(INGRESS_DEVICE))
            tunnel = None
        if tunnel is None:
            channel.request(_ingress_device(base))
        gateway = socket.if_nametoindex(GATEWAY_DEVICE)
        device = socket.if_nametoindex(INGRESS_DEVICE)
        _set_sysctls()
        _set_addresses(channel, gateway, device, base)
        _remove_throw_routes(channel, keep=gateway_subnet(base.index))
        channel.request(rt.set_link(gateway, mtu=base.mtu), rt.set_link(device))
        channel.request(rt.set_neighbour(device, RETURN_ADDRESS, RETURN_MAC))
        if has_egress_hook:
            routes = _return_routes(device, base.index, ROUTE_TABLE, RETURN_ADDRESS)
            channel.request(*routes)
            channel.request(_return_rule(rt.make_rule), ignore=_ALREADY)


def is_ingress_device(link: inventory.Link, base: Base) -> bool:
    """Return whether the device is the ingress tunnel that `base` asks for."""
    return (
        link.kind == "vxlan"
        and link.vni == INGRESS_VNI
        and link.tunnel == base.address
        and link.port == base.port
        and link.mac == ingress_mac(base.index)
        and link.mtu == base.mtu
        and link.group == INSIDE_GROUP
    )


def remove_base(nft: Nft) -> None:
    """Perform `RemoveBase`."""
    nft.run(ingress_rules.remove())
    with Channel() as channel:
        rules = inventory.read_rules(channel.dump(rt.list_rules()))
        channel.request(
            *(
                rt.remove_rule(mark=r.mark, mask=r.mask, table=r.table, priority=r.priority)
                for r in rules
                if r.priority == ROUTE_TABLE and r.mark & MARK_MASK == MARK
            ),
            rt.remove_link(INGRESS_DEVICE),
            rt.remove_link(GATEWAY_DEVICE),
            ignore=_GONE,
        )
        _remove_throw_routes(channel)


def _remove_throw_routes(channel: Channel, keep: IPv4Network | None = None) -> None:
    """Remove the routes that hang on no device, and so don't go with one."""
    routes = inventory.read_routes(channel.dump(rt.list_routes()))
    stale = [
        rt.remove_route(route.destination, table=route.table)
        for route in routes
        if (route.table == ROUTE_TABLE or route.table & MARK_MASK == ROUTE_TABLE_OF_NODE)
        and route.index == 0
        and route.destination != keep
    ]
    channel.request(*stale, ignore=_GONE)


def _ingress_device(base: Base) -> Message:
    return rt.make_vxlan(
        INGRESS_DEVICE,
        vni=INGRESS_VNI,
        local=base.address,
        port=base.port,
        mtu=base.mtu,
        mac=ingress_mac(base.index),
        group=INSIDE_GROUP,
    )


def _set_sysctls() -> None:
    for device in (GATEWAY_DEVICE, INGRESS_DEVICE):
        write_sysctl(f"net/ipv6/conf/{device}/disable_ipv6", "1")
    # A client on the node may ask 127.0.0.1; the reply comes in by this device.
    write_sysctl(f"net/ipv4/conf/{INGRESS_DEVICE}/route_localnet", "1")
    # Reverse path filtering must see the mark to find the way back.
    write_sysctl(f"net/ipv4/conf/{INGRESS_DEVICE}/src_valid_mark", "1")


def _set_addresses(channel: Channel, gateway: int, device: int, base: Base) -> None:
    subnet = gateway_subnet(base.index)
    wanted = {
        (gateway, gateway_address(base.index), subnet.prefixlen),
        (device, ingress_address(base.index), 32),
    }
    found = {
        (address.index, address.address, address.prefix_length)
        for address in inventory.read_addresses(channel.dump(rt.list_addresses()))
        if address.index in (gateway, device)
    }
    channel.request(*(rt.remove_address(*address) for address in found - wanted), ignore=_GONE)
    channel.request(*(rt.set_address(*address) for address in wanted - found))


def _return_routes(device: int, index: int, table: int, via: IPv4Address) -> Iterable[Message]:
    # What the entry node sent for a sandbox here carries the mark, too.
    yield rt.set_throw_route(gateway_subnet(index), table=table)
    yield rt.set_route(_EVERYWHERE, index=device, via=via, table=table)


def _return_rule(make: Callable[..., Message], peer: int | None = None) -> Message:
    if peer is None:
        return make(mark=MARK, mask=MARK_MASK, table=ROUTE_TABLE, priority=ROUTE_TABLE)
    table = ROUTE_TABLE_OF_NODE + peer
    return make(mark=MARK + peer, mask=0xFFFFFFFF, table=table, priority=ROUTE_TABLE)


def add_peers(operation: AddPeers, *, has_egress_hook: bool) -> None:
    """Perform `AddPeers`."""
    device = socket.if_nametoindex(INGRESS_DEVICE)
    messages: list[Message] = []
    rules: list[Message] = []
    for peer in operation.peers:
        mac, hop = ingress_mac(peer.index), ingress_address(peer.index)
        messages.append(rt.set_tunnel_entry(device, mac, peer.address))
        messages.append(rt.set_neighbour(device, hop, mac))
        messages.append(rt.set_route(gateway_subnet(peer.index), index=device, via=hop))
        if not has_egress_hook:
            table = ROUTE_TABLE_OF_NODE + peer.index
            messages.extend(_return_routes(device, operation.base.index, table, hop))
            rules.append(_return_rule(rt.make_rule, peer.index))
    with Channel() as channel:
        channel.request(*messages)
        channel.request(*rules, ignore=_ALREADY)


def drop_peers(peers: Iterable[Peer]) -> None:
    """Perform `DropPeers`."""
    device = socket.if_nametoindex(INGRESS_DEVICE)
    messages: list[Message] = []
    for peer in peers:
        messages.append(rt.remove_route(gateway_subnet(peer.index), index=device))
        messages.append(rt.remove_neighbour(device, ingress_address(peer.index)))
        messages.append(rt.remove_tunnel_entry(device, ingress_mac(peer.index)))
        messages.append(_return_rule(rt.remove_rule, peer.index))
        table = ROUTE_TABLE_OF_NODE + peer.index
        messages.append(rt.remove_route(_EVERYWHERE, index=device, table=table))
    with Channel() as channel:
        channel.request(*messages, ignore=_GONE)
