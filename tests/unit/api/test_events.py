"""What happened between two snapshots, and the stream of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec

from cluster.api.event_diff import FILTERS, events_between, is_wanted
from cluster.api.filters import read_filters_untrusted
from cluster.model.node import NodeState
from cluster.state.changes import SetNodeState
from tests.unit.api.caller import Caller, service_spec
from tests.unit.api.memory_backend import START, MemoryBackend


async def test_events_of_a_service(api: Caller, backend: MemoryBackend) -> None:
    empty = backend.snapshot()
    await api.post("/services/create", service_spec(), 201)
    one = backend.snapshot()
    (created,) = events_between(empty, one, 5.0)
    assert (created.kind, created.action, created.time_ns) == ("service", "create", 5 * 10**9)
    assert created.attributes == {"name": "web"}
    (service,) = one.services.values()
    spec = replace(service.spec, replicas=3, task=replace(service.spec.task, image="/srv"))
    many = replace(one, services={service.id: replace(service, spec=spec)})
    (updated,) = events_between(one, many, 5.0)
    assert updated.attributes == {
        "name": "web", "replicas.old": "1", "replicas.new": "3", "image.old": "host",
        "image.new": "/srv",
    }  # fmt: skip
    (removed,) = events_between(many, empty, 5.0)
    assert (removed.action, removed.id) == ("remove", service.id)
    assert events_between(many, many, 5.0) == []


async def test_events_of_nodes_and_networks(api: Caller, backend: MemoryBackend) -> None:
    before = backend.snapshot()
    (node,) = before.nodes
    await backend.propose([SetNodeState(node, NodeState.DOWN, "gone")])
    (event,) = events_between(before, backend.snapshot(), 1.0)
    assert event.attributes == {"name": "n1", "state.old": "ready", "state.new": "down"}
    before = backend.snapshot()
    await api.post("/networks/create", {"Name": "shop"}, 201)
    kinds = [(e.kind, e.action) for e in events_between(before, backend.snapshot(), 1.0)]
    assert kinds == [("network", "create")]


async def test_filters(api: Caller, backend: MemoryBackend) -> None:
    before = backend.snapshot()
    await api.post("/services/create", service_spec(Labels={"a": "b"}), 201)
    (event,) = events_between(before, backend.snapshot(), 1.0)
    for text, wanted in (
        ("", True), ('{"type":["service"]}', True), ('{"type":["node"]}', False),
        ('{"scope":["swarm"]}', True), ('{"scope":["local"]}', False),
        ('{"service":["web"]}', True), ('{"service":["x"]}', False), ('{"node":["web"]}', False),
        ('{"event":["create","remove"]}', True), ('{"label":["a=b"]}', True),
        ('{"label":["a=c"]}', False), ('{"container":["web"]}', False),
    ):  # fmt: skip
        assert is_wanted(event, read_filters_untrusted(text, FILTERS)) is wanted, text


async def test_stream(api: Caller, backend: MemoryBackend) -> None:
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(api.events.run())
        async with api.client.get("/events", params={"filters": '{"type":["service"]}'}) as stream:
            await api.post("/networks/create", {"Name": "shop"}, 201)
            await api.post("/services/create", service_spec(), 201)
            event = msgspec.json.decode(await stream.content.readline())
            assert (event["Type"], event["Action"], event["scope"]) == (
                "service", "create", "swarm",
            )  # fmt: skip
            assert event["Actor"]["Attributes"]["name"] == "web"
        past = await _past(api, backend, since=str(START))
        assert [e["Type"] for e in past][:1] == ["network"]
        assert await _past(api, backend) == []
        watching.cancel()


async def _past(api: Caller, backend: MemoryBackend, **query: str) -> list[dict[str, object]]:
    until = str(backend.now())
    async with api.client.get("/events", params={**query, "until": until}) as response:
        assert response.status == 200
        lines = (await response.read()).splitlines()
    return [msgspec.json.decode(line) for line in lines]
