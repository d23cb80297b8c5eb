"""A worker that is broken into: real daemons and kernels do not believe what it says of others."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections import Counter
from collections.abc import Generator

import pytest

from cluster.agent.state_file import StateFile
from cluster.local.control import Request, ask_with_socket
from cluster.local.demo import Api
from cluster.local.layout import Layout, LocalNode
from cluster.model.errors import ClusterError
from tests.e2e import liar
from tests.e2e.lab import (
    broken_into,
    create_web,
    local_cluster,
    needs_namespaces,
    short_directory,
    wait_until,
)

pytestmark = [needs_namespaces, pytest.mark.timeout(180)]
PORT = 8080
REPLICAS = 3
WATCHED_S = 2.0
"""Several rounds of gossip and of plans."""


@pytest.fixture(scope="module")
def layout() -> Generator[Layout]:
    with local_cluster(short_directory(), managers=1, workers=REPLICAS - 1) as made:
        api = Api(made.socket(made.nodes[0]))
        # So that each node gets a replica: the liar needs one of its own.
        wait_until("all nodes are ready", lambda: _ready(api) == REPLICAS)
        create_web(api, replicas=REPLICAS, port=PORT)
        yield made


def _ready(api: Api) -> int:
    return sum(node["Status"]["State"] == "ready" for node in json.loads(api.call("GET", "/nodes")))


def fetch(layout: Layout, node: LocalNode, port: int = PORT) -> str:
    """Return the name of the task that answers.

    The connection ends by a reset: the replica would keep one that ended in order (TIME_WAIT), meet
    the same client port by another entry with a challenge (RFC 5961), and the SYN repeated after it
    would be another turn of the round robin.
    """
    request = Request(do="connect", node=node.name, port=port)
    _, made = ask_with_socket(layout.control_socket, request)
    assert made is not None
    with made as connection:
        connection.settimeout(5.0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with connection.makefile("rb") as answer:
            body = answer.read().partition(b"\r\n\r\n")[2]
    name: str = json.loads(body)["task"]
    return name


def answers(layout: Layout, node: LocalNode) -> list[int]:
    return sorted(Counter(fetch(layout, node) for _ in range(4 * REPLICAS)).values())


def test_it_speaks_for_its_own_tasks_only(layout: Layout) -> None:
    api = Api(layout.socket(layout.nodes[0]))
    networks = json.loads(api.call("GET", "/networks"))
    shop = next(n["Id"] for n in networks if n["Name"] == "shop")
    honest = [layout.node("m1"), layout.node("w2")]
    fair = [4] * REPLICAS
    for node in honest:
        wait_until("all replicas answer", lambda node=node: answers(layout, node) == fair)  # type: ignore[misc]

    # The worker writes down what it was given within a second, and the liar reads it there.
    state = StateFile(layout.data_root(layout.node("w1")) / "worker")
    wait_until("it is written", lambda: (kept := state.load().assignment) and kept.allocations)

    with broken_into(layout, "w1", liar.__name__, shop) as process:
        for node in honest:
            log = layout.log(node)
            wait_until("it is named", lambda log=log: "have not allocated" in log.read_text())  # type: ignore[misc]
            # Its own tasks are hidden for a moment if it was slow to take the daemon's place.
            wait_until("its tasks serve", lambda node=node: answers(layout, node) == fair)  # type: ignore[misc]
        until = time.monotonic() + WATCHED_S
        while time.monotonic() < until:
            for node in honest:
                assert answers(layout, node) == fair
                with pytest.raises((ClusterError, OSError, socket.timeout)):
                    fetch(layout, node, liar.STOLEN_PORT)
        assert process.poll() is None

    assert len(api.running("web")) == REPLICAS
    for node in honest:
        assert "Traceback" not in layout.log(node).read_text()
