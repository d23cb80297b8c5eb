"""Process 1 of a local cluster's namespaces: makes the underlay, starts the daemons, answers.

Run as `python -m cluster.local.supervisor DIRECTORY` by `unshare` (see `cluster.cli.local`).
Invariant: it holds nothing outside its namespaces but files below DIRECTORY, so that its death is
the cluster's end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec

from cluster.local.control import Answer, NodeStatus, Request
from cluster.local.layout import UNDERLAY_CLIENTS, UNDERLAY_GATEWAY, Layout, LocalNode, load
from cluster.model.errors import ClusterError, FailedPrecondition, Invalid
from dataplane.kernel.netns import create_namespace, run_in_namespace, write_sysctl

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 60.0
REQUEST_BYTES_MAX = 64 * 1024
CONNECT_TIMEOUT_S = 5.0
PORTS_TIMEOUT_S = 2.0
PORTS_PAUSE_S_MIN, PORTS_PAUSE_S_MAX = 0.25, 4.0
EVENTS_PATH = '/events?filters={"type":["service"]}'


@dataclass(slots=True)
class _Cluster:
    """What the supervisor knows of its daemons."""

    layout: Layout
    pids: dict[str, int] = field(default_factory=dict[str, int])
    progress: list[str] = field(default_factory=list[str])
    ready: bool = False
    error: str = ""
    ports: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    unheard: list[str] = field(default_factory=list[str])
    """What the forwarder cannot listen for."""

    def namespace(self, node: LocalNode) -> Path:
        return self.layout.data_root(node) / "node.netns"

    def say(self, text: str) -> None:
        logger.info("%s", text)
        self.progress.append(text)


def make_underlay(cluster: _Cluster) -> None:
    """Make the bridge and a namespace with one interface per node."""
    lines = [
        "link set lo up",
        "link add underlay type bridge",
        "link set underlay up",
        f"addr add {UNDERLAY_GATEWAY}/24 dev underlay",
        *(f"addr add {address}/24 dev underlay" for address in UNDERLAY_CLIENTS),
    ]
    for node in cluster.layout.nodes:
        cluster.layout.data_root(node).mkdir(mode=0o700, exist_ok=True)
        path = cluster.namespace(node)
        path.unlink(missing_ok=True)
        create_namespace(path)
        lines += [
            f"link add {node.name} type veth peer name eth0 netns {path}",
            f"link set {node.name} master underlay up",
        ]
    _ip(lines)
    write_sysctl("net/bridge/bridge-nf-call-iptables", "0")
    # There is no way out: whoever tries is told so at once, and does not wait for an answer.
    write_sysctl("net/ipv4/ip_forward", "1")
    for node in cluster.layout.nodes:
        inside = [
            "link set lo up",
            f"addr add {node.address}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {UNDERLAY_GATEWAY}",
        ]
        run_in_namespace(cluster.namespace(node), partial(_ip, inside))


def _ip(lines: list[str]) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines).encode(), check=True)


def start_daemon(cluster: _Cluster, node: LocalNode) -> None:
    """Start the node's daemon in its namespace; it must not be running."""
    root = cluster.layout.data_root(node)
    arguments = [
        sys.executable, "-m", "cluster.cli.main", "daemon",
        "--data-root", str(root), "--run-root", str(root / "run"),
        "--listen", f"unix://{cluster.layout.socket(node)}",
        "--hostname", node.name, "--profile", "local",
        "--published-port-min", str(cluster.layout.published_port_min),
    ]  # fmt: skip
    log = os.open(cluster.layout.log(node), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, log, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
    ]

    def spawn() -> int:
        return os.posix_spawn(
            sys.executable, arguments, os.environ, file_actions=actions, setsid=True
        )

    try:
        cluster.pids[node.name] = run_in_namespace(cluster.namespace(node), spawn)
    finally:
        os.close(log)


def reap(cluster: _Cluster) -> None:
    """Collect every ended child: daemons, and whatever became ours as process 1."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            for name, known in list(cluster.pids.items()):
                if known == pid:
                    code = os.waitstatus_to_exitcode(status)
                    logger.warning("daemon ended: node=%s code=%d", name, code)
                    del cluster.pids[name]


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
    cluster: _Cluster, node: LocalNode, method: str, path: str, body: object = None
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
    cluster: _Cluster, node: LocalNode, method: str, path: str, body: object = None
) -> bytes:
    """Return the answer of a node's API.

    Raises:
        ClusterError: it answered with an error, or not at all.
    """
    async with _requested(cluster, node, method, path, body) as response:
        return await response.read()


async def get(cluster: _Cluster, node: LocalNode, path: str, kind: type[T]) -> T:
    """Return the decoded answer to a GET; raises as `request`."""
    try:
        return msgspec.json.decode(await request(cluster, node, "GET", path), type=kind)
    except msgspec.MsgspecError as error:
        raise ClusterError(f"{node.name}: unexpected answer to {path}: {error}") from error


async def form(cluster: _Cluster) -> None:
    """Make the cluster on the first node and let all others join."""
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

    async def join(node: LocalNode) -> None:
        await request(
            cluster,
            node,
            "POST",
            "/swarm/join",
            {
                "ListenAddr": "0.0.0.0:2377",
                "AdvertiseAddr": node.address,
                "RemoteAddrs": [f"{first.address}:2377"],
                "JoinToken": tokens["Manager" if node.is_manager else "Worker"],
            },
        )
        cluster.say(f"{node.name} joined as a {'manager' if node.is_manager else 'worker'}")

    for manager in [n for n in others if n.is_manager]:
        await join(manager)
    await asyncio.gather(*(join(n) for n in others if not n.is_manager))
    await _wait_until_ready(cluster, first)
    cluster.say("all nodes are ready")
    cluster.ready = True


async def _wait_for_api(cluster: _Cluster, node: LocalNode) -> None:
    while True:
        if node.name not in cluster.pids:
            raise ClusterError(f"the daemon of {node.name} ended: see {cluster.layout.log(node)}")
        with contextlib.suppress(ClusterError):
            await request(cluster, node, "GET", "/version")
            return
        await asyncio.sleep(0.05)


async def _wait_until_ready(cluster: _Cluster, first: LocalNode) -> None:
    while True:
        nodes = await get(cluster, first, "/nodes", list[_Node])
        if [n.status.state for n in nodes].count("ready") == len(cluster.layout.nodes):
            return
        await asyncio.sleep(0.05)


async def watch_ports(cluster: _Cluster) -> None:
    """Keep the list of published ports as any manager tells it, for the forwarder."""
    while True:
        for node in cluster.layout.nodes:
            if node.is_manager and node.name in cluster.pids and cluster.ready:
                with contextlib.suppress(ClusterError, TimeoutError):
                    await _follow_ports(cluster, node)
        await asyncio.sleep(PORTS_PAUSE_S_MIN)


async def _follow_ports(cluster: _Cluster, node: LocalNode) -> None:
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


def kill(cluster: _Cluster, node: LocalNode, *, tasks: bool) -> None:
    """Kill -9 the node's daemon and, when asked, every process of its tasks."""
    victims = _task_processes(cluster.layout.data_root(node)) if tasks else []
    daemon = cluster.pids.get(node.name)
    for pid in [*([daemon] if daemon else []), *victims]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _task_processes(data_root: Path) -> list[int]:
    """Return the supervisors of the node's tasks: processes with an open file below its state."""
    mark = f"{data_root}/"
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if any(_target(fd).startswith(mark) for fd in (entry / "fd").iterdir()):
                    found.append(int(entry.name))
    return found


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:
        return ""


def connect_inside(node: LocalNode, request: Request) -> socket.socket:
    """Return a socket connected from the cluster's bridge to the node's published port."""
    kind = socket.SOCK_DGRAM if request.protocol == "udp" else socket.SOCK_STREAM
    made = socket.socket(socket.AF_INET, kind)
    made.settimeout(CONNECT_TIMEOUT_S)
    try:
        if request.source:
            made.bind((request.source, 0))
        made.connect((node.address, request.port))
    except OSError:
        made.close()
        raise
    return made


async def answer(
    cluster: _Cluster, request: Request, stop: asyncio.Event
) -> tuple[Answer, socket.socket | None]:
    """Do what was asked.

    Raises:
        ClusterError, OSError: it cannot be done.
    """
    match request.do:
        case "status":
            return _status(cluster), None
        case "ports":
            cluster.unheard = request.unheard
            return Answer(ports=cluster.ports, nodes=_status(cluster).nodes), None
        case "stop":
            stop.set()
            return Answer(), None
        case "kill":
            node = cluster.layout.node(request.node)
            kill(cluster, node, tasks=request.tasks)
            while node.name in cluster.pids:  # noqa: ASYNC110  (the kernel is quick; bounded)
                await asyncio.sleep(0.005)
            return Answer(), None
        case "start":
            node = cluster.layout.node(request.node)
            if node.name in cluster.pids:
                raise FailedPrecondition(f"{node.name} is running")
            start_daemon(cluster, node)
            return Answer(), None
        case "connect":
            node = cluster.layout.node(request.node)
            return Answer(), await asyncio.to_thread(connect_inside, node, request)
        case _:
            raise Invalid(f"unknown request {request.do!r}")


def _status(cluster: _Cluster) -> Answer:
    return Answer(
        error=cluster.error,
        ready=cluster.ready,
        progress=cluster.progress,
        ports=cluster.ports,
        unheard=cluster.unheard,
        nodes=[
            NodeStatus(
                name=node.name,
                address=node.address,
                host_address=node.host_address,
                socket=str(cluster.layout.socket(node)),
                pid=cluster.pids.get(node.name, 0),
            )
            for node in cluster.layout.nodes
        ],
    )


async def serve(cluster: _Cluster, stop: asyncio.Event) -> None:
    """Answer on the control socket until cancelled."""
    loop = asyncio.get_running_loop()
    path = cluster.layout.control_socket
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(64)
    listener.setblocking(False)
    async with asyncio.TaskGroup() as group:
        while True:
            connection, _ = await loop.sock_accept(listener)
            group.create_task(_one(cluster, connection, stop))


async def _one(cluster: _Cluster, connection: socket.socket, stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    with connection:
        passed: socket.socket | None = None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S * 2):
                data = b""
                while not data.endswith(b"\n") and len(data) < REQUEST_BYTES_MAX:
                    chunk = await loop.sock_recv(connection, 65536)
                    if not chunk:
                        break
                    data += chunk
                reply, passed = await answer(cluster, msgspec.json.decode(data, type=Request), stop)
        except (ClusterError, OSError, TimeoutError, msgspec.MsgspecError) as error:
            reply = Answer(error=str(error) or type(error).__name__)
        with contextlib.suppress(OSError):
            encoded = msgspec.json.encode(reply)
            if passed is not None:
                socket.send_fds(connection, [encoded], [passed.fileno()])
                passed.close()
            else:
                await loop.sock_sendall(connection, encoded)


async def _form(cluster: _Cluster) -> None:
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            await form(cluster)
    except TimeoutError:
        cluster.error = f"the cluster was not ready in {START_TIMEOUT_S:.0f} s"
    except ClusterError as error:
        cluster.error = str(error)


async def run(directory: Path) -> None:
    """Run the cluster in `directory` until told to stop."""
    cluster = _Cluster(load(directory))
    make_underlay(cluster)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGCHLD, reap, cluster)
    for node in cluster.layout.nodes:
        start_daemon(cluster, node)
    async with asyncio.TaskGroup() as group:
        running = [
            group.create_task(serve(cluster, stop)),
            group.create_task(watch_ports(cluster)),
            group.create_task(_form(cluster)),
        ]
        await stop.wait()
        for task in running:
            task.cancel()


def main() -> None:
    """Entry point."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(run(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
