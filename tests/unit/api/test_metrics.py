"""`/metrics`: on the API's socket and alone on a TCP address."""

from __future__ import annotations

from pathlib import Path

import aiohttp
from aiohttp.test_utils import unused_port
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text

from cluster.api.server import serve
from tests.unit.api.caller import Caller
from tests.unit.api.memory_backend import MemoryBackend


async def test_formats_and_counts(outside: Caller) -> None:
    await outside.get("/nope", expect=404)
    async with outside.client.get("/v1.51/metrics") as response:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        found = {f.name: f for f in parse_text(await response.text())}
    assert found["memory_hostname_length"].samples[0].value == 2
    (answered,) = found["hivewire_api_requests"].samples
    assert (answered.labels, answered.value) == ({"method": "GET", "code": "404"}, 1)
    assert found["hivewire_api_requests_in_progress"].samples[0].value == 1

    accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
    async with outside.client.get("/metrics", headers={"Accept": accept}) as response:
        assert response.headers["Content-Type"].startswith("application/openmetrics-text; ")
        names = {f.name for f in parse_open(await response.text())}
    assert "hivewire_api_requests" in names


async def test_strange_methods_make_no_series(outside: Caller) -> None:
    for method in ("PROPFIND", "PATCH", "OPTIONS"):
        async with outside.client.request(method, "/_ping") as response:
            assert response.status == 404
    async with outside.client.get("/metrics") as response:
        assert 'hivewire_api_requests_total{method="other",code="404"} 3' in await response.text()


async def test_tcp_address_has_metrics_and_nothing_else(tmp_path: Path) -> None:
    port = unused_port()
    serving = serve(MemoryBackend(), tmp_path / "d.sock", metrics_listen=("127.0.0.1", port))
    async with serving, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        async with session.get("/metrics") as response:
            assert "memory_hostname_length 2" in await response.text()
        for method, path in (("GET", "/info"), ("POST", "/swarm/init"), ("POST", "/metrics")):
            async with session.request(method, path) as response:
                assert response.status == 404
                assert await response.json() == {"message": "page not found"}
