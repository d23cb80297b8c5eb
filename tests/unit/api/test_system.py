"""What a client asks first, versions, and everything that is not there."""

from __future__ import annotations

import pytest

from cluster.api.backend import LocalState, Membership
from cluster.model.ids import NodeId
from tests.unit.api.caller import Caller
from tests.unit.api.memory_backend import MemoryBackend

WORKER = Membership(LocalState.ACTIVE, NodeId("n2"), False, "10.9.0.2")


async def test_ping_tells_version_and_standing(outside: Caller) -> None:
    for method, body in (("GET", b"OK"), ("HEAD", b"")):
        async with outside.client.request(method, "/_ping") as response:
            assert response.status == 200
            assert await response.read() == body
            assert response.headers["Api-Version"] == "1.51"
            assert response.headers["Ostype"] == "linux"
            assert response.headers["Swarm"] == "inactive"
    await outside.post("/swarm/init", {})
    async with outside.client.get("/v1.24/_ping") as response:
        assert response.headers["Swarm"] == "active/manager"


async def test_info_outside_and_inside_a_cluster(outside: Caller) -> None:
    swarm = (await outside.get("/info"))["Swarm"]
    assert (swarm["LocalNodeState"], swarm["ControlAvailable"]) == ("inactive", False)
    assert swarm["RemoteManagers"] is None
    node_id = await outside.post("/swarm/init", {})
    info = await outside.get("/v1.51/info")
    swarm = info["Swarm"]
    assert (swarm["NodeID"], swarm["LocalNodeState"]) == (node_id, "active")
    assert (swarm["Nodes"], swarm["Managers"]) == (1, 1)
    assert swarm["RemoteManagers"] == [{"NodeID": node_id, "Addr": "10.9.0.1:2377"}]
    assert "JoinTokens" not in swarm["Cluster"]
    assert (info["NCPU"], info["ServerVersion"]) == (2, "0.1.0")


async def test_info_says_whether_limits_are_kept(outside: Caller, backend: MemoryBackend) -> None:
    for has_limits in (True, False):
        backend.has_limits = has_limits
        info = await outside.get("/info")
        assert {info["MemoryLimit"], info["CpuCfsPeriod"], info["CpuCfsQuota"]} == {has_limits}


async def test_info_needs_no_quorum(api: Caller, backend: MemoryBackend) -> None:
    backend.has_leader = False
    await api.get("/info")
    assert "The swarm does not have a leader." in await api.refused("GET", "/nodes", 503)


async def test_versions(outside: Caller) -> None:
    version = await outside.get("/version")
    assert (version["ApiVersion"], version["MinAPIVersion"]) == ("1.51", "1.24")
    assert "too new" in await outside.refused("GET", "/v1.52/version", 400)
    assert "too old" in await outside.refused("GET", "/v1.23/version", 400)
    assert "too new" in await outside.refused("GET", "/v99999999999.1/version", 400)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nothing"), ("GET", "/"), ("PUT", "/services"), ("GET", "/vx/info"),
     ("POST", "/v1.51/build")],
)  # fmt: skip
async def test_unknown_calls(outside: Caller, method: str, path: str) -> None:
    assert await outside.refused(method, path, 404) == "page not found"


@pytest.mark.parametrize(
    "path",
    ["/containers/web/json", "/images/web/json", "/images/a/b:1/json", "/volumes/web",
     "/plugins/web/json", "/networks/web", "/secrets/x", "/configs/x",
     "/distribution/host:latest/json", "/distribution/a/b/json"],
)  # fmt: skip
async def test_what_is_not_there_is_not_found(api: Caller, path: str) -> None:
    await api.refused("GET", path, 404)


async def test_empty_lists(api: Caller) -> None:
    for path in ("/containers/json", "/images/json", "/secrets", "/configs", "/plugins"):
        assert await api.get(path) == []
    assert (await api.get("/volumes"))["Volumes"] == []


async def test_secrets_and_containers_are_refused_clearly(api: Caller) -> None:
    for kind in ("secrets", "configs"):
        text = await api.refused("POST", f"/{kind}/create", 501, {"Name": "x", "Data": "aGk="})
        assert "not offered" in text
    assert "service create" in await api.refused("POST", "/containers/create", 501, {})


MANAGER_CALLS = [
    ("GET", "/swarm"), ("POST", "/swarm/update"), ("GET", "/swarm/unlockkey"),
    ("GET", "/nodes"), ("GET", "/nodes/x"), ("DELETE", "/nodes/x"),
    ("GET", "/services"), ("POST", "/services/create"), ("GET", "/services/x"),
    ("DELETE", "/services/x"), ("GET", "/services/x/logs"), ("POST", "/services/x/update"),
    ("GET", "/tasks"), ("GET", "/tasks/x"), ("GET", "/tasks/x/logs"),
    ("DELETE", "/networks/x"), ("GET", "/secrets"), ("GET", "/configs"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), MANAGER_CALLS)
async def test_only_managers_know_the_cluster(
    outside: Caller, backend: MemoryBackend, method: str, path: str
) -> None:
    text = await outside.refused(method, path, 503)
    assert text.startswith('This node is not a swarm manager. Use "docker swarm init"')
    backend.set_membership(WORKER)
    assert "Worker nodes can't be used" in await outside.refused(method, path, 503)
    backend.set_membership(Membership(LocalState.PENDING, NodeId("n2"), True))
    assert "Manager is being prepared" in await outside.refused(method, path, 503)
    backend.set_membership(Membership(LocalState.LOCKED, NodeId("n2"), True))
    assert "docker swarm unlock" in await outside.refused(method, path, 503)


async def test_overlay_networks_need_a_manager(outside: Caller) -> None:
    text = await outside.refused("POST", "/networks/create", 403, {"Name": "n"})
    assert text.startswith("This node is not a swarm manager.")
    assert await outside.get("/networks") == []
