"""The first bytes of a file: what it is, the version of its format, and its salt (pure).

A file of another version is not damaged, and must not look so: who goes back to an older program,
or skips one, is told which it needs.
"""

from __future__ import annotations

import struct
from enum import Enum

from cluster.consensus.errors import StorageFailure
from cluster.consensus.seal import SALT_BYTES

FORMAT = 1
"""Raise it when frames, records, entries, or what a snapshot holds get another meaning."""

_START = struct.Struct(">8sQ")
"""With the salt a multiple of 8 bytes, so that the log's frames are aligned."""
HEADER_BYTES = _START.size + SALT_BYTES


class FileKind(Enum):
    """What a file is; the value stands at its beginning."""

    LOG = b"HWRAFT-L"
    SNAPSHOT = b"HWRAFT-S"


def encode_header(kind: FileKind, salt: bytes) -> bytes:
    """Return the beginning of a file of this version."""
    return _START.pack(kind.value, FORMAT) + salt


def read_header(kind: FileKind, name: str, data: bytes) -> bytes:
    """Return the salt of a file, given its content.

    Raises:
        StorageFailure: it is not of this kind, or of another version.
    """
    if len(data) < HEADER_BYTES or not data.startswith(kind.value):
        raise StorageFailure(f"{name} is damaged: it does not begin like a {kind.name.lower()}")
    _, version = _START.unpack_from(data)
    if version != FORMAT:
        raise StorageFailure(
            f"{name} has format {version}, this program reads format {FORMAT}: run a version that"
            " knows it, or remove this manager and let it join again"
        )
    return data[_START.size : HEADER_BYTES]
