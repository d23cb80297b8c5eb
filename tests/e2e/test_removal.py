"""A node that was removed stays out, though it has its old certificate, its keys and its tasks."""

from __future__ import annotations

import json
import time
from collections.abc import Generator

import pytest

from cluster.agent.state_file import StateFile
from cluster.local.control import Request, ask
from cluster.local.demo import Api
from cluster.local.layout import Layout
from cluster.model.errors import ClusterError
from tests.e2e import liar
from tests.e2e.lab import (
    answer_at,
    broken_into,
    create_web,
    local_cluster,
    needs_namespaces,
    short_directory,
    wait_until,
)

pytestmark = [needs_namespaces, pytest.mark.timeout(180)]
REPLICAS = 4
MANAGERS = ("m1", "m2", "m3")
WATCHED_S = 3.0
"""Several lives of the liar, several rounds of gossip and of plans."""


@pytest.fixture(scope="module")
def layout() -> Generator[Layout]:
    with local_cluster(short_directory(), managers=3, workers=1) as made:
        create_web(Api(made.socket(made.nodes[0])), replicas=REPLICAS, port=8080)
        wait_until("all replicas answer", lambda: serves(made))
        yield made


def api_of(layout: Layout, name: str) -> Api:
    return Api(layout.socket(layout.node(name)))


def members(layout: Layout, name: str) -> dict[str, str]:
    """Return the states of all members, as one node believes them."""
    found = json.loads(api_of(layout, name).call("GET", "/hivewire/gossip/members"))
    return {member["ID"]: member["State"] for member in found}


def is_ready(api: Api, node: str) -> bool:
    """Tell whether the managers give tasks to a node."""
    state: str = json.loads(api.call("GET", f"/nodes/{node}"))["Status"]["State"]
    return state == "ready"


def visible(layout: Layout, name: str, owner: str) -> list[str]:
    """Return the tables in which a node sees records of `owner`."""
    logs = json.loads(api_of(layout, name).call("GET", "/hivewire/gossip/tables"))
    return [log["Scope"] for log in logs if log["Owner"] == owner and log["Visible"]]


def refused(layout: Layout) -> int:
    """Return how many lives and claims of removed nodes m1 has refused."""
    text = api_of(layout, "m1").call("GET", "/metrics").decode()
    line = next(x for x in text.splitlines() if "gossip_refused_total{" in x and "removed" in x)
    return int(float(line.split()[-1]))


def serves(layout: Layout) -> bool:
    """Tell whether each manager's published port leads to all tasks that run, and to no other."""
    running = {task.id for task in api_of(layout, "m1").running("web")}
    return len(running) == REPLICAS and all(
        {answer_at(layout, layout.node(name)) for _ in range(2 * REPLICAS)} == running
        for name in MANAGERS
    )


def check_it_stays_out(layout: Layout, gone: str) -> None:
    """Check, for a while, that no manager shows the removed node, its tasks or its endpoints."""
    until = time.monotonic() + WATCHED_S
    while time.monotonic() < until:
        for name in MANAGERS:
            assert members(layout, name).get(gone, "left") == "left"
            assert visible(layout, name, gone) == []
        running = {task.id: task.node for task in api_of(layout, "m1").running("web")}
        assert gone not in running.values()
        for name in MANAGERS:
            assert answer_at(layout, layout.node(name)) in running


def test_it_stays_out_whatever_it_does_until_it_joins_again(layout: Layout) -> None:
    api, worker = api_of(layout, "m1"), api_of(layout, "w1")
    token = json.loads(api.call("GET", "/swarm"))["JoinTokens"]["Worker"]
    gone = api.nodes()["w1"].id
    networks = json.loads(api.call("GET", "/networks"))
    shop = next(n["Id"] for n in networks if n["Name"] == "shop")
    state = StateFile(layout.data_root(layout.node("w1")) / "worker")
    wait_until("it is written", lambda: (kept := state.load().assignment) and kept.allocations)

    with broken_into(layout, "w1", liar.__name__, shop) as process:
        wait_until("it is alive", lambda: members(layout, "m1")[gone] == "alive")
        api.call("DELETE", f"/nodes/{gone}?force=1")
        for name in MANAGERS:
            wait_until("gone", lambda name=name: members(layout, name)[gone] == "left")  # type: ignore[misc]
        wait_until("others serve", lambda: serves(layout))
        check_it_stays_out(layout, gone)
        wait_until("it tries again and again", lambda: refused(layout) > 2)

        for name in MANAGERS:
            ask(layout.control_socket, Request(do="kill", node=name))
        for name in MANAGERS:
            ask(layout.control_socket, Request(do="start", node=name))
        for name in MANAGERS:
            wait_until("it gossips", lambda name=name: members(layout, name))  # type: ignore[misc]
        wait_until("they serve again", lambda: serves(layout))
        check_it_stays_out(layout, gone)
        wait_until("it tries again and again", lambda: refused(layout) > 2)
        assert process.poll() is None

    # Its daemon comes back, with all that it had when it was killed.
    tasks = layout.tasks(layout.node("w1"))
    wait_until("its tasks are stopped", lambda: not list(tasks.iterdir()))
    swarm = json.loads(worker.call("GET", "/info"))["Swarm"]
    assert "was removed from the swarm: leave it, and join again" in swarm["Error"]
    wait_until("it says so in gossip", lambda: members(layout, "w1")[gone] == "left")
    check_it_stays_out(layout, gone)

    worker.call("POST", "/swarm/leave?force=1")
    join = {
        "ListenAddr": "0.0.0.0:2377",
        "AdvertiseAddr": layout.node("w1").address,
        "RemoteAddrs": [f"{layout.node('m1').address}:2377"],
        "JoinToken": token,
    }
    worker.call("POST", "/swarm/join", join)
    fresh = api.nodes()["w1"].id
    assert fresh != gone
    for name in (*MANAGERS, "w1"):
        wait_until("it is back", lambda name=name: members(layout, name).get(fresh) == "alive")  # type: ignore[misc]
    wait_until("it is ready", lambda: is_ready(api, fresh))
    api.scale("web", 2 * REPLICAS)
    wait_until("it gets tasks", lambda: fresh in {task.node for task in api.running("web")})
    with pytest.raises(ClusterError, match=f"node {gone} not found"):
        api.call("GET", f"/nodes/{gone}")
    for node in layout.nodes:
        assert "Traceback" not in layout.log(node).read_text()
