"""The log stream as a client reads it."""

from __future__ import annotations

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.api.backend import TaskLogLine
from cluster.api.logs import frame
from cluster.cli.failure import Failure
from cluster.cli.logs import read_lines
from cluster.model.ids import NodeId, ServiceId, TaskId
from cluster.model.logs import LogStream
from cluster.runtime.base import LogLine


def line(stream: LogStream, text: bytes) -> TaskLogLine:
    return TaskLogLine(TaskId("t"), NodeId("n"), LogLine(stream, 10**9, text))


@given(st.lists(st.tuples(st.sampled_from(LogStream), st.binary(max_size=50)), max_size=5))
def test_what_the_api_sends_is_read(lines: list[tuple[LogStream, bytes]]) -> None:
    sent = b"".join(frame(line(s, t), ServiceId("s"), details=True) for s, t in lines)
    read = list(read_lines(io.BytesIO(sent)))
    assert [(r.is_stderr, r.text) for r in read] == [
        (stream is LogStream.STDERR, text) for stream, text in lines
    ]
    for item in read:
        assert item.details["com.docker.swarm.task.id"] == "t"


def test_with_timestamps() -> None:
    sent = frame(line(LogStream.STDOUT, b"hi\n"), ServiceId("s"), details=True, timestamps=True)
    (read,) = read_lines(io.BytesIO(sent), timestamps=True)
    assert (read.timestamp, read.text) == ("1970-01-01T00:00:01.000000000Z", b"hi\n")


@given(st.binary(max_size=64))
def test_anything_else_is_refused_or_read(data: bytes) -> None:
    with contextlib.suppress(Failure):
        list(read_lines(io.BytesIO(data)))


@pytest.mark.parametrize(
    "data", [b"\x01\0\0", b"\x01\0\0\0\xff\xff\xff\xff", b"\x01\0\0\0\0\0\0\x05a"]
)
def test_broken_streams(data: bytes) -> None:
    with pytest.raises(Failure):
        list(read_lines(io.BytesIO(data)))
