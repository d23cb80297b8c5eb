"""Bodies of the HTTP endpoints of port 2377, and their codec: msgpack maps (pure).

`decode_untrusted` raises MalformedMessage whatever it is given, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from cluster.dispatch.messages import (
    DECODE_ERRORS,
    RING_DIGEST_BYTES_MAX,
    LogRecord,
    MalformedMessage,
    ManagerAddress,
    Registration,
    check_registration,
)
from cluster.model.ids import ClusterId, NodeId, TaskId
from cluster.model.logs import LogOptions
from cluster.model.node import Availability, Role

CONTENT_TYPE = "application/msgpack"
ERROR_HEADER = "Hivewire-Error"
"""`<kind> <percent-encoded message>`: the error where a refused WebSocket can read it."""
CA_PATH = "/v1/ca"
JOIN_PATH = "/v1/join"
RENEW_PATH = "/v1/renew"
RAFT_JOIN_PATH = "/v1/raft/join"
SESSION_PATH = "/v1/session"
SIGHTINGS_PATH = "/v1/sightings"
LOGS_PATH = "/v1/logs"
REQUEST_BYTES_MAX = 64 * 1024
"""Largest body of a request from outside or from a worker."""
REPORT_BYTES_MAX = 1024 * 1024
"""Largest body of a request from another manager."""
RESPONSE_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """Let me in."""

    token: str = field(repr=False)
    csr: bytes
    """PEM."""
    registration: Registration
    availability: Availability = Availability.ACTIVE


@dataclass(frozen=True, slots=True)
class JoinResponse:
    """You are in."""

    node: NodeId
    role: Role
    cluster: ClusterId
    certificate: bytes
    """PEM."""
    ca: bytes
    """PEM."""
    address: str
    """IP address that the cluster knows the node by: as it asked, or as it was seen."""
    managers: tuple[ManagerAddress, ...]


@dataclass(frozen=True, slots=True)
class RenewRequest:
    """Certify my new key."""

    csr: bytes
    """PEM."""


@dataclass(frozen=True, slots=True)
class RenewResponse:
    """The certificate, with the role that the cluster wishes the node to have."""

    certificate: bytes
    """PEM."""


@dataclass(frozen=True, slots=True)
class RaftJoinRequest:
    """Add me to the managers that agree."""

    address: str
    """`host:port` of the sender's control port."""


@dataclass(frozen=True, slots=True)
class RaftJoinResponse:
    """The managers that agree, the new one among them."""

    members: tuple[ManagerAddress, ...]


@dataclass(frozen=True, slots=True)
class ReportedSighting:
    """One node as another manager sees it."""

    node: NodeId
    age_s: float
    """Seconds since it was last seen: managers' clocks need not agree."""
    is_connected: bool
    ring: bytes = b""
    """Digest of the gossip keys that it holds, as it said last."""


@dataclass(frozen=True, slots=True)
class SightingReport:
    """All nodes that the sender has, or lately had, a session with."""

    sightings: tuple[ReportedSighting, ...]


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Send the output of those of these tasks whose nodes have their session with you."""

    tasks: tuple[TaskId, ...]
    options: LogOptions


@dataclass(frozen=True, slots=True)
class LogPage:
    """Some lines."""

    records: tuple[LogRecord, ...]


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """Why not."""

    kind: str
    """Name of a class in `cluster.model.errors`."""
    message: str


Body = (
    JoinRequest | JoinResponse | RenewRequest | RenewResponse | RaftJoinRequest | RaftJoinResponse
    | SightingReport | LogQuery | LogPage | ErrorBody
)  # fmt: skip
_B = TypeVar("_B", bound=Body)


def encode_body(body: Body) -> bytes:
    """Return the wire form."""
    return msgspec.msgpack.encode(body)


def decode_untrusted(data: bytes, kind: type[_B]) -> _B:
    """Return the body in `data`."""
    try:
        body = msgspec.msgpack.decode(data, type=kind)
    except DECODE_ERRORS as error:
        raise MalformedMessage(f"{kind.__name__}: {error}") from error
    if isinstance(body, JoinRequest):
        check_registration(body.registration)
    if isinstance(body, SightingReport):
        for sighting in body.sightings:
            if not 0.0 <= sighting.age_s < float("inf"):
                raise MalformedMessage(f"a sighting is {sighting.age_s} s old")
            if len(sighting.ring) > RING_DIGEST_BYTES_MAX:
                raise MalformedMessage(f"a digest of {len(sighting.ring)} bytes")
    return body
