"""A task's output on disk: records in two files of bounded size.

The supervisor appends with `LogWriter`; `cluster.runtime.logs` reads. Lean: see `launch`.

A record is a header (length, Unix time in ns, stream) and one line, or a piece of a line longer
than `LINE_BYTES_MAX`. A record that was cut short by a crash ends its file.

Invariants: `CURRENT` never exceeds `FILE_BYTES_MAX` by more than one read, and there are at most
two files, so a task's output takes about 2 x `FILE_BYTES_MAX`. Lines of one stream keep their
order.
"""

from __future__ import annotations

import os
import struct

CURRENT = "output"
PREVIOUS = "output.1"
HEADER = struct.Struct("<IQB")
"""Bytes of data, Unix time in ns, stream (1 stdout, 2 stderr)."""
LINE_BYTES_MAX = 16 * 1024
"""Docker's limit too: longer lines are cut in pieces."""
FILE_BYTES_MAX = 5 * 1024 * 1024
STDOUT = 1
STDERR = 2


class LogWriter:
    """Appends what a task writes to the files of `directory`.

    A full or broken disk must not stop the task: what cannot be written is counted and dropped.
    """

    def __init__(self, directory: str, file_bytes_max: int = FILE_BYTES_MAX) -> None:
        self._current = f"{directory}/{CURRENT}"
        self._previous = f"{directory}/{PREVIOUS}"
        self._file_bytes_max = file_bytes_max
        self._partial = {STDOUT: b"", STDERR: b""}
        self._open()
        self.dropped_bytes = 0

    def write(self, stream: int, data: bytes, now_ns: int) -> None:
        """Keep `data`, the next bytes that the task wrote to `stream`."""
        *lines, rest = (self._partial[stream] + data).split(b"\n")
        records = [record for line in lines for record in _records(stream, line + b"\n", now_ns)]
        while len(rest) >= LINE_BYTES_MAX:
            records += _records(stream, rest[:LINE_BYTES_MAX], now_ns)
            rest = rest[LINE_BYTES_MAX:]
        self._partial[stream] = rest
        self._append(b"".join(records))

    def close(self, now_ns: int) -> None:
        """Write the lines that never got their newline, and close."""
        for stream, rest in self._partial.items():
            if rest:
                self._append(b"".join(_records(stream, rest, now_ns)))
        os.close(self._file)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self._current, flags, 0o600)
        self._size = os.fstat(self._file).st_size

    def _append(self, data: bytes) -> None:
        if not data:
            return
        try:
            if self._size + len(data) > self._file_bytes_max and self._size:
                self._rotate()
            written = os.write(self._file, data)
            self._size += written
        except OSError:
            written = 0
        if written < len(data):
            self._undo(written)
            self.dropped_bytes += len(data)

    def _rotate(self) -> None:
        os.rename(self._current, self._previous)  # noqa: PTH104  (pathlib is heavy)
        old = self._file
        self._open()
        os.close(old)

    def _undo(self, written: int) -> None:
        """Take a half-written record back: it would hide every record after it."""
        if written:
            self._size -= written
            os.ftruncate(self._file, self._size)


def _records(stream: int, line: bytes, now_ns: int) -> list[bytes]:
    if len(line) <= LINE_BYTES_MAX:
        return [HEADER.pack(len(line), now_ns, stream) + line]
    pieces = [line[at : at + LINE_BYTES_MAX] for at in range(0, len(line), LINE_BYTES_MAX)]
    return [HEADER.pack(len(piece), now_ns, stream) + piece for piece in pieces]
