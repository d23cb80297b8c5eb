"""What the machine tells its shell, and the views it lends to the outside (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from gossip.wire import State


@dataclass(frozen=True, slots=True)
class MemberView:
    """What this node believes of one member (itself included)."""

    node_id: str
    state: State
    address: str
    port: int
    data_address: str
    incarnation: int
    epoch: int
    since: float
    """When the member entered this state, on this node's monotonic clock."""
    accuser: str | None = None
    """Whose word a state other than ALIVE rests on."""
    suspicion_ends_at: float | None = None
    """When a suspect is declared dead unless it refutes, as things stand, on the same clock."""
    round_trip_s: float | None = None
    """Smoothed, of direct probes; None until one is answered."""
    is_relay_only: bool = False
    """Whether only helpers reach the member: its address or the way there is wrong."""


@dataclass(frozen=True, slots=True)
class RecordView:
    """One visible record."""

    owner: str
    key: str
    version: int
    """Grows with every change of the owner's records in this scope, while it stays attached."""
    value: bytes


@dataclass(frozen=True, slots=True)
class LogView:
    """What this node holds of one owner's log."""

    scope: str
    owner: str
    epoch: int
    attachment: int
    """Version of the owner's attachment to the scope; with the epoch, which life of the log."""
    version: int
    """All versions up to here are known."""
    gc: int
    """The owner has forgotten its deletions up to here."""
    records: int
    tombstones: int
    size_bytes: int
    is_visible: bool
    """Whether the owner is up and attached."""
    written_at: float
    """Unix time of the newest record by its owner's clock; 0: there is none."""


@dataclass(frozen=True, slots=True)
class StoredView:
    """One record held, visible or not."""

    owner: str
    key: str
    version: int
    size_bytes: int | None
    """Of its value; None: it is deleted."""
    is_visible: bool
    written_at: float
    """Unix time by its owner's clock."""


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """The belief about a member changed."""

    node_id: str
    state: State


@dataclass(frozen=True, slots=True)
class PathChanged:
    """A member is reached through helpers only, or directly again."""

    node_id: str
    is_relay_only: bool


@dataclass(frozen=True, slots=True)
class RecordsChanged:
    """The visible records of a scope may have changed."""

    scope: str


@dataclass(frozen=True, slots=True)
class EpochRaised:
    """This node goes on in a new epoch, which must be on disk before the next packet is sent."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Removed:
    """Others say that this node has left, though it has not: the managers removed it."""


@dataclass(frozen=True, slots=True)
class KeysWanted:
    """Others seal with a newer key than this node has, or somebody sends junk: ask for the ring."""


Event = MemberChanged | PathChanged | RecordsChanged | EpochRaised | Removed | KeysWanted
