"""Which addresses a node listens on and tells the others: what the user asked for, made definite.

All of them must be this machine's own: the node speaks to itself by the address that it tells the
others, and sends the overlay's packets from it. (Swarm also takes an advertised address that is
translated to this machine's; until our data path knows two addresses, that would be half a node.)

Source: moby daemon/cluster/listen_addr.go, texts included.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from itertools import chain

from cluster.model.errors import Conflict, Invalid
from cluster.node.config import CONTROL_PORT

_PORT_MAX = 65535

Interfaces = Mapping[str, tuple[str, ...]]
"""The IPv4 addresses of every interface that has one, primary ones first; loopback included."""


def split_address(text: str, interfaces: Interfaces, *, what: str) -> tuple[str, int]:
    """Return (IP address, port) of `host[:port]` or `interface[:port]`; the port's default: 2377.

    An interface means its first address.

    Raises:
        Invalid: neither an address of this machine, nor 0.0.0.0, nor an interface with an address,
            or an impossible port.
    """
    host, colon, digits = text.rpartition(":")
    if not colon:
        host, digits = text, str(CONTROL_PORT)
    if not digits.isdigit() or not 0 < int(digits) <= _PORT_MAX:
        raise Invalid(f"invalid {what} {text!r}: {digits!r} is not a port")
    host = interfaces.get(host, (host,))[0]
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError as error:
        raise Invalid(
            f"invalid {what} {text!r}: must be an IPv4 address or network interface"
        ) from error
    is_own = str(address) in chain(*interfaces.values())
    if not (is_own or address.is_unspecified or address.is_loopback):
        raise Invalid(
            f"{what} {address} is not on any interface of this machine (a node behind address "
            "translation names its own address, and must be reached by that)"
        )
    return str(address), int(digits)


def choose_advertised(
    asked: str, listen: tuple[str, int], interfaces: Interfaces
) -> tuple[str, int]:
    """Return the (address, port) that the other nodes are told.

    Raises:
        Invalid: what was asked for is not this machine's, or nothing was asked for and there is
            more than one address, or none, to choose.
    """
    if asked:
        address, port = split_address(asked, interfaces, what="advertise address")
        if ipaddress.IPv4Address(address).is_unspecified:
            raise Invalid("advertise address must be a non-zero IP address")
        return address, port if ":" in asked else listen[1]
    if not ipaddress.IPv4Address(listen[0]).is_unspecified:
        return listen
    found = sorted(
        (name, held[0])
        for name, held in interfaces.items()
        if not ipaddress.IPv4Address(held[0]).is_loopback
    )
    if not found:
        raise Invalid("could not find the system's IP address - specify one with --advertise-addr")
    if len(found) > 1:
        (first_name, first), (second_name, second) = found[:2]
        raise Invalid(
            "could not choose an IP address to advertise since this system has multiple "
            f"addresses on different interfaces ({first} on {first_name} and {second} on "
            f"{second_name}) - specify one with --advertise-addr"
        )
    return found[0][1], listen[1]


def choose_data_path(asked: str, advertised: str, interfaces: Interfaces) -> str:
    """Return the address that encapsulated traffic leaves from and comes to.

    Raises:
        Invalid: it is not an address of this machine.
    """
    if not asked:
        return advertised
    if ":" in asked:
        raise Invalid(f"invalid data path address {asked!r}: it has no port of its own")
    address, _ = split_address(asked, interfaces, what="data path address")
    if ipaddress.IPv4Address(address).is_unspecified:
        raise Invalid("data path address must be a non-zero IP address")
    return address


def refuse_taken(host: str, port: int, *, protocol: str) -> None:
    """Find out whether a port (`tcp` or `udp`) can be had: a node that cannot have it cannot live.

    Raises:
        Conflict: somebody else has it.
    """
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as probe:
        if protocol == "tcp":
            # As the listeners do: connections that linger from before are in nobody's way.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Conflict(
                f"port {port}/{protocol} of {host} is taken ({error.strerror}): end what listens "
                "there, or name another one"
            ) from error
