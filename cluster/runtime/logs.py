"""Reads the output that a task's supervisor keeps (layout: `cluster.runtime.framing`).

Driven by an async generator: it reads in pieces, gives way between them, and when following polls
the file, because the writer is another process that may outlive us.

Invariant: every record is yielded at most once and oldest first; when output is written and
rotated away faster than a follower reads, the oldest unread file is lost, never its order.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import BinaryIO

from cluster.model.logs import LogStream
from cluster.runtime.base import LogLine
from cluster.runtime.framing import CURRENT, HEADER, LINE_BYTES_MAX, PREVIOUS, STDERR, STDOUT

POLL_AFTER_S = 0.1
"""How late a follower may see a line."""
_READ_BYTES_MAX = 256 * 1024
_STREAMS = {STDOUT: LogStream.STDOUT, STDERR: LogStream.STDERR}


async def read_logs(
    directory: Path,
    *,
    is_ended: Callable[[], bool],
    follow: bool,
    tail: int | None,
    since_ns: int,
) -> AsyncGenerator[LogLine]:
    """Yield the lines kept in `directory` as `Runtime.logs` says; `is_ended`: no more will come."""
    reader = LogReader(directory)
    try:
        kept: deque[LogLine] = deque(maxlen=tail)
        async for line in _read_available(reader, since_ns):
            if tail is None:
                yield line
            else:
                kept.append(line)
        for line in kept:
            yield line
        ended = not follow
        while not ended:
            ended = is_ended()  # before reading, so that what came last is still read
            async for line in _read_available(reader, since_ns):
                yield line
            if not ended:
                await asyncio.sleep(POLL_AFTER_S)
    finally:
        reader.close()


async def _read_available(reader: LogReader, since_ns: int) -> AsyncGenerator[LogLine]:
    while lines := reader.read():
        for line in lines:
            if line.written_at_ns >= since_ns:
                yield line
        await asyncio.sleep(0)


class LogReader:
    """Reads the two files of a task in order, across rotations."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: BinaryIO | None = None
        self._rest = b""
        self._is_complete = False
        """The file was rotated before our last look: what it holds now is all it ever will."""

    def read(self) -> list[LogLine]:
        """Return the next lines; empty: there are none yet."""
        while True:
            data = self._file.read(_READ_BYTES_MAX) if self._file else b""
            if data:
                lines, self._rest = split_records(self._rest + data)
                if lines:
                    return lines
            elif not self._advance():
                return []

    def close(self) -> None:
        """Close the file that is being read."""
        if self._file is not None:
            self._file.close()

    def _advance(self) -> bool:
        """Having read all there was, find more to read; False: there is none yet."""
        if self._file is None:
            following = self._open(PREVIOUS) or self._open(CURRENT)
        elif self._is_current(self._file):
            return False
        elif not self._is_complete:
            self._is_complete = True
            return True
        else:
            following = self._open(PREVIOUS) or self._open(CURRENT)
        if following is None:
            return False
        self.close()
        self._file, self._rest, self._is_complete = following, b"", False
        return True

    def _is_current(self, file: BinaryIO) -> bool:
        try:
            current = (self._directory / CURRENT).stat()
        except FileNotFoundError:  # between the two steps of a rotation, or removed
            return True
        return os.path.samestat(current, os.fstat(file.fileno()))

    def _open(self, name: str) -> BinaryIO | None:
        """Return file `name` opened; None: it is missing, or the one just read."""
        try:
            file = (self._directory / name).open("rb", buffering=0)
        except FileNotFoundError:
            return None
        if self._file is not None and os.path.sameopenfile(file.fileno(), self._file.fileno()):
            file.close()
            return None
        return file


def split_records(data: bytes) -> tuple[list[LogLine], bytes]:
    """Return the whole records that `data` begins with, and what follows them.

    What cannot be a record is not one cut short but damage: nothing after it is returned.
    """
    lines: list[LogLine] = []
    at = 0
    while len(data) - at >= HEADER.size:
        length, written_at_ns, stream = HEADER.unpack_from(data, at)
        if length > LINE_BYTES_MAX or stream not in _STREAMS:
            return lines, b""
        end = at + HEADER.size + length
        if end > len(data):
            break
        content = data[at + HEADER.size : end]
        lines.append(LogLine(_STREAMS[stream], written_at_ns, content))
        at = end
    return lines, data[at:]
