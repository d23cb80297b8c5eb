"""Changes and snapshots as bytes: msgpack, typed on the way in (pure).

A transaction is an array of [tag, change]; the tag is the position in `changes.CHANGES`. A snapshot
is a map of its tables. Written by managers of this cluster only, so a mismatch is corruption.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from cluster.model.cluster import Cluster
from cluster.model.network import Network
from cluster.model.node import Node, RemovedNode
from cluster.model.service import Service
from cluster.model.task import Task
from cluster.state.changes import CHANGES, Change
from cluster.state.snapshot import Snapshot

_TAGS = {kind: tag for tag, kind in enumerate(CHANGES)}
_encoder = msgspec.msgpack.Encoder()
_envelope = msgspec.msgpack.Decoder(list[tuple[int, msgspec.Raw]])
_decoders = [msgspec.msgpack.Decoder(kind) for kind in CHANGES]


class CorruptStateError(Exception):
    """Bytes that no manager of this version can have written."""


class _Tables(msgspec.Struct):
    index: int
    cluster: Cluster | None
    nodes: list[Node]
    networks: list[Network]
    services: list[Service]
    tasks: list[Task]
    removed: list[RemovedNode] = []
    """An older version did not write it."""


_tables = msgspec.msgpack.Decoder(_Tables)


def encode_changes(changes: Sequence[Change]) -> bytes:
    """Return a transaction as bytes."""
    return _encoder.encode([(_TAGS[type(change)], change) for change in changes])


def decode_changes(data: bytes) -> tuple[Change, ...]:
    """Return the transaction that `encode_changes` made `data` from.

    Raises:
        CorruptStateError: it did not.
    """
    try:
        return tuple(_decoders[tag].decode(raw) for tag, raw in _envelope.decode(data))
    except (msgspec.MsgspecError, IndexError) as error:
        raise CorruptStateError(f"a transaction cannot be read: {error}") from error


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return a snapshot as bytes.

    Object by object: in a thread, others run in between, where one call for all would hold the
    interpreter's lock for tens of milliseconds.
    """
    return _encoder.encode(
        {
            "index": snapshot.index,
            "cluster": snapshot.cluster,
            "nodes": _encoded(snapshot.nodes.values()),
            "networks": _encoded(snapshot.networks.values()),
            "services": _encoded(snapshot.services.values()),
            "tasks": _encoded(snapshot.tasks.values()),
            "removed": _encoded(snapshot.removed.values()),
        }
    )


def _encoded(items: Iterable[object]) -> list[msgspec.Raw]:
    return [msgspec.Raw(_encoder.encode(item)) for item in items]


def decode_snapshot(data: bytes) -> Snapshot:
    """Return the snapshot that `encode_snapshot` made `data` from.

    Raises:
        CorruptStateError: it did not.
    """
    try:
        tables = _tables.decode(data)
    except msgspec.MsgspecError as error:
        raise CorruptStateError(f"a snapshot cannot be read: {error}") from error
    return Snapshot(
        index=tables.index,
        cluster=tables.cluster,
        nodes={n.id: n for n in tables.nodes},
        networks={n.id: n for n in tables.networks},
        services={s.id: s for s in tables.services},
        tasks={t.id: t for t in tables.tasks},
        removed={n.id: n for n in tables.removed},
    )
