"""Overlay networks."""

from __future__ import annotations

import asyncio

import pytest

from cluster.model.task import TaskState, TaskStatus
from cluster.state.changes import DeleteService, ReportStatus
from tests.unit.api.caller import Caller, filters, service_spec
from tests.unit.api.memory_backend import MemoryBackend


async def create(api: Caller, name: str, **changes: object) -> str:
    answer = await api.post("/networks/create", {"Name": name, **changes}, 201)
    assert answer["Warning"] == ""
    return str(answer["Id"])


async def test_create_as_the_docker_cli_sends_it(api: Caller) -> None:
    network_id = await create(
        api, "net1", Driver="overlay", Scope="",
        IPAM={"Driver": "default", "Options": {}, "Config": [
            {"Subnet": "10.50.0.0/24", "Gateway": "10.50.0.1"}]},
        Internal=True, Attachable=True, Ingress=False, ConfigOnly=False, ConfigFrom=None,
        Options={}, Labels={"x": "y"}, EnableIPv6=False, EnableIPv4=True, CheckDuplicate=True,
    )  # fmt: skip
    network = await api.get("/networks/net1", scope="swarm")
    assert network["Id"] == network_id
    assert (network["Scope"], network["Driver"]) == ("swarm", "overlay")
    assert (network["Internal"], network["Attachable"], network["Ingress"]) == (True, True, False)
    assert network["Labels"] == {"x": "y"}
    assert network["Options"] == {"com.docker.network.driver.overlay.vxlanid_list": "4097"}
    await create(api, "net2", IPAM=None, Options=None, Labels=None)
    assert (await api.get("/networks/net2"))["IPAM"]["Config"][0]["Gateway"] == "10.0.2.1"


async def test_unknown_fields_are_told(api: Caller) -> None:
    body = {"Name": "n", "Labels": {"a": "b"}, "IPAM": {"Subnets": "10.9.0.0/24"}}
    answer = await api.post("/networks/create", body, 201)
    assert answer["Warning"] == "IPAM.Subnets is not known here and has no effect"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"Name": ""}, 400, "name must be provided"),
        ({}, 400, "name must be provided"),
        ({"Name": "a b"}, 400, "invalid network name"),
        ({"Name": "host"}, 403, "predefined host network"),
        ({"Name": "n", "Driver": "bridge"}, 400, "--driver overlay"),
        ({"Name": "n", "Scope": "local"}, 400, "scope"),
        ({"Name": "n", "Options": {"encrypted": ""}}, 501, "encrypted"),
        ({"Name": "n", "Options": {"com.docker.network.driver.mtu": "1"}}, 501, "mtu"),
        ({"Name": "n", "EnableIPv6": True}, 501, "IPv6"),
        ({"Name": "n", "EnableIPv4": False}, 400, "IPv4"),
        ({"Name": "n", "ConfigOnly": True}, 501, "configuration-only"),
        ({"Name": "n", "IPAM": {"Driver": "mine"}}, 400, "IPAM driver"),
        ({"Name": "n", "IPAM": {"Config": [{"Gateway": "10.1.0.1"}]}}, 400, "needs the subnet"),
        ({"Name": "n", "IPAM": {"Config": [{"Subnet": "ten"}]}}, 400, "subnet"),
        ({"Name": "n", "IPAM": {"Config": [{"Subnet": "100.64.0.0/24"}]}}, 400, "reserves"),
        ({"Name": "n", "IPAM": {"Config": [{"Subnet": "10.0.0.0/24"}]}}, 409, "overlaps"),
        ({"Name": "n", "Ingress": True, "Attachable": True}, 400, "attachable"),
        ({"Name": "ingress"}, 409, "network with name ingress already exists"),
        ({"Name": "Ingress"}, 409, "network with name ingress already exists"),
        ({"Name": "other", "Ingress": True}, 409, "already present"),
        ({"Name": 5}, 400, "Name must be a string"),
        ({"Name": "n", "Labels": {"a": 1}}, 400, "Labels.a must be a string"),
    ],
)
async def test_create_refuses(api: Caller, body: object, status: int, words: str) -> None:
    before = await api.get("/networks")
    assert words in await api.refused("POST", "/networks/create", status, body)
    assert await api.get("/networks") == before


async def test_list_and_filters(api: Caller) -> None:
    network_id = await create(api, "shop-front", Labels={"a": "b"})
    names = {n["Name"] for n in await api.get("/networks")}
    assert names == {"ingress", "shop-front"}
    for wanted, count in (
        ({"name": ["shop"]}, 1), ({"name": ["front"]}, 1), ({"id": [network_id[:5]]}, 1),
        ({"driver": ["overlay"]}, 2), ({"driver": ["bridge"]}, 0), ({"scope": ["local"]}, 0),
        ({"type": ["custom"]}, 1), ({"label": ["a=b"]}, 1), ({"label": ["a=c"]}, 0),
        ({"dangling": ["true"]}, 2),
    ):  # fmt: skip
        assert len(await api.get("/networks", filters=filters(**wanted))) == count, wanted
    await api.refused("GET", "/networks", 400, filters='{"dangling":["maybe"]}')


async def test_delete_and_prune(api: Caller) -> None:
    used = await create(api, "used")
    await create(api, "idle")
    await api.post("/services/create", service_spec(Networks=[{"Target": "used"}]), 201)
    assert "is in use by service" in await api.refused("DELETE", f"/networks/{used}", 400)
    assert await api.post("/networks/prune") == {"NetworksDeleted": ["idle"]}
    assert await api.post("/networks/prune") == {"NetworksDeleted": None}
    await api.delete("/services/web")
    await api.delete("/networks/used", 204)
    assert await api.refused("DELETE", "/networks/used", 404) == "network used not found"


async def test_inspect_shows_endpoints(api: Caller) -> None:
    network_id = await create(api, "shop")
    await api.post("/services/create", service_spec(Networks=[{"Target": network_id}]), 201)
    network = await api.get("/networks/shop", verbose="true")
    (endpoint,) = network["Containers"].values()
    assert endpoint["Name"].startswith("web.1.")
    assert endpoint["IPv4Address"] == "10.0.1.11/24"
    assert network["Services"]["web"]["Tasks"][0]["EndpointIP"] == "10.0.1.11"
    assert network["Peers"][0]["IP"] == "10.9.0.1"
    assert "Services" not in await api.get("/networks/shop")


async def test_there_is_nothing_to_connect(api: Caller) -> None:
    await create(api, "shop")
    await api.refused("POST", "/networks/shop/connect", 501, {"Container": "c1"})
    await api.refused("POST", "/networks/nope/connect", 404, {"Container": "c1"})


async def test_delete_waits_for_tasks_that_are_stopping(
    api: Caller, backend: MemoryBackend
) -> None:
    network_id = await create(api, "shop")
    await api.post("/services/create", service_spec(Networks=[{"Target": "shop"}]), 201)
    (service,) = backend.snapshot().services
    (task,) = backend.snapshot().tasks.values()
    await backend.commit([DeleteService(service)])  # the world has not reacted yet
    async with asyncio.TaskGroup() as tasks:
        deleting = tasks.create_task(api.delete(f"/networks/{network_id}", 204))
        await api.get("/networks/shop")
        ended = TaskStatus(TaskState.SHUTDOWN, 1.0)
        await backend.commit([ReportStatus(task.id, task.node, ended)])
        await deleting
    assert len(backend.snapshot().networks) == 1
