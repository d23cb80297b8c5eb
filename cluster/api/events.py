"""`/events`: what happens in the cluster, as a stream of JSON objects.

Every daemon derives the events from the snapshots that it sees, and keeps the last ones for
`since`. Driven by the server: `run` for as long as it serves. Two changes in quick succession may
become one event.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

import msgspec
from aiohttp import web

from cluster.api.backend import Backend
from cluster.api.event_diff import FILTERS, Event, event_view, events_between, is_wanted
from cluster.api.exchange import Route
from cluster.api.filters import Filters, read_filters_untrusted
from cluster.api.logs import read_time_ns_untrusted
from cluster.api.streaming import stream

EVENTS_KEPT_MAX = 256
"""As many as Docker keeps."""
WATCH_PERIOD_S = 1.0
"""How late the events of a cluster may begin that was joined right after another was left."""
UNTIL_CHECK_PERIOD_S = 0.5
"""How late a stream with `until` may end."""


class Events:
    """Remembers and streams events."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._kept: deque[tuple[int, Event]] = deque(maxlen=EVENTS_KEPT_MAX)
        self._count = 0
        self._added = asyncio.Condition()

    def routes(self) -> list[Route]:
        """Return the calls that this object answers."""
        return [Route("GET", "/events", self.stream)]

    async def run(self) -> None:
        """Watch the snapshots until cancelled.

        The watch is renewed again and again, because a node may join and leave clusters meanwhile.
        """
        seen = self._backend.snapshot()
        while True:
            with self._backend.watch() as changed:
                latest = self._backend.snapshot()
                if seen.index and latest.index:  # else it has just joined, or left: no news
                    await self._add(events_between(seen, latest, self._backend.now()))
                seen = latest
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(WATCH_PERIOD_S):
                        await changed.wait()

    async def _add(self, events: list[Event]) -> None:
        async with self._added:
            for event in events:
                self._count += 1
                self._kept.append((self._count, event))
            self._added.notify_all()

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Stream the events that the filters let through, `since` and `until` the given times."""
        filters = read_filters_untrusted(request.query.get("filters", ""), FILTERS)
        since_ns = read_time_ns_untrusted(request.query.get("since", ""))
        until_ns = read_time_ns_untrusted(request.query.get("until", ""))
        lines = self._lines(filters, since_ns, until_ns)
        return await stream(request, "application/json", lines)

    async def _lines(self, filters: Filters, since_ns: int, until_ns: int) -> AsyncIterator[bytes]:
        last = 0 if since_ns else self._count
        while True:
            for number, event in list(self._kept):
                if number <= last or event.time_ns < since_ns:
                    continue
                last = number
                if until_ns and event.time_ns > until_ns:
                    return
                if is_wanted(event, filters):
                    yield msgspec.json.encode(event_view(event)) + b"\n"
            if until_ns and self._backend.now() * 1e9 >= until_ns:
                return
            await self._wait_for_more(last, UNTIL_CHECK_PERIOD_S if until_ns else None)

    async def _wait_for_more(self, last: int, timeout_s: float | None) -> None:
        try:
            async with asyncio.timeout(timeout_s), self._added:
                await self._added.wait_for(lambda: self._count > last)
        except TimeoutError:
            return
