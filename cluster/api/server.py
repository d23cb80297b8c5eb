"""The API server: routes, versions, headers and errors.

Driven by the node: `serve(backend, path)` answers on a unix socket while its context lasts.
Invariant: whatever a client sends, it gets one answer, and errors are JSON.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from cluster.api.absent import Absent
from cluster.api.backend import Backend
from cluster.api.errors import PAGE_NOT_FOUND, message_of, status_of
from cluster.api.events import Events
from cluster.api.exchange import BODY_BYTES_MAX, Route, refusal
from cluster.api.gossip import Gossip
from cluster.api.keys import Keys
from cluster.api.logs import Logs
from cluster.api.metrics import Metrics, Requests
from cluster.api.networks import Networks
from cluster.api.nodes import Nodes
from cluster.api.services import Services
from cluster.api.swarm import Swarm
from cluster.api.system import API_VERSION, API_VERSION_MIN, OS_TYPE, System
from cluster.api.tasks import Tasks
from cluster.model.errors import ClusterError
from cluster.task_group import TaskGroup

logger = logging.getLogger(__name__)

SOCKET_MODE = 0o660
"""Like Docker's: the owner and the socket's group."""
BACKLOG = 128
SHUTDOWN_TIMEOUT_S = 2.0
"""How long open requests may go on when the server stops."""


def make_app(backend: Backend, events: Events, requests: Requests) -> web.Application:
    """Return the API of one node; the caller runs `events`."""
    app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[requests.count, _guard])
    app.on_response_prepare.append(_add_headers(backend.facts().version))
    for route in _routes(backend, events, requests):
        # aiohttp adds HEAD to GET; Docker's clients ask HEAD only of _ping, which has its own.
        app.router.add_route(route.method, route.path, route.handler)
        app.router.add_route(route.method, r"/v{version:\d+\.\d+}" + route.path, route.handler)
    return app


def _routes(backend: Backend, events: Events, requests: Requests) -> list[Route]:
    parts = (
        System(backend), Swarm(backend), Keys(backend), Nodes(backend), Networks(backend),
        Services(backend), Tasks(backend), Logs(backend), events, Metrics(backend, requests),
        Gossip(backend),         Absent(backend),
    )  # fmt: skip
    return [route for part in parts for route in part.routes()]


@asynccontextmanager
async def serve(
    backend: Backend,
    socket_path: Path,
    *,
    group: int | None = None,
    metrics_listen: tuple[str, int] | None = None,
) -> AsyncGenerator[None]:
    """Serve on a unix socket while the context lasts.

    An old socket file is replaced, unless somebody still answers there. `group`: numeric id of the
    group that may use the API beside the owner. `metrics_listen`: where anybody may read the
    metrics, and nothing else.

    Raises:
        OSError: a socket cannot be made, or another daemon has it.
    """
    await _clear(socket_path)
    events, requests = Events(backend), Requests()
    with _listening_socket(socket_path, group) as listener:
        async with AsyncExitStack() as stack:
            runner = await _run(make_app(backend, events, requests), stack)
            if metrics_listen is not None:
                await _listen(Metrics(backend, requests), *metrics_listen, stack)
            await web.SockSite(runner, listener).start()
            logger.info("API listens socket=%s", socket_path)
            async with TaskGroup() as tasks:
                watching = tasks.create_task(events.run())
                yield
                watching.cancel()


async def _listen(metrics: Metrics, host: str, port: int, stack: AsyncExitStack) -> None:
    """Serve the metrics alone on a TCP address until the stack is left."""
    app = web.Application(middlewares=[_guard])
    for route in metrics.routes():
        app.router.add_route(route.method, route.path, route.handler)
    await web.TCPSite(await _run(app, stack), host, port).start()
    logger.info("metrics are for anybody at address=%s port=%d", host, port)


async def _run(app: web.Application, stack: AsyncExitStack) -> web.AppRunner:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    return runner


@contextmanager
def _listening_socket(path: Path, group: int | None) -> Generator[socket.socket]:
    """Lend a unix socket that nobody could connect to before its mode was right."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        if group is not None:
            os.chown(path, -1, group)
        path.chmod(SOCKET_MODE)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)


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
