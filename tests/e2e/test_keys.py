"""Gossip keys rotate while records change, requests flow and the leader dies."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from cluster.agent.state_file import StateFile
from cluster.local.control import Request, ask, ask_with_socket
from cluster.local.demo import Api
from cluster.local.layout import Layout, LocalNode
from cluster.model.cluster import GossipKey
from cluster.model.errors import ClusterError
from tests.e2e.lab import (
    create_web,
    local_cluster,
    needs_namespaces,
    short_directory,
    wait_until,
)

pytestmark = [needs_namespaces, pytest.mark.timeout(180)]
PORT = 8080
REPLICAS = 4
Ring = list[tuple[int, str]]


@pytest.fixture(scope="module")
def layout() -> Generator[Layout]:
    with local_cluster(short_directory(), managers=3, workers=1) as made:
        create_web(Api(made.socket(made.nodes[0])), replicas=REPLICAS, port=PORT)
        for node in made.nodes:
            wait_until("all replicas answer", lambda node=node: _balances(made, node))  # type: ignore[misc]
        yield made


@dataclass
class Traffic:
    """Requests to some nodes, one after the other, without end."""

    layout: Layout
    nodes: list[LocalNode]
    answered: int = 0
    failures: list[str] = field(default_factory=list[str])
    is_over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.is_over.is_set():
            for node in self.nodes:
                try:
                    ask_task(self.layout, node)
                except (ClusterError, OSError, ValueError) as error:
                    self.failures.append(f"{node.name}: {error!r}")
                else:
                    self.answered += 1


@contextmanager
def traffic(layout: Layout, nodes: list[LocalNode]) -> Generator[Traffic]:
    made = Traffic(layout, nodes)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield made
    finally:
        made.is_over.set()
        thread.join()


def ask_task(layout: Layout, node: LocalNode) -> str:
    """Return which task answers a request to the node."""
    request = Request(do="connect", node=node.name, port=PORT)
    _, made = ask_with_socket(layout.control_socket, request)
    assert made is not None
    with made:
        made.settimeout(5.0)
        made.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        data = b""
        while chunk := made.recv(65536):
            data += chunk
    task: str = json.loads(data.partition(b"\r\n\r\n")[2])["task"]
    return task


def api_of(layout: Layout, node: LocalNode) -> Api:
    return Api(layout.socket(node))


def ring(api: Api) -> Ring:
    """Return the ring as the managers agree on it."""
    keys = json.loads(api.call("GET", "/swarm/keys"))["Keys"]
    return [(key["ID"], key["State"]) for key in keys]


def secrets_of(layout: Layout, node: LocalNode) -> tuple[GossipKey, ...]:
    """Return the ring that the node holds on its disk."""
    info = StateFile(layout.data_root(node) / "worker").load().info
    return info.gossip_keys if info is not None else ()


def held(layout: Layout, node: LocalNode) -> Ring:
    return [(key.id, key.state.value) for key in secrets_of(layout, node)]


def leader_of(layout: Layout) -> LocalNode:
    nodes = api_of(layout, layout.nodes[0]).nodes()
    [name] = [n for n, node in nodes.items() if node.manager is not None and node.manager.leader]
    return layout.node(name)


def test_rotation_goes_on_when_the_leader_dies_and_no_request_is_lost(layout: Layout) -> None:
    leader = leader_of(layout)
    others = [node for node in layout.nodes if node != leader]
    api = api_of(layout, others[0])  # a follower forwards
    create_web(api, replicas=1, port=PORT + 1, name="other")
    assert ring(api) == [(1, "primary")]

    with traffic(layout, others) as requests:
        api.call("POST", "/swarm/keys/rotate")
        ask(layout.control_socket, Request(do="kill", node=leader.name))
        assert "2 primary" not in layout.log(leader).read_text()
        wait_until("another leads", lambda: ring(api))
        api.scale("other", 3)
        wait_until("key 2 seals", lambda: ring(api) == [(1, "retired"), (2, "primary")])
        for node in others:
            wait_until("all hold it", lambda node=node: held(layout, node) == ring(api))  # type: ignore[misc]
        wait_until("its records came", lambda: len(api.running("other")) == 3)

        api.call("POST", "/swarm/keys/rotate")
        newest = [(1, "retired"), (2, "retired"), (3, "primary")]
        wait_until("key 3 seals", lambda: ring(api) == newest)
        assert (2, "primary") not in held(layout, leader)
        ask(layout.control_socket, Request(do="start", node=leader.name))
        wait_until("it is told both at once", lambda: held(layout, leader) == newest)
        tasks = {task.id for task in api.running("web")}
        assert len(tasks) == REPLICAS
        wait_until("it hears of all replicas", lambda: _balances(layout, leader))
        api.scale("other", 1)
        wait_until("all is as wished", lambda: len(api.running("other")) == 1)
    assert requests.failures == []
    assert requests.answered > 100
    wait_until("one ring", lambda: {tuple(held(layout, n)) for n in layout.nodes} == {(*newest,)})


def test_secrets_are_the_same_everywhere_private_on_disk_and_in_no_log(layout: Layout) -> None:
    [keys] = {tuple(k.secret for k in secrets_of(layout, node)) for node in layout.nodes}
    assert len(set(keys)) == len(keys) == 3
    for node in layout.nodes:
        directory = layout.data_root(node) / "worker"
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / "state").stat().st_mode) == 0o600
        log = layout.log(node).read_text()
        assert "Traceback" not in log
        for secret in keys:
            assert secret.hex()[:8] not in log
            assert repr(secret)[2:-1][:12] not in log


def _balances(layout: Layout, node: LocalNode) -> bool:
    return len({ask_task(layout, node) for _ in range(REPLICAS)}) == REPLICAS
