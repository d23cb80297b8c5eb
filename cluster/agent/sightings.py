"""What gossip says, read: whose records count, and what is in them (pure).

An endpoint counts only if the managers have allocated it to the node that publishes it.

Records of owners that are not live are hidden, not forgotten: they come back with their owner.
After a start, what the daemon before this one knew stands in for what gossip has not said yet, so
that a restart does not interrupt the node's traffic, and a node that boots alone forwards.

Invariant: what gossip says of an owner and a scope replaces everything remembered of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from cluster.agent.applied import APPLIED_KEY, decode_applied_untrusted
from cluster.allocation.records import (
    EndpointRecord,
    MalformedRecord,
    decode_body_untrusted,
    decode_untrusted,
)
from cluster.allocation.tokens import Verifier
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
    suspects: frozenset[NodeId] = frozenset()
    """Live members that may be dead."""


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
    suspects: frozenset[NodeId] = frozenset()
    """Live nodes that may be dead."""
    lost: Mapping[NodeId, str] = field(default_factory=dict[NodeId, str])
    """Dead nodes whose hosts live -> data-path address: the way there stays open."""
    last_words: Mapping[str, tuple[Endpoint, ...]] = field(
        default_factory=dict[str, tuple[Endpoint, ...]]
    )
    """Scope -> endpoints of lost nodes: reachable, but given no new connections."""
    malformed: int = 0
    unsigned: Mapping[NodeId, int] = field(default_factory=dict[NodeId, int])
    """Owner -> its records that the managers have not allocated to it."""


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
    return Sightings(live, now.dead, records, now.suspects)


def is_repeated(
    now: Sightings, remembered: Sightings, scopes: Collection[str], own: NodeId
) -> bool:
    """Return whether all others of whom there are memories speak again, or are known not to."""
    for scope in scopes:
        owed = {record.owner for record in remembered.records.get(scope, ())}
        if owed - now.dead - {own} - {record.owner for record in now.records.get(scope, ())}:
            return False
    return True


def with_lost(now: Reading, lost: Mapping[NodeId, str], before: Reading) -> Reading:
    """Return what is said now, completed by what lost nodes said before they were dead."""
    scopes = sorted(before.endpoints.keys() | before.last_words.keys())
    last_words = {
        scope: tuple(
            endpoint
            for endpoint in (*before.endpoints.get(scope, ()), *before.last_words.get(scope, ()))
            if endpoint.owner in lost
        )
        for scope in scopes
    }
    return replace(now, lost=lost, last_words=last_words)


@dataclass(frozen=True, slots=True)
class AppliedTasks:
    """A decoded `applied` record."""

    hashes: frozenset[bytes]


class Refusal(Enum):
    """Why a record counts for nothing."""

    MALFORMED = auto()
    UNSIGNED = auto()
    """The managers have not allocated this to its owner."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A record of another node that is yet to be read."""

    scope: str
    record: RawRecord


@dataclass(frozen=True, slots=True)
class _Read:
    """What one value was found to be."""

    value: bytes
    meaning: EndpointRecord | AppliedTasks | Refusal
    proof: tuple[bytes, bytes] = (b"", b"")
    """The body and token that were verified."""


class Reader:
    """Reads the other nodes' records; each value is decoded, and each token verified, once.

    Verifying takes long enough (0.25 ms) that the caller may want to let others run in between.
    """

    def __init__(self, own: NodeId, verifier: Verifier) -> None:
        self._own = own
        self.verifier = verifier
        self._read: dict[tuple[str, NodeId, str], _Read] = {}
        """By scope, owner and key; no more than gossip holds."""

    def unread(self, sightings: Sightings, scopes: Collection[str]) -> list[Heard]:
        """Return what `examine` has not seen, by turns: who says much makes nobody else wait."""
        turns: list[tuple[int, Heard]] = []
        counts: Counter[NodeId] = Counter()
        for scope in sorted(scopes):
            for raw in self._of_others(sightings, scope):
                known = self._read.get((scope, raw.owner, raw.key))
                if known is None or known.value != raw.value:
                    turns.append((counts[raw.owner], Heard(scope, raw)))
                    counts[raw.owner] += 1
        turns.sort(key=lambda turn: turn[0])
        return [heard for _, heard in turns]

    def examine(self, heard: Heard) -> None:
        """Find out what a record means."""
        raw = heard.record
        place = (heard.scope, raw.owner, raw.key)
        try:
            if raw.key == APPLIED_KEY:
                hashes = decode_applied_untrusted(raw.value)
                self._read[place] = _Read(raw.value, AppliedTasks(hashes))
            else:
                self._read[place] = self._verified(place, raw.value)
        except MalformedRecord:
            self._read[place] = _Read(raw.value, Refusal.MALFORMED)

    def reading(self, sightings: Sightings, scopes: Collection[str]) -> Reading:
        """Return what the other nodes say in `scopes`, as far as it is read.

        Until a new value is read, the one before it stands in.
        """
        endpoints: dict[str, tuple[Endpoint, ...]] = {}
        applied: dict[str, Mapping[NodeId, frozenset[bytes]]] = {}
        kept: dict[tuple[str, NodeId, str], _Read] = {}
        refused: dict[Refusal, Counter[NodeId]] = {r: Counter() for r in Refusal}
        for scope in sorted(scopes):
            found: list[Endpoint] = []
            rows: dict[NodeId, frozenset[bytes]] = {}
            for raw in self._of_others(sightings, scope):
                place = (scope, raw.owner, raw.key)
                if (known := self._read.get(place)) is None:
                    continue
                kept[place] = known
                match known.meaning:
                    case EndpointRecord() as record:
                        found.append(Endpoint(raw.owner, record))
                    case AppliedTasks(hashes=hashes):
                        rows[raw.owner] = hashes
                    case Refusal() as refusal:
                        refused[refusal][raw.owner] += 1
            endpoints[scope], applied[scope] = tuple(found), rows
        self._read = kept
        live = {node: address for node, address in sightings.live.items() if node != self._own}
        malformed = refused[Refusal.MALFORMED].total()
        unsigned = refused[Refusal.UNSIGNED]
        return Reading(
            live,
            endpoints,
            applied,
            sightings.suspects,
            malformed=malformed,
            unsigned=unsigned,
        )

    def _verified(self, place: tuple[str, NodeId, str], value: bytes) -> _Read:
        sealed = decode_untrusted(value)
        proof = (sealed.body, sealed.token)
        known = self._read.get(place)
        if known is not None and known.proof == proof:
            meaning = known.meaning
            if isinstance(meaning, EndpointRecord):
                meaning = replace(meaning, phase=sealed.phase)
            return _Read(value, meaning, proof)
        scope, owner, key = place
        record = decode_body_untrusted(sealed.body, sealed.phase)
        if self.verifier.is_allocated_untrusted(owner, scope, key, *proof):
            return _Read(value, record, proof)
        return _Read(value, Refusal.UNSIGNED, proof)

    def _of_others(self, sightings: Sightings, scope: str) -> Iterable[RawRecord]:
        for raw in sightings.records.get(scope, ()):
            if raw.owner != self._own and raw.owner in sightings.live:
                yield raw
