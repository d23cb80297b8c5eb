"""The API server: routes, versions, headers and errors.

Driven by the node: `make_app(backend)` returns the application, `serve` runs it on a unix socket
until cancelled. Invariant: whatever a client sends, it gets one answer, and errors are JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from cluster.api.absent import Absent
from cluster.api.backend import Backend
from cluster.api.errors import PAGE_NOT_FOUND, message_of, status_of
from cluster.api.exchange import BODY_BYTES_MAX, Route, refusal
from cluster.api.networks import Networks
from cluster.api.nodes import Nodes
from cluster.api.services import Services
from cluster.api.swarm import Swarm
from cluster.api.system import API_VERSION, API_VERSION_MIN, OS_TYPE, System
from cluster.api.tasks import Tasks
from cluster.model.errors import ClusterError

logger = logging.getLogger(__name__)

SOCKET_MODE = 0o660
"""Like Docker's: the owner and the socket's group."""
SHUTDOWN_TIMEOUT_S = 2.0
"""How long open requests may go on when the server stops."""


def make_app(backend: Backend) -> web.Application:
    """Return the API of one node."""
    app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[_guard])
    app.on_response_prepare.append(_add_headers(backend.facts().version))
    for route in _routes(backend):
        # aiohttp adds HEAD to GET; Docker's clients ask HEAD only of _ping, which has its own.
        app.router.add_route(route.method, route.path, route.handler)
        app.router.add_route(route.method, r"/v{version:\d+\.\d+}" + route.path, route.handler)
    return app


def _routes(backend: Backend) -> list[Route]:
    parts = (
        System(backend), Swarm(backend), Nodes(backend), Networks(backend), Services(backend),
        Tasks(backend), Absent(backend),
    )  # fmt: skip
    return [route for part in parts for route in part.routes()]


@asynccontextmanager
async def serve(app: web.Application, socket_path: Path) -> AsyncGenerator[None]:
    """Serve on a unix socket while the context lasts.

    An old socket file is replaced, unless somebody still answers there.

    Raises:
        OSError: the socket cannot be made, or another daemon has it.
    """
    await _clear(socket_path)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    try:
        site = web.UnixSite(runner, str(socket_path))
        await site.start()
        os.chmod(socket_path, SOCKET_MODE)  # noqa: PTH101
        logger.info("API listens socket=%s", socket_path)
        yield
    finally:
        await runner.cleanup()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(socket_path)  # noqa: PTH108


async def _clear(socket_path: Path) -> None:
    try:
        _, writer = await asyncio.open_unix_connection(str(socket_path))
    except FileNotFoundError:
        pass
    except ConnectionRefusedError:
        os.unlink(socket_path)  # noqa: PTH108
    else:
        writer.close()
        await writer.wait_closed()
        raise FileExistsError(f"another daemon answers at {socket_path}")


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Check the version, and turn every failure into an answer."""
    try:
        problem = _version_problem(request.match_info.get("version"))
        return refusal(400, problem) if problem else await handler(request)
    except ClusterError as error:
        return refusal(status_of(error), message_of(error))
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
        return refusal(404, PAGE_NOT_FOUND)
    except web.HTTPException as error:
        return refusal(error.status, error.text or error.reason)
    except ConnectionResetError:
        raise  # the client has gone: there is nobody to answer
    except Exception:
        logger.exception("API call failed method=%s path=%s", request.method, request.path)
        return refusal(500, "internal error; the daemon's log has the details")


def _version_problem(version: str | None) -> str:
    if version is None:
        return ""
    asked = _numbers(version)
    if asked > _numbers(API_VERSION):
        return (
            f"client version {version} is too new. Maximum supported API version is {API_VERSION}"
        )
    if asked < _numbers(API_VERSION_MIN):
        return (
            f"client version {version} is too old. Minimum supported API version is "
            f"{API_VERSION_MIN}, please upgrade your client to a newer version"
        )
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part[:6]) for part in version.split("."))


def _add_headers(
    version: str,
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    async def add(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Api-Version"] = API_VERSION
        response.headers["Ostype"] = OS_TYPE
        response.headers["Docker-Experimental"] = "false"
        response.headers["Server"] = f"hivewire/{version} (linux)"

    return add
