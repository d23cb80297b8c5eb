"""What the HTTP servers log."""

from __future__ import annotations

import logging

import pytest
from aiohttp.http_exceptions import BadStatusLine

from cluster.node import http_log


def test_a_malformed_request_is_one_line_and_a_bug_keeps_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("aiohttp.server")
    before = list(logger.filters)
    http_log.shorten()
    try:
        for error in (BadStatusLine("GET %s\x00"), ValueError("ours")):
            try:
                raise error  # noqa: TRY301  (what is logged is one that is being handled)
            except Exception:
                logger.exception("Error handling request from %s", "192.0.2.1")
    finally:
        logger.filters[:] = before
    malformed, bug = caplog.records
    assert malformed.exc_info is None
    assert malformed.levelno == logging.INFO
    assert malformed.getMessage().startswith("malformed request refused: reason=")
    assert "\n" not in malformed.getMessage()
    assert bug.exc_info is not None
