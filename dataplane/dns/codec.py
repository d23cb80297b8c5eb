"""DNS messages as far as the resolver of a sandbox needs them: one question, A and PTR answers.

Pure. A query that we forward is passed on as the bytes it came in, so everything that is not
understood here (DNSSEC, unknown types, options) still works.

Invariants: `decode_query_untrusted` raises nothing but `MalformedQuery`; an encoded response never
exceeds the size it was given, and repeats the question byte for byte (letter case included, which
resolvers use as a nonce).

Source: RFC 1035 section 4, RFC 6891 (EDNS), RFC 9619 (one question per query).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address

HEADER = struct.Struct(">HHHHHH")
HEADER_BYTES = 12
UDP_BYTES_MAX = 512
"""Of a response to a query without EDNS (RFC 1035, 4.2.1)."""
EDNS_BYTES_MAX = 65_507
"""The largest UDP payload of IPv4; the interface is the loopback, nothing is fragmented."""
TCP_BYTES_MAX = 65_535

QR = 0x8000
TC = 0x0200
RD = 0x0100
RA = 0x0080
_OPCODE = 0x7800
_RCODE = 0x000F
_LABEL_BYTES_MAX = 63
_NAME_BYTES_MAX = 255
_POINTER = 0xC0
_QUESTION_TAIL = struct.Struct(">HH")
_RECORD_TAIL = struct.Struct(">HHIH")
_ANSWER_TO_QUESTION = b"\xc0\x0c"
"""Compressed name: the one of the question, right after the header."""
_OPT_BYTES = 11


class MalformedQuery(Exception):
    """These bytes are no query."""


class Type(IntEnum):
    """The record types that mean something here."""

    A = 1
    PTR = 12
    OPT = 41


class Rcode(IntEnum):
    """Response codes."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


CLASS_IN = 1


@dataclass(frozen=True, slots=True)
class Query:
    """One question."""

    id: int
    flags: int
    name: str
    """Lower case, without the final dot; a dot or backslash inside a label is escaped by a
    backslash, bytes beyond ASCII are Latin-1. Empty: the root."""
    type: int
    class_: int
    question: bytes
    """The question section as it came."""
    edns_bytes_max: int | None = None
    """UDP payload size that the client offers; None: the query has no OPT record."""
    edns_version: int = 0

    @property
    def is_standard(self) -> bool:
        """Whether this is an ordinary lookup (opcode 0)."""
        return not self.flags & _OPCODE

    @property
    def udp_bytes_max(self) -> int:
        """The largest response that the client takes in one datagram."""
        if self.edns_bytes_max is None:
            return UDP_BYTES_MAX
        return min(max(self.edns_bytes_max, UDP_BYTES_MAX), EDNS_BYTES_MAX)


@dataclass(frozen=True, slots=True)
class Answer:
    """Records for the name of the question, all with one TTL."""

    data: tuple[IPv4Address | str, ...] = ()
    """Addresses become A records, names (dotted, without the final dot) PTR records."""
    ttl_s: int = 0


def decode_query_untrusted(data: bytes) -> Query:
    """Return the query that `data` is.

    Raises:
        MalformedQuery: it is a response, has no or several questions, or is cut short.
    """
    if len(data) < HEADER_BYTES:
        raise MalformedQuery("shorter than a header")
    id_, flags, questions, answers, authorities, additional = HEADER.unpack_from(data)
    if flags & QR or questions != 1:
        raise MalformedQuery("not a query with one question")
    labels, at = _read_question_name(data)
    end = at + _QUESTION_TAIL.size
    if end > len(data):
        raise MalformedQuery("question is cut short")
    type_, class_ = _QUESTION_TAIL.unpack_from(data, at)
    edns = _find_edns(data, end, answers + authorities + additional)
    return Query(
        id=id_,
        flags=flags,
        name=".".join(map(_label_text, labels)),
        type=type_,
        class_=class_,
        question=data[HEADER_BYTES:end],
        edns_bytes_max=edns[0] if edns else None,
        edns_version=edns[1] if edns else 0,
    )


def encode_response(
    query: Query, rcode: Rcode, answer: Answer | None = None, *, bytes_max: int
) -> bytes:
    """Return the response to `query`; with TC and as many records as fit when not all do."""
    room = bytes_max - HEADER_BYTES - len(query.question)
    if query.edns_bytes_max is not None:
        room -= _OPT_BYTES
    records = _encode_records(answer) if answer else []
    kept = _count_fitting(records, room)
    flags = QR | RA | (query.flags & (_OPCODE | RD)) | (rcode & _RCODE)
    if kept < len(records):
        flags |= TC
    opt = query.edns_bytes_max is not None
    return b"".join(
        (
            HEADER.pack(query.id, flags, 1, kept, 0, int(opt)),
            query.question,
            *records[:kept],
            _encode_opt(rcode) if opt else b"",
        )
    )


def rcode_of_untrusted(response: bytes) -> int | None:
    """Return the response code of an upstream's answer; None: it is not a DNS response."""
    if len(response) < HEADER_BYTES or not response[2] & 0x80:
        return None
    return response[3] & _RCODE


def reverse_address(name: str) -> IPv4Address | None:
    """Return the address that `name` (`4.3.2.1.in-addr.arpa`) asks the name of; None: no such."""
    digits, dot, suffix = name.partition(".in-addr.arpa")
    parts = digits.split(".")
    if not dot or suffix or len(parts) != 4:  # noqa: PLR2004  (bytes of an IPv4 address)
        return None
    try:
        return IPv4Address(".".join(reversed(parts)))
    except ValueError:
        return None


def _read_question_name(data: bytes) -> tuple[list[bytes], int]:
    """Return the labels of the question's name and where it ends."""
    labels: list[bytes] = []
    at = HEADER_BYTES
    while at < len(data):
        length = data[at]
        if length == 0:
            return labels, at + 1
        if length > _LABEL_BYTES_MAX:  # a pointer has nothing to point at yet
            raise MalformedQuery("label is longer than 63 bytes")
        labels.append(data[at + 1 : at + 1 + length].lower())
        at += 1 + length
        if at - HEADER_BYTES >= _NAME_BYTES_MAX:
            raise MalformedQuery("name is longer than 255 bytes")
    raise MalformedQuery("name is cut short")


def _label_text(label: bytes) -> str:
    text = label.decode("latin-1")
    if "." in text or "\\" in text:
        return text.replace("\\", "\\\\").replace(".", "\\.")
    return text


def _find_edns(data: bytes, at: int, records: int) -> tuple[int, int] | None:
    """Return payload size and version of the OPT record among the next `records`, if any."""
    for _ in range(records):
        at = _skip_name(data, at)
        if at + _RECORD_TAIL.size > len(data):
            raise MalformedQuery("record is cut short")
        type_, class_, ttl, length = _RECORD_TAIL.unpack_from(data, at)
        at += _RECORD_TAIL.size + length
        if at > len(data):
            raise MalformedQuery("record is cut short")
        if type_ == Type.OPT:
            return class_, ttl >> 16 & 0xFF
    return None


def _skip_name(data: bytes, at: int) -> int:
    """Return where the name at `at` ends, without following its pointer."""
    while at < len(data):
        length = data[at]
        if length >= _POINTER:
            return at + 2
        if length == 0:
            return at + 1
        at += 1 + length
    raise MalformedQuery("name is cut short")


def _encode_records(answer: Answer) -> list[bytes]:
    return [_encode_record(value, answer.ttl_s) for value in answer.data]


def _encode_record(value: IPv4Address | str, ttl_s: int) -> bytes:
    if isinstance(value, str):
        type_, data = Type.PTR, _encode_name(value)
    else:
        type_, data = Type.A, value.packed
    return _ANSWER_TO_QUESTION + _RECORD_TAIL.pack(type_, CLASS_IN, ttl_s, len(data)) + data


def _encode_name(name: str) -> bytes:
    labels = [label.encode("latin-1") for label in name.split(".")]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _encode_opt(rcode: Rcode) -> bytes:
    # The upper bits of the response code are the first byte of what is the TTL elsewhere.
    return b"\0" + _RECORD_TAIL.pack(Type.OPT, EDNS_BYTES_MAX, rcode >> 4 << 24, 0)


def _count_fitting(records: Sequence[bytes], room: int) -> int:
    for count, record in enumerate(records):
        room -= len(record)
        if room < 0:
            return count
    return len(records)
