"""A task's output on disk: writing, rotating, reading, damage."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cluster.model.logs import LogStream
from cluster.runtime.base import LogLine
from cluster.runtime.framing import (
    CURRENT,
    HEADER,
    LINE_BYTES_MAX,
    PREVIOUS,
    STDERR,
    STDOUT,
    LogWriter,
)
from cluster.runtime.logs import LogReader, read_logs, split_records


def read_directory(directory: Path) -> list[LogLine]:
    with contextlib.closing(LogReader(directory)) as reader:
        lines: list[LogLine] = []
        while new := reader.read():
            lines += new
        return lines


def read_all(reader: LogReader) -> list[bytes]:
    lines: list[bytes] = []
    while new := reader.read():
        lines += [line.data for line in new]
    return lines


def test_lines_are_put_together_per_stream(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path))
    writer.write(STDOUT, b"on", 1)
    writer.write(STDERR, b"error\nmo", 2)
    writer.write(STDOUT, b"e\ntwo\nthr", 3)
    writer.close(4)
    assert read_directory(tmp_path) == [
        LogLine(LogStream.STDERR, 2, b"error\n"),
        LogLine(LogStream.STDOUT, 3, b"one\n"),
        LogLine(LogStream.STDOUT, 3, b"two\n"),
        LogLine(LogStream.STDOUT, 4, b"thr"),
        LogLine(LogStream.STDERR, 4, b"mo"),
    ]


@given(st.lists(st.binary(max_size=100), max_size=20), st.integers(0, 40_000))
def test_nothing_is_lost_or_longer_than_a_record(chunks: list[bytes], filler: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        writer = LogWriter(name)
        for chunk in [*chunks, b"x" * filler]:
            writer.write(STDOUT, chunk, 0)
        writer.close(0)
        lines = [line.data for line in read_directory(Path(name))]
    assert b"".join(lines) == b"".join(chunks) + b"x" * filler
    assert all(len(line) <= LINE_BYTES_MAX for line in lines)


def test_two_files_hold_the_newest_output(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path), file_bytes_max=1000)
    for number in range(500):
        writer.write(STDOUT, b"%06d\n" % number, number)
    writer.close(500)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CURRENT, PREVIOUS]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    lines = [line.data for line in read_directory(tmp_path)]
    assert lines == [b"%06d\n" % number for number in range(500 - len(lines), 500)]
    assert len(lines) > 50


def test_a_reader_follows_across_rotations(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path), file_bytes_max=100)
    reader = LogReader(tmp_path)
    assert reader.read() == []
    seen: list[bytes] = []
    for number in range(100):
        writer.write(STDOUT, b"%06d\n" % number, number)
        if number % 3 == 0:
            seen += read_all(reader)
    seen += read_all(reader)
    writer.close(0)
    reader.close()
    assert seen == [b"%06d\n" % number for number in range(100)]


def test_a_reader_that_is_too_slow_loses_the_oldest_only(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path), file_bytes_max=100)
    reader = LogReader(tmp_path)
    seen: list[bytes] = []
    for number in range(100):
        writer.write(STDOUT, b"%06d\n" % number, number)
        if number % 20 == 0:
            seen += read_all(reader)
    seen += read_all(reader)
    writer.close(0)
    reader.close()
    assert seen == sorted(seen)
    assert seen[-1] == b"000099\n"


def test_a_full_disk_is_counted_not_fatal(tmp_path: Path) -> None:
    (tmp_path / CURRENT).symlink_to("/dev/full")
    writer = LogWriter(str(tmp_path))
    writer.write(STDOUT, b"lost\n", 0)
    writer.close(0)
    assert writer.dropped_bytes == HEADER.size + 5


@given(st.binary(max_size=200))
def test_damage_is_not_read(data: bytes) -> None:
    lines, rest = split_records(data)
    assert sum(HEADER.size + len(line.data) for line in lines) + len(rest) <= len(data)


async def test_what_is_torn_at_the_end_is_left_out(tmp_path: Path) -> None:
    record = HEADER.pack(4, 7, STDOUT) + b"one\n"
    (tmp_path / CURRENT).write_bytes(record + record[:-1])
    lines = read_logs(tmp_path, is_ended=lambda: True, follow=True, tail=None, since_ns=0)
    assert [line.data async for line in lines] == [b"one\n"]


async def test_no_output_at_all(tmp_path: Path) -> None:
    lines = read_logs(tmp_path, is_ended=lambda: True, follow=True, tail=3, since_ns=0)
    assert [line async for line in lines] == []
