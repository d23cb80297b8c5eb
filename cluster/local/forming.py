"""A local cluster through its daemons' API: forms it, and follows its published ports."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import TypeVar

import aiohttp
import msgspec

from cluster.local.daemons import LocalCluster
from cluster.local.layout import LocalNode
from cluster.model.errors import ClusterError, FailedPrecondition

START_TIMEOUT_S = 60.0
JOINS_AT_ONCE = 8
"""All of them at once, on few cores, would make each wait longer than it has patience."""
PORTS_TIMEOUT_S = 2.0
PORTS_PAUSE_S_MIN, PORTS_PAUSE_S_MAX = 0.25, 4.0
EVENTS_PATH = '/events?filters={"type":["service"]}'


class _Swarm(msgspec.Struct):
    tokens: dict[str, str] = msgspec.field(name="JoinTokens")


class _NodeStatus(msgspec.Struct):
    state: str = msgspec.field(name="State")


class _Node(msgspec.Struct):
    status: _NodeStatus = msgspec.field(name="Status")


class _Port(msgspec.Struct):
    protocol: str = msgspec.field(name="Protocol")
    published: int = msgspec.field(name="PublishedPort", default=0)
    mode: str = msgspec.field(name="PublishMode", default="ingress")


class _Endpoint(msgspec.Struct):
    ports: list[_Port] | None = msgspec.field(name="Ports", default=None)


class _Service(msgspec.Struct):
    endpoint: _Endpoint = msgspec.field(name="Endpoint", default_factory=_Endpoint)


T = TypeVar("T")


@contextlib.asynccontextmanager
async def _requested(
    cluster: LocalCluster, node: LocalNode, method: str, path: str, body: object = None
) -> AsyncGenerator[aiohttp.ClientResponse]:
    """Lend the response of a node's API; raises as `request`."""
    connector = aiohttp.UnixConnector(str(cluster.layout.socket(node)))
    try:
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, f"http://localhost{path}", json=body) as response,
        ):
            if not response.ok:
                told = await response.text(errors="replace")
                raise FailedPrecondition(f"{node.name}: {told.strip()}")
            yield response
    except (aiohttp.ClientError, OSError) as error:
        raise ClusterError(f"{node.name}: {error}") from error


async def request(
    cluster: LocalCluster, node: LocalNode, method: str, path: str, body: object = None
) -> bytes:
    """Return the answer of a node's API.

    Raises:
        ClusterError: it answered with an error, or not at all.
    """
    async with _requested(cluster, node, method, path, body) as response:
        return await response.read()


async def get(cluster: LocalCluster, node: LocalNode, path: str, kind: type[T]) -> T:
    """Return the decoded answer to a GET; raises as `request`."""
    try:
        return msgspec.json.decode(await request(cluster, node, "GET", path), type=kind)
    except msgspec.MsgspecError as error:
        raise ClusterError(f"{node.name}: unexpected answer to {path}: {error}") from error


async def form(cluster: LocalCluster) -> None:
    """Make the cluster on the first node and let all others join; what fails is its `error`."""
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            await _form(cluster)
    except TimeoutError:
        cluster.error = f"the cluster was not ready in {START_TIMEOUT_S:.0f} s"
    except ClusterError as error:
        cluster.error = str(error)


async def _form(cluster: LocalCluster) -> None:
    first, *others = cluster.layout.nodes
    await asyncio.gather(*(_wait_for_api(cluster, node) for node in cluster.layout.nodes))
    cluster.say(f"{len(cluster.layout.nodes)} daemons answer")
    await request(
        cluster,
        first,
        "POST",
        "/swarm/init",
        {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": first.address, "Spec": {}},
    )
    cluster.say(f"{first.name} made the cluster")
    tokens = (await get(cluster, first, "/swarm", _Swarm)).tokens

    places = asyncio.Semaphore(JOINS_AT_ONCE)

    async def join(node: LocalNode) -> None:
        body = {
            "ListenAddr": "0.0.0.0:2377",
            "AdvertiseAddr": node.address,
            "RemoteAddrs": [f"{first.address}:2377"],
            "JoinToken": tokens["Manager" if node.is_manager else "Worker"],
        }
        async with places:
            await request(cluster, node, "POST", "/swarm/join", body)
        cluster.say(f"{node.name} joined as a {'manager' if node.is_manager else 'worker'}")

    for manager in [n for n in others if n.is_manager]:
        await join(manager)
    await asyncio.gather(*(join(n) for n in others if not n.is_manager))
    await _wait_until_ready(cluster, first)
    cluster.say("all nodes are ready")
    cluster.ready = True


async def _wait_for_api(cluster: LocalCluster, node: LocalNode) -> None:
    while True:
        if node.name not in cluster.pids:
            raise ClusterError(f"the daemon of {node.name} ended: see {cluster.layout.log(node)}")
        with contextlib.suppress(ClusterError):
            await request(cluster, node, "GET", "/version")
            return
        await asyncio.sleep(0.05)


async def _wait_until_ready(cluster: LocalCluster, first: LocalNode) -> None:
    while True:
        nodes = await get(cluster, first, "/nodes", list[_Node])
        if [n.status.state for n in nodes].count("ready") == len(cluster.layout.nodes):
            return
        await asyncio.sleep(0.05)


async def watch_ports(cluster: LocalCluster) -> None:
    """Keep the list of published ports as any manager tells it, for the forwarder."""
    while True:
        for node in cluster.layout.nodes:
            if node.is_manager and node.name in cluster.pids and cluster.ready:
                with contextlib.suppress(ClusterError, TimeoutError):
                    await _follow_ports(cluster, node)
        await asyncio.sleep(PORTS_PAUSE_S_MIN)


async def _follow_ports(cluster: LocalCluster, node: LocalNode) -> None:
    """Look at the ports after every event, and ever more seldom without one.

    Raises:
        ClusterError, TimeoutError: the node does not answer any more.
    """
    pause_s = PORTS_PAUSE_S_MIN
    async with _requested(cluster, node, "GET", EVENTS_PATH) as events:
        while True:
            async with asyncio.timeout(PORTS_TIMEOUT_S):
                cluster.ports = _published(await get(cluster, node, "/services", list[_Service]))
            try:
                async with asyncio.timeout(pause_s):
                    if not await events.content.readany():
                        return
            except TimeoutError:
                pause_s = min(2 * pause_s, PORTS_PAUSE_S_MAX)
            else:
                pause_s = PORTS_PAUSE_S_MIN


def _published(services: list[_Service]) -> list[tuple[str, int]]:
    return sorted(
        {
            (port.protocol, port.published)
            for service in services
            for port in service.endpoint.ports or []
            if port.mode == "ingress" and port.published
        }
    )
