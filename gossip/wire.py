"""What nodes say to each other: the values inside packets, and the room's errors (pure).

`message` turns them into bytes and back. A `NodeRecord` is made and signed by its subject only, a
`Claim` by an accuser (a departure by the subject or a manager), a `Record` by its owner only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

Address = tuple[str, int]
"""IP address as text, UDP and TCP port."""

NODES = "_nodes"
"""The scope every node takes part in: its records say which scopes their owner is attached to."""

NODE_ID_CHARS_MAX = 32
SCOPE_CHARS_MAX = 64
KEY_BYTES_MAX = 128
VALUE_BYTES_MAX = 1024
RECORDS_PER_LOG_MAX = 4096
"""Records, tombstones included, that one owner may hold in one scope."""
LOG_BYTES_MAX = 2 << 20
"""Their size: a snapshot of one log always fits one stream frame of 4 MiB."""
SCOPES_PER_OWNER_MAX = 256
MEMBERS_MAX = 4096


class GossipError(Exception):
    """Any error of this room."""


class InvalidError(GossipError, ValueError):
    """The caller asked for something that is not allowed; nothing changed."""


class MalformedPacketError(GossipError):
    """Bytes from the network are not a gossip packet; they are dropped and change no state."""


class State(IntEnum):
    """What is believed of a member. At equal incarnation the larger value wins."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A member as it describes itself."""

    node_id: str
    epoch: int
    """Grows with every start of the process."""
    incarnation: int
    """Grows when the member refutes a suspicion."""
    host: str
    port: int
    data_address: str
    """Where the data plane reaches the node."""
    flags: int = 0
    fingerprint: bytes = b""
    """Of the node's certificate."""
    hlc: int = 0
    signature: bytes = b""

    @property
    def address(self) -> Address:
        """Where gossip reaches the member."""
        return (self.host, self.port)


@dataclass(frozen=True, slots=True)
class Claim:
    """An accusation (SUSPECT, DEAD) or a departure (LEFT)."""

    state: State
    subject: str
    epoch: int
    incarnation: int
    accuser: str
    accuser_epoch: int
    fingerprint: bytes = b""
    """Of the accuser's certificate."""
    signature: bytes = b""


class Stamp(NamedTuple):
    """Which life of a log a record belongs to: a newer stamp replaces the whole log."""

    epoch: int
    """The owner's."""
    attachment: int
    """Version of the owner's attachment to the scope; 0 in scope `NODES`."""


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of an owner's log."""

    key: str
    version: int
    """Strictly +1 per log."""
    hlc: int
    value: bytes | None
    """None is a tombstone."""
    signature: bytes = b""


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks `target` for an Ack with the same sequence number."""

    sequence: int
    target: str


@dataclass(frozen=True, slots=True)
class Ack:
    """Answers a Ping, directly."""

    sequence: int
    incarnation: int
    """Of the member that was probed."""


@dataclass(frozen=True, slots=True)
class PingRequest:
    """Asks a helper to probe `target`."""

    sequence: int
    """64 random bits, which the target signs."""
    target: str
    host: str
    port: int


class NackReason(IntEnum):
    """Why a helper has no ack to pass on."""

    TIMEOUT = 0
    REFUSED = 1


@dataclass(frozen=True, slots=True)
class Nack:
    """A helper's answer in place of an Ack: the helper works, the target did not answer it."""

    sequence: int
    reason: NackReason


@dataclass(frozen=True, slots=True)
class Challenge:
    """Asks `target` to show that it is up and itself: a helper asks it for another."""

    sequence: int
    """The asking node's, for the Response."""
    target: str
    nonce: int
    """What the target signs; nobody could know it before."""


@dataclass(frozen=True, slots=True)
class Response:
    """Answers a Challenge, perhaps through a helper, who cannot make it up."""

    sequence: int
    epoch: int
    """Of the member that answers."""
    signature: bytes = b""
    """Its own, over the nonce and the epoch."""


@dataclass(frozen=True, slots=True)
class Update:
    """One record on its way to the peers of its scope."""

    scope: str
    owner: str
    stamp: Stamp
    record: Record


class Stage(IntEnum):
    """What a digest asks of its receiver."""

    COMPARE = 0
    """Send what I lack, ask for what you lack."""
    PULL = 1
    """Send what I lack of these owners."""
    EQUAL = 2
    """Nothing differs."""


class DigestEntry(NamedTuple):
    """How far the sender knows one owner's log."""

    owner: str
    stamp: Stamp
    maximum: int
    gc: int
    mark: int = 0
    """In scope `NODES`: incarnation * 4 + state."""
    proved: int = 0
    """Mark of the head that proves just this (`proof.head_mark`); 0: none is known."""


@dataclass(frozen=True, slots=True)
class Digest:
    """What the sender knows of a scope, as hashes or as entries."""

    scope: str
    stage: Stage
    mask: int = 0
    """The buckets (bit set of 64) of which `entries` are complete."""
    hashes: bytes = b""
    """One hash of all, or one of each bucket; empty when entries are given."""
    entries: tuple[DigestEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class Head:
    """An owner's word on its whole log at one version; see `gossip.proof`."""

    maximum: int
    gc: int
    count: int
    root: bytes
    hlc: int
    signature: bytes = b""


@dataclass(frozen=True, slots=True)
class Delta:
    """All records of a log with a version in (start, end]; with start 0, the whole log.

    Without a head, only the records count, each by its own signature. A delta of a head alone tells
    those who have all the records that they do.
    """

    scope: str
    owner: str
    stamp: Stamp
    start: int
    end: int
    gc: int
    """The owner has forgotten the tombstones up to here."""
    records: tuple[Record, ...]
    head: Head | None = None
    """The owner's, at version `end`."""
    node: NodeRecord | None = None
    """In scope `NODES`: the owner itself."""
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """Asks for certificates that records or claims name."""

    fingerprints: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class CertificateOffer:
    """A certificate of any node, asked for or not."""

    der: bytes


Probe = Ping | Ack | PingRequest | Nack | Challenge | Response
News = NodeRecord | Claim | Update | Digest | Delta | CertificateRequest | CertificateOffer
Message = Probe | News
