"""What nodes tell each other through gossip about one task, as bytes (pure).

In every scope a node publishes one record per endpoint, under the task's id. A record is the body,
which the managers have composed and signed, their token, and a phase, which is the node's own to
say.

Wire: msgpack arrays; later versions may append fields, which this one ignores. Functions ending in
`_untrusted` take bytes from the network: they return a value or raise MalformedRecord, nothing
else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from cluster.model.ids import ServiceId, TaskId
from cluster.model.service import EndpointMode
from dataplane.plan import Protocol

RECORD_BYTES_MAX = 1024
"""Gossip carries no longer values."""
BODY_BYTES_MAX = 944
"""What is left beside phase, token and framing."""
PORTS_MAX = 48
"""Ports per record; a task with more of them has several records."""
ALIASES_MAX = 64
INGRESS_SCOPE = "ingress"
"""Scope of published ports, which every node attaches to. The other scopes are network ids."""
_KIND = 1
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,189}[A-Za-z0-9_])?")


class MalformedRecord(Exception):
    """Bytes from another node that are no record; they are ignored and counted."""


class Phase(IntEnum):
    """What an endpoint may be used for."""

    STARTING = 0
    """It has its address, so replies must reach it; nobody connects to it."""
    SERVING = 1
    DRAINING = 2
    """It is about to stop: reachable, but no node may give it new connections."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a record is published."""

    scope: str
    key: str


@dataclass(frozen=True, slots=True, order=True)
class RecordPort:
    """A published port and the port of the sandbox behind it."""

    protocol: Protocol
    published: int
    target: int


@dataclass(frozen=True, slots=True)
class EndpointRecord:
    """One task in one scope. In a network's scope it has an address; in `ingress`, ports."""

    task: TaskId
    task_name: str
    service: ServiceId
    service_name: str
    phase: Phase = Phase.STARTING
    """Not part of the body."""
    allocation: int = 0
    """Raft index: of two tasks that claim one address, the later allocation is right."""
    service_allocation: int = 0
    """Likewise of two services that claim one name, virtual IP or published port."""
    mode: EndpointMode = EndpointMode.VIP
    address: IPv4Address | None = None
    """None: in the scope `ingress`. Its MAC follows from it (`dataplane.addressing`)."""
    vip: IPv4Address | None = None
    aliases: tuple[str, ...] = ()
    hostname: str = ""
    gateway_address: IPv4Address | None = None
    ports: tuple[RecordPort, ...] = ()


@dataclass(frozen=True, slots=True)
class Sealed:
    """A record whose body nobody has looked at."""

    phase: Phase
    body: bytes
    token: bytes


_Text = Annotated[str, Meta(max_length=191)]
_Port = Annotated[int, Meta(ge=1, le=65535)]
_Index = Annotated[int, Meta(ge=0)]
_Address = Annotated[bytes, Meta(min_length=4, max_length=4)] | None


class _Wire(msgspec.Struct, array_like=True):
    kind: int
    phase: Phase
    body: bytes
    token: Annotated[bytes, Meta(max_length=64)]


class _Body(msgspec.Struct, array_like=True):
    task: _Text
    task_name: _Text
    service: _Text
    service_name: _Text
    allocation: _Index
    service_allocation: _Index
    mode: EndpointMode
    address: _Address
    vip: _Address
    aliases: Annotated[list[_Text], Meta(max_length=ALIASES_MAX)]
    hostname: _Text
    gateway_address: _Address
    ports: Annotated[list[tuple[Protocol, _Port, _Port]], Meta(max_length=PORTS_MAX)]


_T = TypeVar("_T")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Wire)
_body_decoder = msgspec.msgpack.Decoder(_Body)


def encode(phase: Phase, body: bytes, token: bytes) -> bytes:
    """Return the wire form of a record."""
    return _encoder.encode(_Wire(_KIND, phase, body, token))


def decode_untrusted(data: bytes) -> Sealed:
    """Return the record in `data`, its body as it is.

    Raises:
        MalformedRecord: it is none.
    """
    wire = unpack_untrusted(data, _decoder)
    if wire.kind != _KIND:
        raise MalformedRecord(f"kind {wire.kind}")
    return Sealed(wire.phase, wire.body, wire.token)


def unpack_untrusted(data: bytes, decoder: msgspec.msgpack.Decoder[_T]) -> _T:
    """Return what `decoder` finds in a gossip record.

    Raises:
        MalformedRecord: it is too long, or something else.
    """
    if len(data) > RECORD_BYTES_MAX:
        raise MalformedRecord(f"{len(data)} bytes")
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise MalformedRecord(str(error)) from error


def encode_body(record: EndpointRecord) -> bytes:
    """Return all of `record` but its phase; how long it is, is for the caller to look at."""
    return _encoder.encode(
        _Body(
            task=record.task,
            task_name=record.task_name,
            service=record.service,
            service_name=record.service_name,
            allocation=record.allocation,
            service_allocation=record.service_allocation,
            mode=record.mode,
            address=_packed(record.address),
            vip=_packed(record.vip),
            aliases=list(record.aliases),
            hostname=record.hostname,
            gateway_address=_packed(record.gateway_address),
            ports=[(p.protocol, p.published, p.target) for p in record.ports],
        )
    )


def decode_body_untrusted(body: bytes, phase: Phase) -> EndpointRecord:
    """Return the record with this body and phase.

    Raises:
        MalformedRecord: the body is none.
    """
    try:
        record = decode_body(body, phase)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise MalformedRecord(str(error)) from error
    required = (record.task, record.task_name, record.service, record.service_name)
    if not all(map(_NAME.fullmatch, (*required, *record.aliases))):
        raise MalformedRecord("a name is empty, or has characters that no name has")
    if record.hostname and not _NAME.fullmatch(record.hostname):
        raise MalformedRecord("the host name has characters that no name has")
    return record


def decode_body(body: bytes, phase: Phase) -> EndpointRecord:
    """Return the record with this phase and a body that a manager of this cluster made."""
    wire = _body_decoder.decode(body)
    return EndpointRecord(
        task=TaskId(wire.task),
        task_name=wire.task_name,
        service=ServiceId(wire.service),
        service_name=wire.service_name,
        phase=phase,
        allocation=wire.allocation,
        service_allocation=wire.service_allocation,
        mode=wire.mode,
        address=_address(wire.address),
        vip=_address(wire.vip),
        aliases=tuple(wire.aliases),
        hostname=wire.hostname,
        gateway_address=_address(wire.gateway_address),
        ports=tuple(RecordPort(*port) for port in wire.ports),
    )


def _packed(address: IPv4Address | None) -> bytes | None:
    return None if address is None else address.packed


def _address(packed: bytes | None) -> IPv4Address | None:
    return None if packed is None else IPv4Address(packed)
