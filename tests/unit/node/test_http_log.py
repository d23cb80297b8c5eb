"""What the HTTP servers log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator

import pytest
from aiohttp import web
from aiohttp.http_exceptions import BadStatusLine

from cluster.node import http_log

LOGGER = logging.getLogger("aiohttp.server")


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture) -> Generator[pytest.LogCaptureFixture]:
    before = list(LOGGER.filters)
    http_log.shorten()
    yield caplog
    LOGGER.filters[:] = before


def test_a_malformed_request_is_one_line_and_a_bug_keeps_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for error in (BadStatusLine("GET %s\x00"), ValueError("ours")):
        try:
            raise error  # noqa: TRY301  (what is logged is one that is being handled)
        except Exception:
            LOGGER.exception("Error handling request from %s", "192.0.2.1")
    malformed, bug = caplog.records
    assert malformed.exc_info is None
    assert malformed.levelno == logging.INFO
    assert malformed.getMessage().startswith("malformed request refused: reason=")
    assert "\n" not in malformed.getMessage()
    assert bug.exc_info is not None


async def test_a_caller_that_hangs_up_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    has_come, is_over = asyncio.Event(), asyncio.Event()

    async def late(request: web.Request) -> web.StreamResponse:
        has_come.set()
        while request.transport is not None:
            await asyncio.sleep(0)
        is_over.set()
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        return socket

    app = web.Application()
    app.router.add_get("/", late)
    runner = web.AppRunner(app)
    try:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        _, writer = await asyncio.open_connection(*runner.addresses[0][:2])
        headers = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
        key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
        writer.write("\r\n".join(("GET / HTTP/1.1", "Host: x", *headers, key, "", "")).encode())
        await has_come.wait()
        writer.transport.abort()
        await is_over.wait()
    finally:
        await runner.cleanup()
    (line,) = [record for record in caplog.records if record.name == LOGGER.name]
    assert line.exc_info is None
    assert line.levelno == logging.INFO
    assert line.getMessage().startswith("a caller did not wait for its answer: reason=")
