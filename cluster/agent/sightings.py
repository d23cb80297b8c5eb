"""What gossip says, read: whose records count, and what is in them (pure).

Records of owners that are not live are hidden, not forgotten: they come back with their owner.
After a start, what the daemon before this one knew stands in for what gossip has not said yet, so
that a restart does not interrupt the node's traffic, and a node that boots alone forwards.

Invariant: what gossip says of an owner and a scope replaces everything remembered of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from cluster.agent.records import (
    APPLIED_KEY,
    EndpointRecord,
    MalformedRecord,
    decode_applied_untrusted,
    decode_untrusted,
)
from cluster.model.ids import NodeId


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One record as gossip has it."""

    owner: NodeId
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Sightings:
    """What gossip says of the other nodes."""

    live: dict[NodeId, str] = field(default_factory=dict[NodeId, str])
    """Members that are ALIVE or SUSPECT -> data-path address as they say it."""
    dead: frozenset[NodeId] = frozenset()
    """Members that are known not to be."""
    records: dict[str, tuple[RawRecord, ...]] = field(
        default_factory=dict[str, tuple[RawRecord, ...]]
    )
    """By scope; of live owners."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A record and whose it is."""

    owner: NodeId
    record: EndpointRecord


@dataclass(frozen=True, slots=True)
class Reading:
    """The other nodes' records, decoded."""

    live: Mapping[NodeId, str] = field(default_factory=dict[NodeId, str])
    endpoints: Mapping[str, tuple[Endpoint, ...]] = field(
        default_factory=dict[str, tuple[Endpoint, ...]]
    )
    """By scope."""
    applied: Mapping[str, Mapping[NodeId, frozenset[bytes]]] = field(
        default_factory=dict[str, Mapping[NodeId, frozenset[bytes]]]
    )
    """Scope -> attached node -> hashes of the draining tasks that it has taken out."""
    malformed: int = 0


def recall(
    now: Sightings, remembered: Sightings, *, unknown_live: bool, silent_live: bool
) -> Sightings:
    """Return what is said now, completed from what is remembered.

    unknown_live: members that gossip has not heard of yet count as live, with what they had.
    silent_live: live members that have said nothing in a scope still have what they had there.
    """
    unknown = {n for n in remembered.live if n not in now.live and n not in now.dead}
    if not unknown_live:
        unknown.clear()
    silent = set(now.live if silent_live else ())
    records: dict[str, tuple[RawRecord, ...]] = {}
    for scope in sorted(now.records.keys() | remembered.records.keys()):
        said = now.records.get(scope, ())
        heard = {record.owner for record in said}
        kept = (unknown | silent) - heard
        old = (r for r in remembered.records.get(scope, ()) if r.owner in kept)
        records[scope] = (*said, *old)
    live = {node: remembered.live[node] for node in sorted(unknown)} | now.live
    return Sightings(live, now.dead, records)


def read(
    sightings: Sightings, own: NodeId, scopes: Collection[str], known: Mapping[bytes, Decoded]
) -> tuple[Reading, dict[bytes, Decoded]]:
    """Return what the other nodes say in `scopes`, and what each value was decoded to.

    known: the second result of an earlier call, which saves decoding again.
    """
    decoded: dict[bytes, Decoded] = {}
    endpoints: dict[str, tuple[Endpoint, ...]] = {}
    applied: dict[str, Mapping[NodeId, frozenset[bytes]]] = {}
    malformed = 0
    for scope in sorted(scopes):
        found: list[Endpoint] = []
        rows: dict[NodeId, frozenset[bytes]] = {}
        for raw in _of_others(sightings, own, scope):
            value = known.get(raw.value) or decoded.get(raw.value) or _decode(raw)
            decoded[raw.value] = value
            match value:
                case EndpointRecord():
                    found.append(Endpoint(raw.owner, value))
                case AppliedTasks():
                    rows[raw.owner] = value.hashes
                case None:
                    malformed += 1
        endpoints[scope], applied[scope] = tuple(found), rows
    live = {node: address for node, address in sightings.live.items() if node != own}
    return Reading(live, endpoints, applied, malformed), decoded


@dataclass(frozen=True, slots=True)
class AppliedTasks:
    """A decoded `applied` record."""

    hashes: frozenset[bytes]


Decoded = EndpointRecord | AppliedTasks | None
"""None: malformed."""


def _of_others(sightings: Sightings, own: NodeId, scope: str) -> Iterable[RawRecord]:
    for raw in sightings.records.get(scope, ()):
        if raw.owner != own and raw.owner in sightings.live:
            yield raw


def _decode(raw: RawRecord) -> Decoded:
    try:
        if raw.key == APPLIED_KEY:
            return AppliedTasks(decode_applied_untrusted(raw.value))
        return decode_untrusted(raw.value)
    except MalformedRecord:
        return None
