"""A node's `applied` record: which draining tasks its own plan no longer connects to (pure).

Every attached node has one in each scope, be it empty: so it also tells who is attached. Nobody
signs it for the node: it is the node's own to say.

Wire: a msgpack array; later versions may append fields, which this one ignores.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import msgspec

from cluster.allocation.records import MalformedRecord, unpack_untrusted

APPLIED_KEY = "applied"
"""Key of a node's `applied` record; no task id looks like it."""
TASK_HASH_BYTES = 6
"""Enough to tell apart what drains at one time; task ids are random."""
APPLIED_TASKS_MAX = 128
"""Tasks that one `applied` record can name; those left out wait for their drain timeout."""
_KIND = 2


class _Wire(msgspec.Struct, array_like=True):
    kind: int
    hashes: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Wire)


def task_hash(task: str) -> bytes:
    """Return the short form of a task's id that `applied` records have."""
    return blake2b(task.encode(), digest_size=TASK_HASH_BYTES).digest()


def encode_applied(tasks: Iterable[str]) -> bytes:
    """Return the `applied` record that names `tasks`, or as many as fit."""
    hashes = sorted(task_hash(task) for task in tasks)[:APPLIED_TASKS_MAX]
    return _encoder.encode(_Wire(_KIND, b"".join(hashes)))


def decode_applied_untrusted(data: bytes) -> frozenset[bytes]:
    """Return the task hashes that the `applied` record in `data` names.

    Raises:
        MalformedRecord: it is none.
    """
    wire = unpack_untrusted(data, _decoder)
    if wire.kind != _KIND or len(wire.hashes) % TASK_HASH_BYTES:
        raise MalformedRecord(f"kind {wire.kind}, {len(wire.hashes)} bytes of hashes")
    starts = range(0, len(wire.hashes), TASK_HASH_BYTES)
    return frozenset(wire.hashes[start : start + TASK_HASH_BYTES] for start in starts)
