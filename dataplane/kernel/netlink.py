"""Netlink messages and attributes to bytes and back (pure).

Everything is in the byte order of the machine, as the kernel speaks it. Parsing trusts the
kernel's lengths no further than the bytes reach.

Source: netlink(7), linux/netlink.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_INT = struct.Struct("=i")


class MalformedNetlinkError(Exception):
    """Bytes that are no netlink message."""


@dataclass(frozen=True, slots=True)
class Message:
    """One netlink message, less what a socket fills in (sequence number)."""

    type: int
    flags: int
    """Without NLM_F_REQUEST and NLM_F_ACK, which the socket adds."""
    body: bytes
    """Family header and attributes."""


@dataclass(frozen=True, slots=True)
class Received:
    """One netlink message from the kernel."""

    type: int
    flags: int
    sequence: int
    body: bytes

    def error(self) -> int:
        """Return the error number that an NLMSG_ERROR carries, 0 for an acknowledgement."""
        if len(self.body) < _INT.size:
            raise MalformedNetlinkError("error message without an error number")
        (code,) = _INT.unpack_from(self.body)
        return -int(code)


def pack_message(message: Message, sequence: int, flags: int) -> bytes:
    """Return the bytes of `message`; flags: to add to its own."""
    size = _HEADER.size + len(message.body)
    header = _HEADER.pack(size, message.type, message.flags | flags, sequence, 0)
    return header + message.body + b"\0" * (-size % 4)


def unpack_messages(data: bytes) -> Iterator[Received]:
    """Yield the messages of one datagram.

    Raises:
        MalformedNetlinkError: a length doesn't fit the bytes.
    """
    offset = 0
    while offset < len(data):
        if len(data) - offset < _HEADER.size:
            raise MalformedNetlinkError("truncated message header")
        size, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if size < _HEADER.size or offset + size > len(data):
            raise MalformedNetlinkError(f"message length {size} exceeds the datagram")
        yield Received(kind, flags, sequence, data[offset + _HEADER.size : offset + size])
        offset += size + (-size % 4)


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute with its padding."""
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + b"\0" * (-size % 4)


def attribute_u8(kind: int, value: int) -> bytes:
    """Return an attribute that holds a byte."""
    return attribute(kind, struct.pack("=B", value))


def attribute_u32(kind: int, value: int) -> bytes:
    """Return an attribute that holds a 32-bit number."""
    return attribute(kind, struct.pack("=I", value))


def attribute_text(kind: int, value: str) -> bytes:
    """Return an attribute that holds a NUL-terminated string."""
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def unpack_attributes(data: bytes) -> dict[int, bytes]:
    """Return the attributes in `data` by type, flags taken off; of repeated ones the last.

    Raises:
        MalformedNetlinkError: a length doesn't fit the bytes.
    """
    found: dict[int, bytes] = {}
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, offset)
        if size < _ATTRIBUTE.size or offset + size > len(data):
            raise MalformedNetlinkError(f"attribute length {size} exceeds its message")
        found[kind & _NLA_TYPE_MASK] = data[offset + _ATTRIBUTE.size : offset + size]
        offset += size + (-size % 4)
    return found


def text(value: bytes) -> str:
    """Return the string in an attribute."""
    return value.partition(b"\0")[0].decode(errors="replace")


def number(value: bytes) -> int:
    """Return the number of one, two or four bytes in an attribute."""
    return int.from_bytes(value, "little" if struct.pack("=H", 1)[0] else "big")
