"""Local clusters: what they leave behind, what survives a daemon, and junk at their ports."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

from cluster.local.control import Request, ask, ask_with_socket
from cluster.local.demo import Api
from cluster.local.host_network import lowest_port
from cluster.local.layout import Layout, LocalNode
from cluster.local.lifecycle import start, stop
from cluster.model.errors import ClusterError
from tests.e2e.lab import (
    create_web,
    daemon_of,
    local_cluster,
    needs_namespaces,
    short_directory,
    wait_until,
)

pytestmark = [needs_namespaces, pytest.mark.timeout(180)]
CLI = (sys.executable, "-m", "cluster.cli.main")
PORT = 8080
BAD_PACKETS = 'hivewire_gossip_packets_bad_total{reason="malformed"}'


@pytest.fixture(scope="module")
def layout() -> Generator[Layout]:
    with local_cluster(short_directory(), managers=1, workers=1) as made:
        create_web(Api(made.socket(made.nodes[0])), replicas=4, port=PORT)
        # Each test may be the first one: a running replica does not listen yet.
        for node in made.nodes:
            wait_until("all replicas answer", lambda node=node: has_all(made, node))  # type: ignore[misc]
        yield made


def connect(layout: Layout, node: LocalNode, port: int, protocol: str = "tcp") -> socket.socket:
    request = Request(do="connect", node=node.name, port=port, protocol=protocol)
    _, made = ask_with_socket(layout.control_socket, request)
    assert made is not None
    made.settimeout(5.0)
    return made


def get(connection: socket.socket) -> dict[str, str]:
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
    body = data.partition(b"\r\n\r\n")[2]
    if not body:
        raise ConnectionError("no answer")
    answer: dict[str, str] = json.loads(body)
    return answer


def fetch(layout: Layout, node: LocalNode) -> dict[str, str]:
    with connect(layout, node, PORT) as connection:
        return get(connection)


def has_all(layout: Layout, node: LocalNode) -> bool:
    return len({fetch(layout, node)["task"] for _ in range(4)}) == 4


def test_every_node_balances_exactly(layout: Layout) -> None:
    for node in layout.nodes:
        wait_until("all replicas answer", lambda node=node: has_all(layout, node))  # type: ignore[misc]
        counts = Counter(fetch(layout, node)["task"] for _ in range(20))
        assert sorted(counts.values()) == [5, 5, 5, 5]


def test_udp_reaches_the_replicas(layout: Layout) -> None:
    def ask(node: LocalNode) -> str:
        with connect(layout, node, PORT, "udp") as client:
            client.send(b"who?")
            return str(json.loads(client.recv(4096))["task"])

    for node in layout.nodes:
        # Another worker of the test run may not have waited for the service yet.
        wait_until("all take datagrams", lambda node=node: len({ask(node) for _ in range(4)}) == 4)  # type: ignore[misc]
        assert len({ask(node) for _ in range(8)}) == 4


def test_published_port_answers_on_the_host(layout: Layout) -> None:
    def ask_udp() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(1.0)
            client.sendto(b"who?", (layout.nodes[1].host_address, PORT))
            return bool(json.loads(client.recv(4096))["task"])

    def ask_host() -> bool:
        for node in layout.nodes:
            with socket.create_connection((node.host_address, PORT), 5) as connection:
                assert get(connection)["task"].startswith("web.")
        return True

    wait_until("the forwarder listens", ask_host)
    wait_until("the forwarder takes datagrams", ask_udp)


def test_nodes_need_not_learn_where_the_others_are(layout: Layout) -> None:
    """All namespaces of a machine together learn 1,024 neighbours: those of 33 nodes (arp(7))."""
    for node in layout.nodes:
        pid = daemon_of(layout, node)
        enter = ["nsenter", f"--target={pid}", "--net", "--preserve-credentials"]
        enter += [] if os.geteuid() == 0 else ["--user"]
        show = [*enter, "ip", "neigh", "show", "dev", "eth0"]
        shown = subprocess.run(show, capture_output=True, text=True, check=True)
        states = {line.split()[0]: line.split()[-1] for line in shown.stdout.splitlines()}
        assert {other.address for other in layout.nodes if other != node} < set(states)
        assert set(states.values()) == {"PERMANENT"}


@pytest.mark.parametrize("name", ["m1", "w1"])
def test_tasks_and_connections_survive_the_daemon(layout: Layout, name: str) -> None:
    node = layout.node(name)
    api = Api(layout.socket(layout.nodes[0]))
    before = {t.id for t in api.running("web")}
    with connect(layout, node, PORT) as held:
        ask(layout.control_socket, Request(do="kill", node=name))
        for _ in range(8):  # the kernel goes on forwarding
            assert fetch(layout, node)["task"].startswith("web.")
        ask(layout.control_socket, Request(do="start", node=name))
        wait_until("the API answers", lambda: api.running("web"))
        assert get(held)["task"].startswith("web.")

    wait_until("all nodes are ready", lambda: _all_ready(api))
    assert {t.id for t in api.running("web")} == before
    wait_until("all replicas answer", lambda: has_all(layout, node))


def test_a_node_without_its_daemon_goes_on_forwarding(layout: Layout) -> None:
    """Also when everybody has declared it dead: its tasks are replaced, and live on."""
    api, node = Api(layout.socket(layout.nodes[0])), layout.node("w1")
    wait_until("all replicas answer", lambda: has_all(layout, node))
    ask(layout.control_socket, Request(do="kill", node="w1"))
    wait_until("it is down", lambda: not _all_ready(api))
    try:
        seen = {fetch(layout, node)["task"] for _ in range(8)}
        assert len(seen) == 4
    finally:
        ask(layout.control_socket, Request(do="start", node="w1"))
    wait_until("all nodes are ready", lambda: _all_ready(api))
    wait_until("four tasks run", lambda: len(api.running("web")) == 4)
    wait_until("all replicas answer", lambda: has_all(layout, node))


def _all_ready(api: Api) -> bool:
    nodes = json.loads(api.call("GET", "/nodes"))
    return all(n["Status"]["State"] == "ready" for n in nodes)


@pytest.mark.parametrize("port", [2377, 7946])
def test_junk_at_a_port_is_dropped(layout: Layout, port: int) -> None:
    node = layout.nodes[0]
    # The test before has restarted the daemon, which speaks gossip only after its first plan.
    half_open = [wait_until("gossip listens", lambda: connect(layout, node, 7946))]
    half_open += [connect(layout, node, port) for _ in range(20)]
    for junk in (b"GET / HTTP/1.0\r\n\r\n", os.urandom(4096), b"\x16\x03\x01" + b"\xff" * 600):
        with connect(layout, node, port) as connection:
            connection.sendall(junk)
    for size in (1, 64, 1200, 1472):
        for udp_port in (7946, 4789):
            with connect(layout, node, udp_port, "udp") as client:
                client.send(os.urandom(size))
    for connection in half_open:
        connection.close()

    assert "Traceback" not in layout.log(node).read_text()
    wait_until("junk is counted", lambda: metric(layout, node, BAD_PACKETS) >= 4)
    wait_until("all replicas answer", lambda: has_all(layout, node))


def metric(layout: Layout, node: LocalNode, name: str) -> float:
    """Return a metric's value, as the node tells it now."""
    text = Api(layout.socket(node)).call("GET", "/metrics").decode()
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(line.rpartition(" ")[2])


def test_down_leaves_nothing_after_a_kill_of_everything() -> None:
    directory = short_directory()
    layout = start(directory, managers=1, workers=0, progress=lambda _: None)
    create_web(Api(layout.socket(layout.nodes[0])), replicas=1, port=PORT)
    holder = int((directory / "supervisor.pid").read_text().split()[0])
    os.kill(holder, signal.SIGKILL)
    wait_until("all of it is dead", lambda: not _processes_of(directory))
    stop(layout)

    assert not directory.exists()
    assert str(directory) not in Path("/proc/self/mountinfo").read_text()


def test_up_that_was_killed_half_way_is_told_of() -> None:
    directory = short_directory()
    up = subprocess.Popen(
        [*CLI, "local", "up", "--managers", "1", "--workers", "0", "--dir", str(directory)],
        stdout=subprocess.DEVNULL,
    )
    socket_path = directory / "supervisor.sock"
    wait_until("the supervisor answers", lambda: ask(socket_path, Request(do="status")).nodes)
    up.kill()
    up.wait()
    try:
        shown = local("status", directory)
        assert "m1" in shown.stdout
        assert "published ports do not answer" in shown.stderr
        assert "hivewire local down" in shown.stderr
        again = local("up", directory)
        assert again.returncode == 1
        assert "published ports do not answer" in again.stderr
    finally:
        down = local("down", directory)
    assert down.returncode == 0
    assert not directory.exists()


def local(command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    arguments = [*CLI, "local", command, "--dir", str(directory)]
    return subprocess.run(arguments, check=False, capture_output=True, text=True)


def _processes_of(directory: Path) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(directory).encode() in text and b"local.forward" not in text:
                found.append(int(entry.name))
    return found


def test_second_cluster_answers_at_addresses_of_its_own(layout: Layout) -> None:
    with local_cluster(short_directory(), managers=1, workers=0) as second:
        create_web(Api(second.socket(second.nodes[0])), replicas=1, port=PORT)
        (node,) = second.nodes

        def ask_host() -> bool:
            with socket.create_connection((node.host_address, PORT), 5) as connection:
                return get(connection)["task"] == fetch(second, node)["task"]

        wait_until("the second cluster's forwarder listens", ask_host)
        assert second.nodes[0].host_address != layout.nodes[0].host_address


def test_what_cannot_be_had_without_root_is_told(layout: Layout) -> None:
    api, node = Api(layout.socket(layout.nodes[0])), layout.nodes[1]
    spec = {
        "Name": "low",
        "TaskTemplate": {
            "ContainerSpec": {"Image": "host", "Command": ["sleep", "60"]},
            "Resources": {"Limits": {"MemoryBytes": 64 << 20}},
        },
        "EndpointSpec": {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 80}]},
    }
    created = json.loads(api.call("POST", "/services/create", spec))
    told = " ".join(created["Warnings"] or ())
    try:
        if lowest_port() > 80:
            assert "port 80/tcp does not answer at this machine's 127.0.x.y addresses" in told
            failed = f"nothing listens for port 80/tcp of {node.host_address}: Permission denied"
            wait_until("status says so", lambda: failed in local("status", layout.directory).stderr)
        else:
            assert "port 80/tcp" not in told
        has_limits = json.loads(api.call("GET", "/info"))["MemoryLimit"]
        assert ("no effect on m1, w1" in told) is not has_limits
    finally:
        api.call("DELETE", f"/services/{created['ID']}")
    wait_until("status forgets it", lambda: not local("status", layout.directory).stderr)


def test_second_cluster_in_the_same_place_is_refused(layout: Layout) -> None:
    with pytest.raises(ClusterError, match="a local cluster runs in"):
        start(layout.directory, managers=1, workers=0, progress=lambda _: None)


def test_a_worker_tells_what_it_knows(layout: Layout) -> None:
    worker = layout.nodes[1]

    def gossip(*arguments: str) -> list[dict[str, str]]:
        host = f"unix://{layout.socket(worker)}"
        shown = subprocess.run(
            [sys.executable, "-m", "cluster.cli.main", "-H", host, "gossip", *arguments,
             "--format", "json"],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        return [json.loads(line) for line in shown.splitlines()]

    def sees_both() -> bool:  # its daemon may just have been started again by another test
        text = Api(layout.socket(worker)).call("GET", "/metrics").decode()
        return 'hivewire_gossip_members{state="alive"} 2' in text

    wait_until("the worker's gossip sees both", sees_both)
    states = {member["Node"]: member["State"] for member in gossip("members")}
    assert states == {"w1 *": "Alive", "m1": "Alive"}
    published = {(log["Scope"], log["Owner"]) for log in gossip("tables") if log["Records"] != "0"}
    assert {("ingress", "m1"), ("ingress", "w1")} <= published
    assert {record["State"] for record in gossip("tables", "ingress")} <= {"Visible", "Deleted"}
    assert [key["State"] for key in gossip("keys")] == ["Primary"]
    wait_until("m1 answers", lambda: [peer["Path"] for peer in gossip("rtt")] == ["Direct"])
    assert metric(layout, worker, 'hivewire_gossip_members{state="alive"}') == 2
    assert metric(layout, worker, "hivewire_session_connected") == 1


def test_cli_shows_the_cluster(layout: Layout) -> None:
    shown = local("status", layout.directory)

    assert "m1" in shown.stdout
    assert "running" in shown.stdout
    assert not shown.stderr
