"""Half-open, slow and garbage connections at a running node's ports, by the thousand.

While they last the node still does what it is for, for everybody else; afterwards it holds no more
than before, its log has no traceback, and nothing in the cluster has changed.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import ssl
import struct
from collections.abc import Generator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from cluster.local.control import Request, ask, ask_with_socket
from cluster.local.demo import Api
from cluster.local.layout import UNDERLAY_CLIENTS, Layout
from tests.e2e import lab

pytestmark = [lab.needs_namespaces, pytest.mark.timeout(180)]
CONNECTIONS = 2000
GROWTH_MB_MAX = 48
"""Of the daemon's memory under all of it: 256 handshakes at 100 KB, and what asyncio keeps."""
STREAM_PORTS = (2377, 7946)
DATAGRAM_PORTS = (7946, 4789)
CLIENT_HELLO_BEGINS = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32)
"""Of a ClientHello of 512 bytes: the server waits for the rest."""


@pytest.fixture(scope="module")
def layout() -> Generator[Layout]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with lab.local_cluster(lab.short_directory(), managers=1, workers=1) as made:
        lab.create_web(Api(made.socket(made.nodes[0])), replicas=2, port=8080)
        yield made
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def victim(layout: Layout) -> Generator[Api]:
    """Lend the first manager's API; nothing may have changed in the end."""
    api = Api(layout.socket(layout.nodes[0]))
    lab.wait_until("all nodes are ready", lambda: states(api) == ["ready", "ready"])
    before = memory_mb(layout), facts(api)
    yield api
    assert facts(api) == before[1]
    assert memory_mb(layout) - before[0] < GROWTH_MB_MAX
    for node in layout.nodes:
        assert "Traceback" not in layout.log(node).read_text()


def states(api: Api) -> list[str]:
    return [node["Status"]["State"] for node in json.loads(api.call("GET", "/nodes"))]


def facts(api: Api) -> list[object]:
    """Return what may not change: who there is, and what runs."""
    nodes = json.loads(api.call("GET", "/nodes"))
    services = json.loads(api.call("GET", "/services"))
    return [
        sorted((n["ID"], n["Spec"]["Role"]) for n in nodes),
        [(s["ID"], s["Version"]["Index"]) for s in services],
        json.loads(api.call("GET", "/swarm"))["ID"],
        sorted(task.id for task in api.running("web")),
    ]


def memory_mb(layout: Layout) -> float:
    """Return the resident memory of the first manager's daemon."""
    mark = str(layout.data_root(layout.nodes[0]))
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if "daemon" in words and mark in words:
                    status = (entry / "status").read_text()
                    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
            except OSError:
                continue
    raise AssertionError("the daemon does not run")


def connect(layout: Layout, port: int, protocol: str = "tcp") -> socket.socket:
    request = Request(
        do="connect", node="m1", port=port, protocol=protocol, source=UNDERLAY_CLIENTS[0]
    )
    _, made = ask_with_socket(layout.control_socket, request)
    assert made is not None
    made.settimeout(5.0)
    return made


def restart_worker(layout: Layout, api: Api) -> None:
    """Let the worker begin everything anew: session, gossip, tasks."""
    log = layout.log(layout.nodes[0])
    begun = log.read_text().count("session begun")
    ask(layout.control_socket, Request(do="kill", node="w1"))
    ask(layout.control_socket, Request(do="start", node="w1"))
    lab.wait_until("it has a session", lambda: log.read_text().count("session begun") > begun)
    lab.wait_until("all nodes are ready", lambda: states(api) == ["ready", "ready"])


@pytest.mark.parametrize("port", STREAM_PORTS)
def test_thousands_of_half_open_connections(layout: Layout, victim: Api, port: int) -> None:
    with ExitStack() as stack:
        for number in range(CONNECTIONS):
            made = stack.enter_context(connect(layout, port))
            if number % 2:
                with suppress(OSError):  # shed already
                    made.sendall(CLIENT_HELLO_BEGINS)
            if number == CONNECTIONS // 2:
                assert len(victim.running("web")) == 2
        restart_worker(layout, victim)
        assert len(victim.running("web")) == 2


def test_slow_strangers_behind_a_handshake(layout: Layout, victim: Api) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with ExitStack() as stack:
        held: list[ssl.SSLSocket] = []
        for _ in range(200):
            raw = stack.enter_context(connect(layout, 2377))
            try:
                held.append(stack.enter_context(context.wrap_socket(raw)))
            except OSError:
                continue
        for made in held:
            try:
                made.sendall(b"POST /v1/join HTTP/1.1\r\nX-Slow: ")
            except OSError:
                continue
        restart_worker(layout, victim)
        assert len(victim.running("web")) == 2


def test_requests_that_are_too_large_or_no_requests(layout: Layout, victim: Api) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for data in (
        b"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n" + bytes(65536),
        b"POST /v1/join HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n"
        + bytes(65536) + b"\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"GET /v1/session HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"\xff" * 65536,
        os.urandom(65536),
    ):  # fmt: skip
        with connect(layout, 2377) as raw, context.wrap_socket(raw) as made:
            try:
                made.sendall(data)
                answer = made.recv(65536)
            except OSError:
                continue  # hung up on
            assert answer == b"" or answer.startswith(b"HTTP/1.")
            assert not answer.startswith(b"HTTP/1.1 2")
    assert len(victim.running("web")) == 2


@pytest.mark.parametrize("port", STREAM_PORTS)
def test_garbage_in_streams(layout: Layout, victim: Api, port: int) -> None:
    for junk in (
        b"GET / HTTP/1.0\r\n\r\n",
        struct.pack(">I", 0xFFFFFFFF) * 1000,
        struct.pack(">I", 4 << 20) + os.urandom(100_000),
        b"\x16\x03\x01\xff\xff" + os.urandom(65535),
        os.urandom(300_000),
    ):
        for _ in range(20):
            with connect(layout, port) as made, suppress(OSError):  # hung up on
                made.sendall(junk)
                made.recv(1)
    assert len(victim.running("web")) == 2


@pytest.mark.parametrize("port", DATAGRAM_PORTS)
def test_garbage_in_datagrams(layout: Layout, victim: Api, port: int) -> None:
    vxlan = struct.pack(">II", 0x08000000, 4097 << 8)
    with connect(layout, port, "udp") as made:
        for number in range(CONNECTIONS):
            size = (0, 1, 12, 64, 1200, 1472, 9216, 60000)[number % 8]
            made.send((vxlan if number % 3 == 0 else b"") + os.urandom(size))
    restart_worker(layout, victim)
    assert len(victim.running("web")) == 2
