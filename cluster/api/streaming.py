"""Answers that go on: written piece by piece until there is no more, or the client has gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from aiohttp import web

from cluster.model.errors import ClusterError
from cluster.task_group import TaskGroup

logger = logging.getLogger(__name__)

GONE_CHECK_PERIOD_S = 1.0
"""How soon a client that went away is noticed while there is nothing to write to it."""


class _ClientGoneError(Exception):
    """Ends the writing."""


async def stream(
    request: web.Request, content_type: str, pieces: AsyncIterator[bytes]
) -> web.StreamResponse:
    """Write the pieces as they come and return the finished response."""
    response = web.StreamResponse(headers={"Content-Type": content_type})
    await response.prepare(request)
    try:
        async with TaskGroup() as group:
            watcher = group.create_task(_raise_when_gone(request))
            async for piece in pieces:
                await response.write(piece)
            watcher.cancel()
            await response.write_eof()
    except* (_ClientGoneError, ConnectionResetError):
        logger.debug("client went away path=%s", request.path)
    except* ClusterError as errors:
        # The status line is out: all that is left is to end the stream.
        logger.warning("stream ended path=%s error=%s", request.path, errors.exceptions[0])
    return response


async def _raise_when_gone(request: web.Request) -> None:
    while True:
        if request.transport is None or request.transport.is_closing():
            raise _ClientGoneError
        await asyncio.sleep(GONE_CHECK_PERIOD_S)
