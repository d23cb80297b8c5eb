"""Output of services: the API's multiplexed stream, as lines for people."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

import click

from cluster.cli.client import Client, segment
from cluster.cli.failure import Failure, Refused

_HEADER_BYTES = 8
_STDERR = 2
FRAME_BYTES_MAX = 1024 * 1024
"""A line is at most 16 KiB; larger is no log stream."""
_TASK_KEY = "com.docker.swarm.task.id"
_NODE_KEY = "com.docker.swarm.node.id"


class _Readable(Protocol):
    def read(self, amt: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Line:
    """One line of one task."""

    is_stderr: bool
    details: dict[str, str]
    text: bytes
    timestamp: str = ""


def read_lines(stream: _Readable, *, timestamps: bool = False) -> Generator[Line]:
    """Yield the lines of a stream that was asked for with details.

    Raises:
        Failure: it is no such stream.
    """
    while header := stream.read(_HEADER_BYTES):
        size = int.from_bytes(header[4:])
        if len(header) < _HEADER_BYTES or size > FRAME_BYTES_MAX:
            raise Failure("the daemon sent no log stream")
        text = stream.read(size)
        if len(text) < size:
            raise Failure("the daemon broke off in the middle of a line")
        timestamp = b""
        if timestamps:
            timestamp, _, text = text.partition(b" ")
        details, _, text = text.partition(b" ")
        pairs = (pair.partition("=") for pair in details.decode("utf-8", "replace").split(","))
        yield Line(
            header[0] == _STDERR,
            {key: value for key, _, value in pairs},
            text,
            timestamp.decode("ascii", "replace"),
        )


@dataclass(frozen=True, slots=True)
class Style:
    """How lines are printed."""

    raw: bool = False
    task_ids: bool = True
    full: bool = False
    resolve: bool = True


def print_logs(daemon: Client, path: str, query: dict[str, str], style: Style) -> None:
    """Print the log stream at `path`, each line with its task and node."""
    names = _Names(daemon, style)
    timestamps = "timestamps" in query
    with daemon.stream(path, {**query, "details": "1"}) as response:
        for line in read_lines(response, timestamps=timestamps):
            prefix = f"{line.timestamp} " if line.timestamp else ""
            if not style.raw:
                prefix += f"{names.name(line.details)} | "
            click.echo(prefix.encode() + line.text.rstrip(b"\n"), err=line.is_stderr)


class _Names:
    """`web.1.abcdef@n1` for the ids in a line's details; asks the daemon once for each."""

    def __init__(self, daemon: Client, style: Style) -> None:
        self._daemon = daemon
        self._style = style
        self._known: dict[str, str] = {}
        self._width = 0

    def name(self, details: dict[str, str]) -> str:
        task_id, node_id = details.get(_TASK_KEY, ""), details.get(_NODE_KEY, "")
        if task_id not in self._known:
            self._known[task_id] = self._look_up(task_id, node_id)
        name = self._known[task_id]
        self._width = max(self._width, len(name))
        return name.ljust(self._width)

    def _look_up(self, task_id: str, node_id: str) -> str:
        if not self._style.resolve:
            return f"{task_id}@{node_id}"
        shown = task_id if self._style.full else task_id[:12]
        try:
            task = self._daemon.get(f"/tasks/{segment(task_id)}")
            service = self._daemon.get(f"/services/{segment(task.text('ServiceID'))}")
            node = self._daemon.get(f"/nodes/{segment(node_id)}")
        except Refused:
            return f"{shown}@{node_id}"
        name = f"{service.text('Spec.Name')}.{task.number('Slot') or node_id}"
        suffix = f".{shown}" if self._style.task_ids else ""
        return f"{name}{suffix}@{node.text('Description.Hostname')}"
