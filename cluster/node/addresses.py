"""Which addresses a node listens on and tells the others: what the user asked for, made definite.

Source: moby daemon/cluster/listen_addr.go, texts included.
"""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from collections.abc import Mapping

from cluster.model.errors import Invalid
from cluster.node.config import CONTROL_PORT

_SIOCGIFADDR = 0x8915
"""netdevice(7)."""
_PORT_MAX = 65535


def interface_addresses() -> dict[str, str]:
    """Return the primary IPv4 address of every interface that has one, loopback included."""
    found: dict[str, str] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # it has none
            found[name] = socket.inet_ntoa(answer[20:24])
    return found


def split_address(text: str, interfaces: Mapping[str, str], *, what: str) -> tuple[str, int]:
    """Return (IP address, port) of `host[:port]` or `interface[:port]`; the port's default: 2377.

    Raises:
        Invalid: neither an IPv4 address nor an interface with one, or an impossible port.
    """
    host, colon, digits = text.rpartition(":")
    if not colon:
        host, digits = text, str(CONTROL_PORT)
    if not digits.isdigit() or not 0 < int(digits) <= _PORT_MAX:
        raise Invalid(f"invalid {what} {text!r}: {digits!r} is not a port")
    host = interfaces.get(host, host)
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError as error:
        raise Invalid(
            f"invalid {what} {text!r}: must be an IPv4 address or network interface"
        ) from error
    return str(address), int(digits)


def choose_advertised(
    asked: str, listen: tuple[str, int], interfaces: Mapping[str, str]
) -> tuple[str, int]:
    """Return the (address, port) that the other nodes are told.

    Raises:
        Invalid: nothing was asked for and there is more than one address, or none, to choose.
    """
    if asked:
        address, port = split_address(asked, interfaces, what="advertise address")
        if ipaddress.IPv4Address(address).is_unspecified:
            raise Invalid("advertise address must be a non-zero IP address")
        return address, port if ":" in asked else listen[1]
    if not ipaddress.IPv4Address(listen[0]).is_unspecified:
        return listen
    candidates = {
        name: address
        for name, address in interfaces.items()
        if not ipaddress.IPv4Address(address).is_loopback
    }
    found = sorted(candidates.items())
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


def choose_data_path(asked: str, advertised: str, interfaces: Mapping[str, str]) -> str:
    """Return the address that encapsulated traffic leaves from and comes to.

    Raises:
        Invalid: it is not an address of this machine.
    """
    if not asked:
        return advertised
    if ":" in asked:
        raise Invalid(f"invalid data path address {asked!r}: it has no port of its own")
    address, _ = split_address(asked, interfaces, what="data path address")
    if address not in interfaces.values():
        raise Invalid(f"data path address {address} is not on any interface of this machine")
    return address
