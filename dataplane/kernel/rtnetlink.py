"""Requests to the kernel's routing netlink: links, addresses, routes, rules, neighbours (pure).

Each function returns one `Message`; what they ask for is idempotent where the kernel lets it be
(`NLM_F_REPLACE`), so that a reconciliation may ask again.

Source: rtnetlink(7), linux/rtnetlink.h, linux/if_link.h, linux/neighbour.h, linux/fib_rules.h.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network

from dataplane.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    attribute,
    attribute_text,
    attribute_u8,
    attribute_u32,
    nested,
)

_AF_UNSPEC, AF_INET, AF_BRIDGE = 0, 2, 7
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34

IFF_UP = 1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK = 1, 3, 4, 5
IFLA_MASTER, IFLA_LINKINFO, IFLA_NET_NS_FD = 10, 18, 28
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
IFLA_GROUP = 27
_IFLA_BR_FORWARD_DELAY, _IFLA_BR_MCAST_SNOOPING = 1, 23
IFLA_VXLAN_ID, IFLA_VXLAN_LOCAL, IFLA_VXLAN_PORT = 1, 4, 15
_IFLA_VXLAN_LEARNING, _IFLA_VXLAN_PROXY = 7, 11
_VETH_INFO_PEER = 1
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_TABLE = 1, 4, 5, 15
RT_TABLE_MAIN = 254
_RT_TABLE_COMPAT = 252
_RTPROT_STATIC = 4
_RTN_UNICAST, _RTN_THROW = 1, 9
_RTA_PREFSRC = 7
_RT_SCOPE_LINK, _RT_SCOPE_NOWHERE = 253, 255
_RTNH_F_ONLINK = 4
NDA_DST, NDA_LLADDR = 1, 2
NTF_SELF, NTF_MASTER = 2, 4
NUD_PERMANENT, NUD_NOARP = 0x80, 0x40
FRA_PRIORITY, FRA_FWMARK, FRA_TABLE, FRA_FWMASK = 6, 10, 15, 16
_FR_ACT_TO_TBL = 1

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_NDMSG = struct.Struct("=BxHiHBB")

_MAKE = NLM_F_CREATE | NLM_F_EXCL
_SET = NLM_F_CREATE | NLM_F_REPLACE


def mac_bytes(mac: str) -> bytes:
    """Return the six bytes of a MAC."""
    return bytes.fromhex(mac.replace(":", ""))


def make_bridge(name: str, *, mtu: int | None = None, mac: str | None = None) -> Message:
    """Make a bridge, up, without spanning tree; its MTU is that of its ports unless given."""
    data = nested(
        IFLA_INFO_DATA,
        attribute_u32(_IFLA_BR_FORWARD_DELAY, 0),
        attribute_u8(_IFLA_BR_MCAST_SNOOPING, 0),
    )
    return _make_link(name, "bridge", data, mtu=mtu, mac=mac)


def make_vxlan(
    name: str,
    *,
    vni: int,
    local: IPv4Address,
    port: int,
    mtu: int,
    proxy: bool = False,
    mac: str | None = None,
    group: int | None = None,
    namespace: int | None = None,
) -> Message:
    """Make a VXLAN device, up, that learns nothing.

    proxy: answer ARP from its neighbour entries. group: for the firewall. namespace: descriptor
    of the namespace to put it in; its UDP socket stays where the request is made.
    """
    data = nested(
        IFLA_INFO_DATA,
        attribute_u32(IFLA_VXLAN_ID, vni),
        attribute(IFLA_VXLAN_LOCAL, local.packed),
        attribute(IFLA_VXLAN_PORT, struct.pack("!H", port)),
        attribute_u8(_IFLA_VXLAN_LEARNING, 0),
        attribute_u8(_IFLA_VXLAN_PROXY, int(proxy)),
    )
    return _make_link(name, "vxlan", data, mtu=mtu, mac=mac, group=group, namespace=namespace)


def make_veth(
    name: str,
    *,
    mtu: int,
    peer_name: str,
    peer_mac: str,
    peer_namespace: int,
    master: int | None = None,
    mac: str | None = None,
    group: int | None = None,
) -> Message:
    """Make a cable: `name`, up, here (in the bridge `master`); its peer, still down, elsewhere."""
    peer = _ifinfo() + b"".join(
        (
            attribute_text(IFLA_IFNAME, peer_name),
            attribute(IFLA_ADDRESS, mac_bytes(peer_mac)),
            attribute_u32(IFLA_MTU, mtu),
            attribute_u32(IFLA_NET_NS_FD, peer_namespace),
        )
    )
    data = nested(IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, peer))
    return _make_link(name, "veth", data, mtu=mtu, mac=mac, master=master, group=group)


def _make_link(
    name: str,
    kind: str,
    data: bytes,
    *,
    mtu: int | None,
    mac: str | None = None,
    master: int | None = None,
    group: int | None = None,
    namespace: int | None = None,
) -> Message:
    parts = [_ifinfo(up=True), attribute_text(IFLA_IFNAME, name)]
    if mtu is not None:
        parts.append(attribute_u32(IFLA_MTU, mtu))
    if mac is not None:
        parts.append(attribute(IFLA_ADDRESS, mac_bytes(mac)))
    if master is not None:
        parts.append(attribute_u32(IFLA_MASTER, master))
    if group is not None:
        parts.append(attribute_u32(IFLA_GROUP, group))
    if namespace is not None:
        parts.append(attribute_u32(IFLA_NET_NS_FD, namespace))
    parts.append(nested(IFLA_LINKINFO, attribute_text(IFLA_INFO_KIND, kind), data))
    return Message(RTM_NEWLINK, _MAKE, b"".join(parts))


def set_link(
    index: int, *, master: int | None = None, mtu: int | None = None, mac: str | None = None
) -> Message:
    """Put a link up and give it what is given."""
    parts = [_ifinfo(index, up=True)]
    if master is not None:
        parts.append(attribute_u32(IFLA_MASTER, master))
    if mtu is not None:
        parts.append(attribute_u32(IFLA_MTU, mtu))
    if mac is not None:
        parts.append(attribute(IFLA_ADDRESS, mac_bytes(mac)))
    return Message(RTM_NEWLINK, 0, b"".join(parts))


def remove_link(name: str) -> Message:
    """Remove a link, and with one end of a cable the other."""
    return Message(RTM_DELLINK, 0, _ifinfo() + attribute_text(IFLA_IFNAME, name))


def group_link(name: str, group: int) -> Message:
    """Put a link in a group, to be removed with it."""
    body = attribute_text(IFLA_IFNAME, name) + attribute_u32(IFLA_GROUP, group)
    return Message(RTM_NEWLINK, 0, _ifinfo() + body)


def remove_group(group: int) -> Message:
    """Remove all links of a group: that waits once, where removing each waits for each."""
    return Message(RTM_DELLINK, 0, _ifinfo() + attribute_u32(IFLA_GROUP, group))


def set_address(index: int, address: IPv4Address, prefix_length: int) -> Message:
    """Give a link an address."""
    return Message(RTM_NEWADDR, _SET, _address(index, address, prefix_length))


def remove_address(index: int, address: IPv4Address, prefix_length: int) -> Message:
    """Take an address from a link."""
    return Message(RTM_DELADDR, 0, _address(index, address, prefix_length))


def _address(index: int, address: IPv4Address, prefix_length: int) -> bytes:
    header = _IFADDR.pack(AF_INET, prefix_length, 0, 0, index)
    return header + attribute(IFA_LOCAL, address.packed) + attribute(IFA_ADDRESS, address.packed)


def set_route(
    destination: IPv4Network,
    *,
    index: int,
    via: IPv4Address | None = None,
    source: IPv4Address | None = None,
    table: int = RT_TABLE_MAIN,
) -> Message:
    """Route a destination to a link.

    via: a next hop that needs no route of its own. source: what the node itself speaks from.
    """
    body = _route(destination, index, via, table)
    if source is not None:
        body += attribute(_RTA_PREFSRC, source.packed)
    return Message(RTM_NEWROUTE, _SET, body)


def set_throw_route(destination: IPv4Network, *, table: int) -> Message:
    """Let another table route a destination."""
    return Message(RTM_NEWROUTE, _SET, _route_header(destination, table, kind=_RTN_THROW))


def remove_route(
    destination: IPv4Network, *, index: int = 0, table: int = RT_TABLE_MAIN
) -> Message:
    """Remove a route of any kind; index: 0 for one to no link."""
    body = _route_header(destination, table, kind=0, scope=_RT_SCOPE_NOWHERE)
    if index:
        body += attribute_u32(RTA_OIF, index)
    return Message(RTM_DELROUTE, 0, body)


def _route(destination: IPv4Network, index: int, via: IPv4Address | None, table: int) -> bytes:
    link = attribute_u32(RTA_OIF, index)
    if via is None:
        return _route_header(destination, table, scope=_RT_SCOPE_LINK) + link
    header = _route_header(destination, table, flags=_RTNH_F_ONLINK)
    return header + link + attribute(RTA_GATEWAY, via.packed)


def _route_header(
    destination: IPv4Network,
    table: int,
    *,
    kind: int = _RTN_UNICAST,
    scope: int = 0,
    flags: int = 0,
) -> bytes:
    length = destination.prefixlen
    short_table = table if table <= RT_TABLE_MAIN else _RT_TABLE_COMPAT
    header = _RTMSG.pack(AF_INET, length, 0, 0, short_table, _RTPROT_STATIC, scope, kind, flags)
    target = attribute(RTA_DST, destination.network_address.packed) if length else b""
    return header + attribute_u32(RTA_TABLE, table) + target


def make_rule(*, mark: int, mask: int, table: int, priority: int) -> Message:
    """Let packets with this mark be routed by `table`; EEXIST when that is so."""
    return Message(RTM_NEWRULE, _MAKE, _rule(mark, mask, table, priority))


def remove_rule(*, mark: int, mask: int, table: int, priority: int) -> Message:
    """Undo `make_rule`."""
    return Message(RTM_DELRULE, 0, _rule(mark, mask, table, priority))


def _rule(mark: int, mask: int, table: int, priority: int) -> bytes:
    header = _RTMSG.pack(AF_INET, 0, 0, 0, _RT_TABLE_COMPAT, 0, 0, _FR_ACT_TO_TBL, 0)
    return header + b"".join(
        (
            attribute_u32(FRA_PRIORITY, priority),
            attribute_u32(FRA_FWMARK, mark),
            attribute_u32(FRA_FWMASK, mask),
            attribute_u32(FRA_TABLE, table),
        )
    )


def set_neighbour(index: int, address: IPv4Address, mac: str) -> Message:
    """Say for good what MAC an address has."""
    header = _NDMSG.pack(AF_INET, 0, index, NUD_PERMANENT, 0, 0)
    body = attribute(NDA_DST, address.packed) + attribute(NDA_LLADDR, mac_bytes(mac))
    return Message(RTM_NEWNEIGH, _SET, header + body)


def remove_neighbour(index: int, address: IPv4Address) -> Message:
    """Undo `set_neighbour`."""
    header = _NDMSG.pack(AF_INET, 0, index, 0, 0, 0)
    return Message(RTM_DELNEIGH, 0, header + attribute(NDA_DST, address.packed))


def set_tunnel_entry(index: int, mac: str, tunnel: IPv4Address) -> Message:
    """Say which node a VXLAN device sends a MAC to."""
    header = _NDMSG.pack(AF_BRIDGE, 0, index, NUD_PERMANENT, NTF_SELF, 0)
    body = attribute(NDA_LLADDR, mac_bytes(mac)) + attribute(NDA_DST, tunnel.packed)
    return Message(RTM_NEWNEIGH, _SET, header + body)


def remove_tunnel_entry(index: int, mac: str) -> Message:
    """Undo `set_tunnel_entry`."""
    header = _NDMSG.pack(AF_BRIDGE, 0, index, NUD_PERMANENT, NTF_SELF, 0)
    return Message(RTM_DELNEIGH, 0, header + attribute(NDA_LLADDR, mac_bytes(mac)))


def set_port_entry(index: int, mac: str) -> Message:
    """Say which port of its bridge a MAC is behind, whatever was learned before."""
    header = _NDMSG.pack(AF_BRIDGE, 0, index, NUD_NOARP, NTF_MASTER, 0)
    return Message(RTM_NEWNEIGH, _SET, header + attribute(NDA_LLADDR, mac_bytes(mac)))


def list_links() -> Message:
    """List all links (a dump)."""
    return Message(RTM_GETLINK, 0, _ifinfo())


def list_addresses() -> Message:
    """List all IPv4 addresses (a dump)."""
    return Message(RTM_GETADDR, 0, _IFADDR.pack(AF_INET, 0, 0, 0, 0))


def list_routes() -> Message:
    """List all IPv4 routes of all tables (a dump)."""
    return Message(RTM_GETROUTE, 0, _RTMSG.pack(AF_INET, 0, 0, 0, 0, 0, 0, 0, 0))


def list_rules() -> Message:
    """List all IPv4 rules (a dump)."""
    return Message(RTM_GETRULE, 0, _RTMSG.pack(AF_INET, 0, 0, 0, 0, 0, 0, 0, 0))


def list_neighbours(family: int) -> Message:
    """List neighbours (AF_INET) or forwarding entries (AF_BRIDGE) of all links (a dump)."""
    return Message(RTM_GETNEIGH, 0, _NDMSG.pack(family, 0, 0, 0, 0, 0))


def _ifinfo(index: int = 0, *, up: bool = False) -> bytes:
    flag = IFF_UP if up else 0
    return _IFINFO.pack(_AF_UNSPEC, 0, index, flag, flag)
