"""What the kernel lists in answer to a dump, as values (pure).

Source: rtnetlink(7), linux/rtnetlink.h, linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from dataplane.kernel import rtnetlink as rt
from dataplane.kernel.netlink import (
    MalformedNetlinkError,
    Message,
    Received,
    attribute_text,
    number,
    text,
    unpack_attributes,
)

_NFT_GETCHAIN = (10 << 8) | 4
_NFTA_CHAIN_TABLE, _NFTA_CHAIN_NAME, _NFTA_CHAIN_HOOK, _NFTA_CHAIN_POLICY = 1, 3, 4, 5
_NFTA_HOOK_HOOKNUM = 1
_NFT_GETSETELEM = (10 << 8) | 13
_NFTA_SET_ELEM_LIST_TABLE, _NFTA_SET_ELEM_LIST_SET, _NFTA_SET_ELEM_LIST_ELEMENTS = 1, 2, 3
_NF_INET_FORWARD = 2
_NF_DROP = 0
_IPV4_FAMILIES = (1, 2)
"""NFPROTO_INET and NFPROTO_IPV4."""
_ADDRESS_BYTES = 4
_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_NDMSG = struct.Struct("=BxHiHBB")
_NFGENMSG = struct.Struct("=BxH")


@dataclass(frozen=True, slots=True)
class Link:
    """One network device."""

    index: int
    name: str
    is_up: bool
    kind: str
    """`veth`, `bridge`, `vxlan`; empty for hardware."""
    mac: str
    mtu: int
    master: int
    """Index of its bridge, 0 for none."""
    peer: int
    """Index of the other end of a cable, in that end's namespace; 0 for none."""
    group: int = 0
    vni: int = 0
    tunnel: IPv4Address = IPv4Address(0)
    port: int = 0


@dataclass(frozen=True, slots=True)
class Address:
    """One IPv4 address of a link."""

    index: int
    address: IPv4Address
    prefix_length: int


@dataclass(frozen=True, slots=True)
class Route:
    """One IPv4 route."""

    table: int
    destination: IPv4Network
    index: int
    via: IPv4Address | None


@dataclass(frozen=True, slots=True)
class Rule:
    """One IPv4 routing rule."""

    priority: int
    mark: int
    mask: int
    table: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A neighbour (`address` is its own) or a forwarding entry (`address` is the tunnel's)."""

    index: int
    state: int
    mac: str
    address: IPv4Address | None


def read_links(dump: Iterable[Received]) -> list[Link]:
    """Return the links of a dump of `rtnetlink.list_links`."""
    return [_link(received.body) for received in dump if received.type == rt.RTM_NEWLINK]


def read_addresses(dump: Iterable[Received]) -> list[Address]:
    """Return the addresses of a dump of `rtnetlink.list_addresses`."""
    found: list[Address] = []
    for received in dump:
        (_, prefix_length, _, _, index), attributes = _split(_IFADDR, received.body)
        value = attributes.get(rt.IFA_LOCAL, attributes.get(rt.IFA_ADDRESS, b""))
        if len(value) == _ADDRESS_BYTES:
            found.append(Address(index, IPv4Address(value), prefix_length))
    return found


def read_routes(dump: Iterable[Received]) -> list[Route]:
    """Return the routes of a dump of `rtnetlink.list_routes`."""
    found: list[Route] = []
    for received in dump:
        (_, prefix_length, _, _, short_table, *_), attributes = _split(_RTMSG, received.body)
        destination = IPv4Address(attributes.get(rt.RTA_DST, bytes(_ADDRESS_BYTES)))
        table = number(attributes[rt.RTA_TABLE]) if rt.RTA_TABLE in attributes else short_table
        found.append(
            Route(
                table,
                IPv4Network((int(destination), min(prefix_length, 32)), strict=False),
                number(attributes.get(rt.RTA_OIF, b"")),
                _address(attributes.get(rt.RTA_GATEWAY)),
            )
        )
    return found


def read_rules(dump: Iterable[Received]) -> list[Rule]:
    """Return the rules of a dump of `rtnetlink.list_rules`."""
    found: list[Rule] = []
    for received in dump:
        _, attributes = _split(_RTMSG, received.body)
        kinds = (rt.FRA_PRIORITY, rt.FRA_FWMARK, rt.FRA_FWMASK, rt.FRA_TABLE)
        found.append(Rule(*(number(attributes.get(kind, b"")) for kind in kinds)))
    return found


def read_entries(dump: Iterable[Received]) -> list[Entry]:
    """Return the entries of a dump of `rtnetlink.list_neighbours`."""
    found: list[Entry] = []
    for received in dump:
        (_, _, index, state, _, _), attributes = _split(_NDMSG, received.body)
        mac = _mac(attributes.get(rt.NDA_LLADDR, b""))
        found.append(Entry(index, state, mac, _address(attributes.get(rt.NDA_DST))))
    return found


def list_chains() -> Message:
    """List the chains of all tables of nftables (a dump)."""
    return Message(_NFT_GETCHAIN, 0, bytes(4))


def read_chains(dump: Iterable[Received], table: str) -> list[tuple[int, str]]:
    """Return address family and name of the chains of the tables of this name."""
    found: list[tuple[int, str]] = []
    for received in dump:
        (family, _), attributes = _split(_NFGENMSG, received.body)
        if text(attributes.get(_NFTA_CHAIN_TABLE, b"")) == table:
            found.append((family, text(attributes.get(_NFTA_CHAIN_NAME, b""))))
    return found


def list_elements(table: str, name: str) -> Message:
    """List the elements of a set of an IPv4 table of nftables (a dump)."""
    named = attribute_text(_NFTA_SET_ELEM_LIST_TABLE, table)
    named += attribute_text(_NFTA_SET_ELEM_LIST_SET, name)
    return Message(_NFT_GETSETELEM, 0, bytes([rt.AF_INET, 0, 0, 0]) + named)


def is_known_empty(dump: Iterable[Received]) -> bool:
    """Return whether there is such a set (`list_elements`), without elements."""
    found = [_split(_NFGENMSG, received.body)[1] for received in dump]
    return bool(found) and not any(each.get(_NFTA_SET_ELEM_LIST_ELEMENTS) for each in found)


def has_dropping_forward_chain(dump: Iterable[Received]) -> bool:
    """Return whether a chain that IPv4 packets are forwarded through drops by default."""
    for received in dump:
        (family, _), attributes = _split(_NFGENMSG, received.body)
        hook = unpack_attributes(attributes.get(_NFTA_CHAIN_HOOK, b""))
        number_of_hook = int.from_bytes(hook.get(_NFTA_HOOK_HOOKNUM, b""), "big")
        if family in _IPV4_FAMILIES and number_of_hook == _NF_INET_FORWARD:
            policy = attributes.get(_NFTA_CHAIN_POLICY)
            if policy is not None and int.from_bytes(policy, "big") == _NF_DROP:
                return True
    return False


def _link(body: bytes) -> Link:
    (_, _, index, flags, _), attributes = _split(_IFINFO, body)
    info = unpack_attributes(attributes.get(rt.IFLA_LINKINFO, b""))
    kind = text(info.get(rt.IFLA_INFO_KIND, b""))
    data = unpack_attributes(info.get(rt.IFLA_INFO_DATA, b"")) if kind == "vxlan" else {}
    return Link(
        index=index,
        name=text(attributes.get(rt.IFLA_IFNAME, b"")),
        is_up=bool(flags & rt.IFF_UP),
        kind=kind,
        mac=_mac(attributes.get(rt.IFLA_ADDRESS, b"")),
        mtu=number(attributes.get(rt.IFLA_MTU, b"")),
        master=number(attributes.get(rt.IFLA_MASTER, b"")),
        peer=number(attributes.get(rt.IFLA_LINK, b"")),
        group=number(attributes.get(rt.IFLA_GROUP, b"")),
        vni=number(data.get(rt.IFLA_VXLAN_ID, b"")),
        tunnel=_address(data.get(rt.IFLA_VXLAN_LOCAL)) or IPv4Address(0),
        port=int.from_bytes(data.get(rt.IFLA_VXLAN_PORT, b""), "big"),
    )


def _split(header: struct.Struct, body: bytes) -> tuple[tuple[int, ...], dict[int, bytes]]:
    if len(body) < header.size:
        raise MalformedNetlinkError("message shorter than its family's header")
    return header.unpack_from(body), unpack_attributes(body[header.size :])


def _mac(value: bytes) -> str:
    return value.hex(":")


def _address(value: bytes | None) -> IPv4Address | None:
    return IPv4Address(value) if value is not None and len(value) == _ADDRESS_BYTES else None
