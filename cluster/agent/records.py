"""What nodes tell each other through gossip about their tasks, as bytes (pure).

In every scope a node publishes one record per endpoint, under the task's id, and one `applied`
record, which names the draining tasks that its own plan no longer gives connections to. That every
attached node has one, be it empty, also tells who is attached.

Wire: msgpack arrays; later versions may append fields, which this one ignores. Functions ending in
`_untrusted` take bytes from the network: they return a value or raise MalformedRecord, nothing
else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from ipaddress import IPv4Address
from typing import Annotated

import msgspec
from msgspec import Meta

from cluster.model.ids import ServiceId, TaskId
from cluster.model.service import EndpointMode
from dataplane.plan import Protocol

RECORD_BYTES_MAX = 1024
"""Gossip carries no longer values."""
PORTS_MAX = 64
"""Ports per record; a task with more of them has several records."""
ALIASES_MAX = 64
APPLIED_KEY = "applied"
"""Key of a node's `applied` record; no task id looks like it."""
INGRESS_SCOPE = "ingress"
"""Scope of published ports, which every node attaches to. The other scopes are network ids."""
TASK_HASH_BYTES = 6
"""Enough to tell apart what drains at one time; task ids are random."""
APPLIED_TASKS_MAX = 128
"""Tasks that one `applied` record can name; those left out wait for their drain timeout."""
_ENDPOINT_KIND = 1
_APPLIED_KIND = 2
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
    phase: Phase
    created_ms: int = 0
    """When the managers made the task, Unix time: of two tasks that claim one address, the later
    one is right."""
    mode: EndpointMode = EndpointMode.VIP
    address: IPv4Address | None = None
    """None: in the scope `ingress`."""
    mac: str = ""
    vip: IPv4Address | None = None
    aliases: tuple[str, ...] = ()
    hostname: str = ""
    gateway_address: IPv4Address | None = None
    ports: tuple[RecordPort, ...] = ()


_Text = Annotated[str, Meta(max_length=191)]
_Port = Annotated[int, Meta(ge=1, le=65535)]
_Address = Annotated[bytes, Meta(min_length=4, max_length=4)] | None


class _Wire(msgspec.Struct, array_like=True):
    kind: int
    task: _Text
    task_name: _Text
    service: _Text
    service_name: _Text
    phase: Phase
    created_ms: Annotated[int, Meta(ge=0)]
    mode: EndpointMode
    address: _Address
    mac: Annotated[bytes, Meta(max_length=6)]
    vip: _Address
    aliases: Annotated[list[_Text], Meta(max_length=ALIASES_MAX)]
    hostname: _Text
    gateway_address: _Address
    ports: Annotated[list[tuple[Protocol, _Port, _Port]], Meta(max_length=PORTS_MAX)]


class _AppliedWire(msgspec.Struct, array_like=True):
    kind: int
    hashes: bytes


_encoder = msgspec.msgpack.Encoder()
_endpoint_decoder = msgspec.msgpack.Decoder(_Wire)
_applied_decoder = msgspec.msgpack.Decoder(_AppliedWire)


def encode(record: EndpointRecord) -> bytes:
    """Return the wire form of `record`; how long it is, is for the caller to look at."""
    return _encoder.encode(
        _Wire(
            kind=_ENDPOINT_KIND,
            task=record.task,
            task_name=record.task_name,
            service=record.service,
            service_name=record.service_name,
            phase=record.phase,
            created_ms=record.created_ms,
            mode=record.mode,
            address=_packed(record.address),
            mac=bytes.fromhex(record.mac.replace(":", "")),
            vip=_packed(record.vip),
            aliases=list(record.aliases),
            hostname=record.hostname,
            gateway_address=_packed(record.gateway_address),
            ports=[(p.protocol, p.published, p.target) for p in record.ports],
        )
    )


def decode_untrusted(data: bytes) -> EndpointRecord:
    """Return the endpoint record in `data`.

    Raises:
        MalformedRecord: it is none.
    """
    if len(data) > RECORD_BYTES_MAX:
        raise MalformedRecord(f"{len(data)} bytes")
    try:
        wire = _endpoint_decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise MalformedRecord(str(error)) from error
    if wire.kind != _ENDPOINT_KIND or len(wire.mac) not in (0, 6):
        raise MalformedRecord(f"kind {wire.kind}, MAC of {len(wire.mac)} bytes")
    required = (wire.task, wire.task_name, wire.service, wire.service_name, *wire.aliases)
    if not all(map(_NAME.fullmatch, required)):
        raise MalformedRecord("a name is empty, or has characters that no name has")
    if wire.hostname and not _NAME.fullmatch(wire.hostname):
        raise MalformedRecord("the host name has characters that no name has")
    return EndpointRecord(
        task=TaskId(wire.task),
        task_name=wire.task_name,
        service=ServiceId(wire.service),
        service_name=wire.service_name,
        phase=wire.phase,
        created_ms=wire.created_ms,
        mode=wire.mode,
        address=_address(wire.address),
        mac=":".join(f"{byte:02x}" for byte in wire.mac),
        vip=_address(wire.vip),
        aliases=tuple(wire.aliases),
        hostname=wire.hostname,
        gateway_address=_address(wire.gateway_address),
        ports=tuple(RecordPort(*port) for port in wire.ports),
    )


def task_hash(task: str) -> bytes:
    """Return the short form of a task's id that `applied` records have."""
    return blake2b(task.encode(), digest_size=TASK_HASH_BYTES).digest()


def encode_applied(tasks: Iterable[str]) -> bytes:
    """Return the `applied` record that names `tasks`, or as many as fit."""
    hashes = sorted(task_hash(task) for task in tasks)[:APPLIED_TASKS_MAX]
    return _encoder.encode(_AppliedWire(_APPLIED_KIND, b"".join(hashes)))


def decode_applied_untrusted(data: bytes) -> frozenset[bytes]:
    """Return the task hashes that the `applied` record in `data` names.

    Raises:
        MalformedRecord: it is none.
    """
    if len(data) > RECORD_BYTES_MAX:
        raise MalformedRecord(f"{len(data)} bytes")
    try:
        wire = _applied_decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise MalformedRecord(str(error)) from error
    if wire.kind != _APPLIED_KIND or len(wire.hashes) % TASK_HASH_BYTES:
        raise MalformedRecord(f"kind {wire.kind}, {len(wire.hashes)} bytes of hashes")
    starts = range(0, len(wire.hashes), TASK_HASH_BYTES)
    return frozenset(wire.hashes[start : start + TASK_HASH_BYTES] for start in starts)


def _packed(address: IPv4Address | None) -> bytes | None:
    return None if address is None else address.packed


def _address(packed: bytes | None) -> IPv4Address | None:
    return None if packed is None else IPv4Address(packed)
