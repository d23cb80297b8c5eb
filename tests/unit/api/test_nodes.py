"""Members of the cluster."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.model.ids import NodeId
from cluster.model.node import NodeState, Role
from cluster.state.changes import PutNode
from tests.unit.api.caller import Caller, filters
from tests.unit.api.memory_backend import MemoryBackend, make_node

W1, W2 = NodeId("w1" + "0" * 23), NodeId("w2" + "0" * 23)


@pytest.fixture
async def cluster(api: Caller, backend: MemoryBackend) -> Caller:
    """Return a cluster of a manager n1 and the workers w1 (down) and w2."""
    down = replace(make_node(W1, "w1", Role.WORKER, 2), state=NodeState.DOWN)
    await backend.propose([PutNode(down), PutNode(make_node(W2, "w2", Role.WORKER, 3))])
    return api


async def test_list(cluster: Caller) -> None:
    nodes = {n["Description"]["Hostname"]: n for n in await cluster.get("/nodes")}
    assert nodes["n1"]["ManagerStatus"] == {
        "Leader": True,
        "Reachability": "reachable",
        "Addr": "10.9.0.1:2377",
    }
    assert "ManagerStatus" not in nodes["w1"]
    assert nodes["w1"]["Status"] == {"State": "down", "Addr": "10.9.0.2"}
    assert nodes["w2"]["Spec"] == {"Labels": {}, "Role": "worker", "Availability": "active"}
    assert nodes["w2"]["Description"]["Resources"]["NanoCPUs"] == 2_000_000_000


async def test_manager_that_has_left_has_no_standing(
    cluster: Caller, backend: MemoryBackend
) -> None:
    left = make_node(NodeId("m9" + "0" * 23), "m9", Role.MANAGER, 9)
    await backend.propose([PutNode(replace(left, state=NodeState.DOWN))])
    shown = await cluster.get("/nodes/m9")
    assert shown["Status"]["State"] == "down"
    assert "ManagerStatus" not in shown


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"role": ["manager"]}, {"n1"}),
        ({"role": ["worker", "manager"]}, {"n1", "w1", "w2"}),
        ({"name": ["w"]}, {"w1", "w2"}),
        ({"id": ["w1"]}, {"w1"}),
        ({"name": ["w"], "id": ["w1"]}, {"w1"}),
        ({"membership": ["accepted"]}, {"n1", "w1", "w2"}),
        ({"node.label": ["zone"]}, set[str]()),
    ],
)
async def test_filters(cluster: Caller, wanted: dict[str, list[str]], names: set[str]) -> None:
    found = await cluster.get("/nodes", filters=filters(**wanted))
    assert {n["Description"]["Hostname"] for n in found} == names


@pytest.mark.parametrize("text", ['{"color":["red"]}', "x", "[]", '{"name":5}', '{"name":[1]}'])
async def test_bad_filters(cluster: Caller, text: str) -> None:
    assert "invalid filter" in await cluster.refused("GET", "/nodes", 400, filters=text)


async def test_inspect_by_name_and_prefix(cluster: Caller) -> None:
    for name in ("w1", W1, "w10"):
        assert (await cluster.get(f"/nodes/{name}"))["ID"] == W1
    assert await cluster.refused("GET", "/nodes/nope", 404) == "node nope not found"
    assert "ambiguous (2 matches found)" in await cluster.refused("GET", "/nodes/w", 400)


async def test_update_labels_and_availability(cluster: Caller) -> None:
    node = await cluster.get("/nodes/w2")
    spec = {"Labels": {"zone": "b"}, "Role": "worker", "Availability": "drain"}
    version = str(node["Version"]["Index"])
    await cluster.post(f"/nodes/{W2}/update", spec, version=version)
    assert (await cluster.get("/nodes/w2"))["Spec"] == spec
    assert await cluster.get("/nodes", filters=filters(**{"node.label": ["zone=b"]}))
    text = await cluster.refused("POST", f"/nodes/{W2}/update", 500, spec, version=version)
    assert text == "rpc error: code = Unknown desc = update out of sequence"


@pytest.mark.parametrize(
    ("spec", "status"),
    [({"Role": "manager"}, 501), ({"Role": "king"}, 400), ({"Availability": "off"}, 400),
     ({"Labels": {"a": 5}}, 400), ({"Labels": []}, 400)],
)  # fmt: skip
async def test_update_refuses(cluster: Caller, spec: object, status: int) -> None:
    version = str((await cluster.get("/nodes/w2"))["Version"]["Index"])
    await cluster.refused("POST", f"/nodes/{W2}/update", status, spec, version=version)


async def test_remove(cluster: Caller, backend: MemoryBackend) -> None:
    assert "is not down" in await cluster.refused("DELETE", "/nodes/w2", 400)
    assert "must be demoted" in await cluster.refused("DELETE", "/nodes/n1", 400, force="1")
    await cluster.delete("/nodes/w1")
    await cluster.delete("/nodes/w2", force="1")
    assert len(await cluster.get("/nodes")) == 1
    assert set(backend.snapshot().removed) == {W1, W2}
