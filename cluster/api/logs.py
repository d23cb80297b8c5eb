"""`/services/{id}/logs`, `/tasks/{id}/logs`: what tasks wrote.

Each line is a frame: stream (1 stdout, 2 stderr), three zeros, length (4 bytes, big endian), then
`[time ][details ]line`. The docker CLI needs the details to tell the tasks apart.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime

from aiohttp import web

from cluster.api.backend import Backend, TaskLogLine
from cluster.api.docker_json.text import timestamp_ns
from cluster.api.exchange import Route, fresh_snapshot, query_flag
from cluster.api.follow import Follower, has_output
from cluster.api.lookup import find_service, find_task
from cluster.api.streaming import stream
from cluster.model.errors import Invalid
from cluster.model.ids import ServiceId
from cluster.model.logs import LogOptions, LogStream
from cluster.task_group import TaskGroup

_MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
_RAW = "application/vnd.docker.raw-stream"
_MULTIPLEXED_SINCE = (1, 42)
TAIL_MAX = 1_000_000
"""More lines than any task's log keeps."""


class Logs:
    """Streams the output of services and tasks."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[Route]:
        """Return the calls that this object answers."""
        return [
            Route("GET", "/services/{id}/logs", self.service_logs),
            Route("GET", "/tasks/{id}/logs", self.task_logs),
        ]

    async def service_logs(self, request: web.Request) -> web.StreamResponse:
        """Stream what all tasks of a service wrote; `follow`: also what later tasks will write."""
        snapshot = await fresh_snapshot(self._backend)
        service = find_service(snapshot, request.match_info["id"])
        options = read_options_untrusted(request.query)
        if options.follow:
            return await self._follow(request, Follower(self._backend, service.id, options))
        tasks = [t for t in snapshot.tasks.values() if t.service == service.id]
        lines = self._backend.service_logs([t.id for t in tasks if has_output(t)], options)
        return await _stream(request, lines, service.id)

    async def task_logs(self, request: web.Request) -> web.StreamResponse:
        """Stream what one task wrote."""
        snapshot = await fresh_snapshot(self._backend)
        task = find_task(snapshot, request.match_info["id"])
        options = read_options_untrusted(request.query)
        lines = self._backend.service_logs([task.id] if has_output(task) else [], options)
        return await _stream(request, lines, task.service)

    async def _follow(self, request: web.Request, follower: Follower) -> web.StreamResponse:
        async with TaskGroup() as group:
            reading = group.create_task(follower.read())
            response = await _stream(request, follower.lines(), follower.service)
            reading.cancel()
        return response


async def _stream(
    request: web.Request, lines: AsyncIterator[TaskLogLine], service: ServiceId
) -> web.StreamResponse:
    details, timestamps = query_flag(request, "details"), query_flag(request, "timestamps")

    async def frames() -> AsyncIterator[bytes]:
        async for line in lines:
            yield frame(line, service, details=details, timestamps=timestamps)

    return await stream(request, _content_type(request), frames())


def frame(
    line: TaskLogLine, service: ServiceId, *, details: bool = False, timestamps: bool = False
) -> bytes:
    """Return one line as the API sends it."""
    text = line.line.data
    if details:
        prefix = (
            f"com.docker.swarm.node.id={line.node},com.docker.swarm.service.id={service},"
            f"com.docker.swarm.task.id={line.task} "
        )
        text = prefix.encode() + text
    if timestamps:
        text = f"{timestamp_ns(line.line.written_at_ns)} ".encode() + text
    stream_number = 1 if line.line.stream is LogStream.STDOUT else 2
    return bytes((stream_number, 0, 0, 0)) + len(text).to_bytes(4) + text


def read_options_untrusted(query: Mapping[str, str]) -> LogOptions:
    """Return which part of the output a query asks for.

    Raises:
        Invalid: it asks for neither stream, or for a time that is none.
    """
    wanted = {name: query.get(name, "").lower() not in ("", "0", "no", "false", "none")
              for name in ("stdout", "stderr", "follow")}  # fmt: skip
    if not (wanted["stdout"] or wanted["stderr"]):
        raise Invalid("Bad parameters: you must choose at least one stream")
    tail = query.get("tail", "all")
    return LogOptions(
        follow=wanted["follow"],
        tail=min(int(tail[:10]), TAIL_MAX) if tail.isascii() and tail.isdecimal() else None,
        since_ns=read_time_ns_untrusted(query.get("since", "")),
        stdout=wanted["stdout"],
        stderr=wanted["stderr"],
    )


def read_time_ns_untrusted(text: str) -> int:
    """Return a time given as Unix seconds (with fraction) or RFC 3339; 0 for an empty text.

    Raises:
        Invalid: it is neither.
    """
    if not text:
        return 0
    try:
        seconds = float(text)
    except ValueError:
        return _rfc3339_ns(text)
    if not math.isfinite(seconds) or not 0 <= seconds < 2**33:
        raise Invalid(f"invalid value for a time: {text!r}")
    whole, _, fraction = text.partition(".")
    if whole.isdecimal() and (fraction.isdecimal() or not fraction):
        return int(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, "0"))
    return int(seconds * 1e9)


def _rfc3339_ns(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(f"invalid value for a time: {text!r}") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0, int(moment.timestamp() * 1e9))


def _content_type(request: web.Request) -> str:
    version = request.match_info.get("version")
    numbers = tuple(int(n) for n in version.split(".")) if version else _MULTIPLEXED_SINCE
    return _MULTIPLEXED if numbers >= _MULTIPLEXED_SINCE else _RAW
