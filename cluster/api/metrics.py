"""`/metrics`: everything that this node counts, for Prometheus.

On the API's socket, and, where the operator wants it, alone on a TCP address.
"""

from __future__ import annotations

from collections import Counter

from aiohttp import web
from aiohttp.typedefs import Handler

from cluster.api.backend import Backend
from cluster.api.exchange import Route
from cluster.api.exposition import OPEN_METRICS, TEXT, Kind, Metric, collect, render

PATH = "/metrics"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE"})


class Requests:
    """Counts the API's requests."""

    def __init__(self) -> None:
        self.answered: Counter[tuple[str, str]] = Counter()
        """By method and status code: as many as there are, whatever clients send."""
        self.in_progress = 0

    @web.middleware
    async def count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count one request, which `handler` answers."""
        method = request.method if request.method in _METHODS else "other"
        code = "none"
        self.in_progress += 1
        try:
            response = await handler(request)
            code = str(response.status)
            return response
        finally:
            self.in_progress -= 1
            self.answered[method, code] += 1


API: tuple[Metric[Requests], ...] = (
    Metric(
        Kind.COUNTER,
        "hivewire_api_requests_total",
        "Requests to the API that were answered, by method and status; code none: the client went.",
        lambda s: dict(s.answered),
        ("method", "code"),
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_api_requests_in_progress",
        "Requests being answered, event streams and followed logs included.",
        lambda s: s.in_progress,
    ),
)


class Metrics:
    """Answers `/metrics`."""

    def __init__(self, backend: Backend, requests: Requests) -> None:
        self._backend = backend
        self._requests = requests

    def routes(self) -> list[Route]:
        """Return the calls that this object answers."""
        return [Route("GET", PATH, self.metrics)]

    async def metrics(self, request: web.Request) -> web.Response:
        """Answer with all metrics, in the format that the scraper prefers."""
        is_open = "application/openmetrics-text" in request.headers.get("Accept", "")
        families = [*self._backend.metrics(), *collect(API, self._requests)]
        return web.Response(
            body=render(families, is_open=is_open).encode(),
            headers={"Content-Type": OPEN_METRICS if is_open else TEXT},
        )
