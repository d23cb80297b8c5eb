"""What an operator meets at night: nodes that leave, come back, or lose everything at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator

import pytest

from cluster.local.control import Request, ask
from cluster.local.demo import Api
from cluster.local.layout import Layout
from cluster.model.errors import ClusterError
from tests.e2e.lab import (
    create_web,
    local_cluster,
    needs_namespaces,
    short_directory,
    wait_until,
)

pytestmark = [needs_namespaces, pytest.mark.timeout(180)]
REPLICAS = 4


@pytest.fixture(scope="module")
def layout() -> Generator[Layout]:
    with local_cluster(short_directory(), managers=3, workers=1) as made:
        create_web(Api(made.socket(made.nodes[0])), replicas=REPLICAS, port=8080)
        yield made


def api_of(layout: Layout, name: str) -> Api:
    return Api(layout.socket(layout.node(name)))


def states(api: Api) -> list[tuple[str, str]]:
    nodes = json.loads(api.call("GET", "/nodes"))
    return sorted((n["Description"]["Hostname"], n["Status"]["State"]) for n in nodes)


def all_run(api: Api) -> bool:
    return len(api.running("web")) == REPLICAS


def test_a_worker_with_tasks_leaves_and_comes_back(layout: Layout) -> None:
    api, worker = api_of(layout, "m1"), api_of(layout, "w1")
    token = json.loads(api.call("GET", "/swarm"))["JoinTokens"]["Worker"]
    worker.call("POST", "/swarm/leave")
    wait_until("it is down", lambda: ("w1", "down") in states(api))
    wait_until("its tasks run elsewhere", lambda: all_run(api))
    assert not list(layout.tasks(layout.node("w1")).iterdir())

    join = {
        "ListenAddr": "0.0.0.0:2377",
        "AdvertiseAddr": layout.node("w1").address,
        "RemoteAddrs": [f"{layout.node('m1').address}:2377"],
    }
    with pytest.raises(ClusterError, match="cut short"):
        worker.call("POST", "/swarm/join", {**join, "JoinToken": token[:40]})
    worker.call("POST", "/swarm/join", {**join, "JoinToken": token})
    wait_until("it is ready", lambda: ("w1", "ready") in states(api))


def test_a_node_that_was_removed_by_force_stops_its_tasks(layout: Layout) -> None:
    api, worker = api_of(layout, "m1"), api_of(layout, "w1")
    token = json.loads(api.call("GET", "/swarm"))["JoinTokens"]["Worker"]
    api.scale("web", 2 * REPLICAS)  # so that it has some
    wait_until("it has tasks", lambda: list(layout.tasks(layout.node("w1")).iterdir()))
    nodes = json.loads(api.call("GET", "/nodes"))
    up = [n["ID"] for n in nodes
          if n["Description"]["Hostname"] == "w1" and n["Status"]["State"] == "ready"]  # fmt: skip
    api.call("DELETE", f"/nodes/{up[0]}?force=1")
    check_that_it_knows(layout, worker)
    join_again(layout, api, worker, token)


def check_that_it_knows(layout: Layout, worker: Api) -> None:
    """Check that w1 knows that it was removed: its tasks are gone, and it says so."""
    wait_until("its tasks are stopped", lambda: not list(layout.tasks(layout.node("w1")).iterdir()))
    swarm = json.loads(worker.call("GET", "/info"))["Swarm"]
    assert swarm["LocalNodeState"] == "error"
    assert "was removed from the swarm" in swarm["Error"]
    assert (
        "removed from the cluster, stopping all tasks" in layout.log(layout.node("w1")).read_text()
    )


def join_again(layout: Layout, api: Api, worker: Api, token: str) -> None:
    worker.call("POST", "/swarm/leave")
    join = {
        "ListenAddr": "0.0.0.0:2377",
        "AdvertiseAddr": layout.node("w1").address,
        "RemoteAddrs": [f"{layout.node('m1').address}:2377"],
        "JoinToken": token,
    }
    worker.call("POST", "/swarm/join", join)
    wait_until("it is ready again", lambda: ("w1", "ready") in states(api))
    api.scale("web", REPLICAS)
    wait_until("as many run as before", lambda: all_run(api))


def test_a_node_that_was_removed_while_it_was_off_is_told(layout: Layout) -> None:
    api, worker = api_of(layout, "m1"), api_of(layout, "w1")
    token = json.loads(api.call("GET", "/swarm"))["JoinTokens"]["Worker"]
    api.scale("web", 2 * REPLICAS)  # so that it has some
    wait_until("it has tasks", lambda: list(layout.tasks(layout.node("w1")).iterdir()))
    ask(layout.control_socket, Request(do="kill", node="w1"))  # its tasks run on
    wait_until("it is down", lambda: ("w1", "ready") not in states(api))
    nodes = json.loads(api.call("GET", "/nodes"))
    for node in nodes:
        if node["Description"]["Hostname"] == "w1":
            api.call("DELETE", f"/nodes/{node['ID']}?force=1")
    assert list(layout.tasks(layout.node("w1")).iterdir())

    ask(layout.control_socket, Request(do="start", node="w1"))
    check_that_it_knows(layout, worker)
    shown = subprocess.run(
        [sys.executable, "-m", "cluster.cli.main", "info"],
        env={**os.environ, "DOCKER_HOST": f"unix://{layout.socket(layout.node('w1'))}"},
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert "was removed from the swarm" in shown
    join_again(layout, api, worker, token)


def test_a_manager_that_leaves_is_down_and_no_member_of_raft(layout: Layout) -> None:
    api, leaver = api_of(layout, "m1"), api_of(layout, "m3")
    token = json.loads(api.call("GET", "/swarm"))["JoinTokens"]["Manager"]
    leaver.call("POST", "/swarm/leave?force=1")

    def standing() -> list[tuple[str, bool]]:
        nodes = json.loads(api.call("GET", "/nodes"))
        shown = [n for n in nodes if n["Description"]["Hostname"] == "m3"]
        return sorted((n["Status"]["State"], "ManagerStatus" in n) for n in shown)

    wait_until("it is down", lambda: standing() == [("down", False)])
    wait_until("all tasks run", lambda: all_run(api))
    join = {
        "ListenAddr": "0.0.0.0:2377",
        "AdvertiseAddr": layout.node("m3").address,
        "RemoteAddrs": [f"{layout.node('m1').address}:2377"],
        "JoinToken": token,
    }
    leaver.call("POST", "/swarm/join", join)
    wait_until("it manages again", lambda: standing() == [("down", False), ("ready", True)])


def test_without_quorum_the_api_says_so(layout: Layout) -> None:
    api = api_of(layout, "m1")
    for name in ("m2", "m3"):
        ask(layout.control_socket, Request(do="kill", node=name))
    with pytest.raises(ClusterError):
        api.call("POST", "/networks/create", {"Name": "late", "Driver": "overlay"})
    for name in ("m2", "m3"):
        ask(layout.control_socket, Request(do="start", node=name))
    wait_until("all tasks run", lambda: all_run(api))


def test_everything_is_killed_at_once(layout: Layout) -> None:
    for node in layout.nodes:
        ask(layout.control_socket, Request(do="kill", node=node.name, tasks=True))
    for node in layout.nodes:
        ask(layout.control_socket, Request(do="start", node=node.name))
    api = api_of(layout, "m1")
    wait_until("all tasks run again", lambda: all_run(api), seconds=60.0)
    logs = "".join(layout.log(node).read_text() for node in layout.nodes)
    assert "Traceback" not in logs
