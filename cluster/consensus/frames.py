"""The log's file format: numbered, checksummed frames, and telling a torn end from damage (pure).

A file is a header (see `headers`), then frames: length, CRC-32 of the payload, number, CRC-32 of
these three (little-endian, 4 bytes each), payload, padding to a multiple of 8 bytes; then zeros,
which later frames will overwrite. One frame is written per sync, so only the last can be
half-written: a *torn* frame was never acknowledged and is dropped. Anything else that does not
check is *damage*: it may have been acknowledged, so reading it refuses.

A disk writes sectors; in a torn frame the sectors that were not written are missing or zero. This
is how etcd tells the two apart (`server/storage/wal/decoder.go`, isTornEntry); the padding makes
every sector's share of a frame long enough that zeros there are no chance.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from cluster.consensus.errors import StorageFailure

_HEADER = struct.Struct("<III")
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CRC.size
_SECTOR_BYTES = 512
_ALIGNMENT_BYTES = 8
_PADDING_BYTE = b"\xff"
_LOOK_AHEAD = 8
"""How many frame numbers to look for behind a bad frame."""


def encode_frame(number: int, payload: bytes) -> bytes:
    """Return frame `number`."""
    header = _HEADER.pack(len(payload), zlib.crc32(payload), number & 0xFFFFFFFF)
    padding = _PADDING_BYTE * (-len(payload) % _ALIGNMENT_BYTES)
    return header + _CRC.pack(zlib.crc32(header)) + payload + padding


def read_frames(data: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    """Yield (number, payload) of each frame of a file's content from offset `start`.

    Raises:
        StorageFailure: damage; frames before it have been yielded.
    """
    offset = start
    number = 0
    end = len(data.rstrip(b"\0"))
    while offset < end:
        payload = _payload_at(data, offset, number)
        if payload is None:
            _require_torn(data, offset, number)
            return
        yield number, payload
        offset = _end_of(offset, len(payload))
        number += 1


def _length_at(data: bytes, offset: int, number: int) -> int | None:
    """Return the payload length that a sound header of frame `number` states."""
    end = offset + _HEADER.size
    if end + _CRC.size > len(data):
        return None
    length, _, found = _HEADER.unpack_from(data, offset)
    (crc,) = _CRC.unpack_from(data, end)
    if found != number & 0xFFFFFFFF or zlib.crc32(data[offset:end]) != crc:
        return None
    return int(length)


def _payload_at(data: bytes, offset: int, number: int) -> bytes | None:
    length = _length_at(data, offset, number)
    if length is None:
        return None
    start, end = offset + HEADER_BYTES, _end_of(offset, length)
    payload, padding = data[start : start + length], data[start + length : end]
    _, crc, _ = _HEADER.unpack_from(data, offset)
    is_sound = end <= len(data) and not padding.strip(_PADDING_BYTE)
    return payload if is_sound and zlib.crc32(payload) == crc else None


def _end_of(offset: int, length: int) -> int:
    return offset + HEADER_BYTES + length + -length % _ALIGNMENT_BYTES


def _require_torn(data: bytes, offset: int, number: int) -> None:
    length = _length_at(data, offset, number)
    header_end = offset + HEADER_BYTES
    if length is None:
        torn = header_end > len(data) or _has_unwritten_sector(data, offset, header_end)
    else:
        end = _end_of(offset, length)
        torn = end > len(data) or _has_unwritten_sector(data, header_end, end)
    if not torn or _has_later_frame(data, offset + 1, number):
        raise StorageFailure(
            f"the log is damaged at byte {offset} of {len(data)}: refusing to start, because"
            " acknowledged writes may be lost; remove this manager and let it join again"
        )


def _has_unwritten_sector(data: bytes, start: int, end: int) -> bool:
    while start < end:
        edge = min(end, (start // _SECTOR_BYTES + 1) * _SECTOR_BYTES)
        if not any(data[start:edge]):
            return True
        start = edge
    return False


def _has_later_frame(data: bytes, start: int, number: int) -> bool:
    for later in range(number + 1, number + 1 + _LOOK_AHEAD):
        needle = (later & 0xFFFFFFFF).to_bytes(4, "little")
        at = data.find(needle, start + 2 * _CRC.size)
        while at >= 0:
            if _length_at(data, at - 2 * _CRC.size, later) is not None:
                return True
            at = data.find(needle, at + 1)
    return False
