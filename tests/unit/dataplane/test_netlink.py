"""Netlink bytes: round trips, mutations, and requests as `ip` and `bridge` send them."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from dataplane.diff import Flow
from dataplane.kernel import conntrack, inventory
from dataplane.kernel import rtnetlink as rt
from dataplane.kernel.netlink import (
    NLM_F_REQUEST,
    MalformedNetlinkError,
    Message,
    Received,
    attribute,
    attribute_text,
    nested,
    number,
    pack_message,
    text,
    unpack_attributes,
    unpack_messages,
)
from dataplane.plan import Protocol

MESSAGES = st.lists(
    st.builds(Message, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.binary(max_size=50)),
    max_size=4,
)


@given(MESSAGES)
def test_messages_round_trip(messages: list[Message]) -> None:
    data = b"".join(pack_message(m, n, NLM_F_REQUEST) for n, m in enumerate(messages))
    expected = [
        Received(m.type, m.flags | NLM_F_REQUEST, n, m.body) for n, m in enumerate(messages)
    ]

    assert list(unpack_messages(data)) == expected


@given(st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=50), max_size=5))
def test_attributes_round_trip(attributes: dict[int, bytes]) -> None:
    data = b"".join(attribute(kind, value) for kind, value in attributes.items())

    assert unpack_attributes(data) == attributes


@given(st.binary(max_size=100))
def test_any_bytes_are_messages_or_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedNetlinkError):
        for received in unpack_messages(data):
            received.error()


@given(st.binary(max_size=100), st.sampled_from((rt.RTM_NEWLINK, rt.RTM_NEWADDR)))
def test_any_body_is_read_or_malformed(body: bytes, kind: int) -> None:
    dump = [Received(kind, 0, 1, body)]
    readers: tuple[Callable[[list[Received]], object], ...] = (
        inventory.read_links,
        inventory.read_addresses,
        inventory.read_routes,
        inventory.read_rules,
        inventory.read_entries,
        lambda found: inventory.read_chains(found, "hivewire"),
        inventory.has_dropping_forward_chain,
    )
    for read in readers:
        with contextlib.suppress(MalformedNetlinkError):
            read(dump)


def test_numbers_and_texts() -> None:
    assert text(b"br0\0") == "br0"
    assert number(struct.pack("=I", 0x01020304)) == 0x01020304
    assert number(b"") == 0


def read_back(message: Message) -> Received:
    return Received(message.type, message.flags, 0, message.body)


def test_vxlan_device_is_read_back_as_it_was_asked_for() -> None:
    message = rt.make_vxlan(
        "vx0",
        vni=5001,
        local=IPv4Address("198.18.0.1"),
        port=4789,
        mtu=1450,
        proxy=True,
        mac="02:fe:00:00:00:01",
        group=7,
    )
    (link,) = inventory.read_links([read_back(message)])

    assert link == inventory.Link(
        index=0,
        name="vx0",
        is_up=True,
        kind="vxlan",
        mac="02:fe:00:00:00:01",
        mtu=1450,
        master=0,
        peer=0,
        group=7,
        vni=5001,
        tunnel=IPv4Address("198.18.0.1"),
        port=4789,
    )


def test_cable_ends_are_in_their_places() -> None:
    message = rt.make_veth(
        "hv0",
        master=3,
        mtu=1450,
        peer_name="eth0",
        peer_mac="02:42:c6:13:00:0b",
        peer_namespace=9,
    )
    (near,) = inventory.read_links([read_back(message)])
    assert (near.name, near.master, near.kind, near.is_up) == ("hv0", 3, "veth", True)
    info = unpack_attributes(unpack_attributes(message.body[16:])[rt.IFLA_LINKINFO])
    peer = unpack_attributes(unpack_attributes(info[rt.IFLA_INFO_DATA])[1][16:])
    assert text(peer[rt.IFLA_IFNAME]) == "eth0"
    assert number(peer[rt.IFLA_NET_NS_FD]) == 9


def test_addresses_routes_rules_and_entries_are_read_back() -> None:
    address = IPv4Address("198.19.0.11")
    assert inventory.read_addresses([read_back(rt.set_address(4, address, 24))]) == [
        inventory.Address(4, address, 24)
    ]
    subnet, via = IPv4Network("100.64.2.0/24"), IPv4Address("100.127.0.2")
    route = rt.set_route(subnet, index=4, via=via, table=0x4857)
    assert inventory.read_routes([read_back(route)]) == [inventory.Route(0x4857, subnet, 4, via)]
    rule = rt.make_rule(mark=0x48570000, mask=0xFFFFF000, table=0x4857, priority=9)
    assert inventory.read_rules([read_back(rule)]) == [
        inventory.Rule(9, 0x48570000, 0xFFFFF000, 0x4857)
    ]
    entry = rt.set_tunnel_entry(4, "02:42:c6:13:00:0b", via)
    assert inventory.read_entries([read_back(entry)]) == [
        inventory.Entry(4, rt.NUD_PERMANENT, "02:42:c6:13:00:0b", via)
    ]


def test_removing_a_tunnel_entry_as_bridge_does() -> None:
    # bridge fdb del 02:42:0a:00:00:01 dev vx0 self (ifindex 4), less the message header
    message = rt.remove_tunnel_entry(4, "02:42:0a:00:00:01")

    assert message.type == rt.RTM_DELNEIGH
    assert message.body == bytes.fromhex("07000000 04000000 8000 02 00 0a00 0200 02420a000001 0000")


def test_own_chains_are_told_from_others() -> None:
    def chain(table: str, name: str) -> Received:
        body = struct.pack("=BBH", socket.AF_INET, 0, 0)
        return Received(0, 0, 1, body + attribute_text(1, table) + attribute_text(3, name))

    dump = [chain("hivewire", "vips"), chain("filter", "FORWARD")]
    assert inventory.read_chains(dump, "hivewire") == [(socket.AF_INET, "vips")]


def test_a_set_is_empty_if_it_is_listed_without_elements() -> None:
    def listed(*more: bytes) -> Received:
        body = struct.pack("=BBH", socket.AF_INET, 0, 0)
        named = attribute_text(1, "hivewire") + attribute_text(2, "datagrams")
        return Received(0, 0, 1, body + named + b"".join(more))

    element = nested(1, nested(1, attribute(1, b"\x11")))
    assert inventory.is_known_empty([listed()])
    assert inventory.is_known_empty([listed(nested(3))])
    assert not inventory.is_known_empty([listed(nested(3, element))])
    assert not inventory.is_known_empty([])  # there is no such set


def test_forgetting_a_flow_names_every_field_that_must_match() -> None:
    flow = Flow(IPv4Address("10.0.0.1"), IPv4Address("10.0.0.9"), Protocol.UDP, 53)
    message = conntrack.forget(flow)
    attributes = unpack_attributes(message.body[4:])
    orig, reply, flags = (unpack_attributes(attributes[kind]) for kind in (1, 2, 25))

    assert unpack_attributes(orig[1]) == {2: bytes([10, 0, 0, 9])}
    assert unpack_attributes(reply[1]) == {1: bytes([10, 0, 0, 1])}
    assert unpack_attributes(reply[2]) == {1: b"\x11", 2: b"\x00\x35"}
    assert {kind: number(value) for kind, value in flags.items()} == {1: 2, 2: 1 | 8 | 16}
