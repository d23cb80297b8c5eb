"""What the values inside packets must be (pure).

Each function takes a decoded value from the network and returns it, or raises MalformedPacketError
(`host`: ValueError).
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import cast

from gossip.wire import NODE_ID_CHARS_MAX, SCOPE_CHARS_MAX, MalformedPacketError

_HOSTS_MAX = 4096
"""Addresses that are known to be well formed; the least recently seen goes first."""


def array(value: object) -> list[object]:
    """Return `value` if it is an array."""
    if not isinstance(value, list):
        raise MalformedPacketError("not an array")
    return cast("list[object]", value)


def count(value: object, most: int = 2**64 - 1) -> int:
    """Return `value` if it is a whole number of 0 to `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise MalformedPacketError("not a count")
    return value


def port(value: object) -> int:
    """Return `value` if it is a port."""
    number = count(value, 65535)
    if number == 0:
        raise MalformedPacketError("port 0")
    return number


def name(value: object) -> str:
    """Return `value` if it is a node id."""
    if not isinstance(value, str) or not 0 < len(value) <= NODE_ID_CHARS_MAX:
        raise MalformedPacketError("bad node id")
    if not value.isascii() or not value.isprintable():
        raise MalformedPacketError("bad node id")
    return value


def scope(value: object) -> str:
    """Return `value` if it is the name of a scope."""
    if not isinstance(value, str) or not 0 < len(value) <= SCOPE_CHARS_MAX:
        raise MalformedPacketError("bad scope")
    return value


def host(value: object) -> str:
    """Return `value` if it is an IP address."""
    if not isinstance(value, str) or "%" in value:
        raise MalformedPacketError("bad address")
    _check_ip(value)
    return value


@lru_cache(_HOSTS_MAX)
def _check_ip(text: str) -> None:
    ipaddress.ip_address(text)


def blob(value: object, most: int) -> bytes:
    """Return `value` if it is a byte string of at most `most` bytes."""
    if not isinstance(value, bytes) or len(value) > most:
        raise MalformedPacketError("bad byte string")
    return value
