"""Output of services as frames."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.api.backend import TaskLogLine
from cluster.api.logs import frame, read_options_untrusted, read_time_ns_untrusted
from cluster.model.errors import Invalid
from cluster.model.ids import NodeId, ServiceId, TaskId
from cluster.model.logs import LogStream
from cluster.runtime.base import LogLine
from tests.unit.api.caller import Caller, service_spec
from tests.unit.api.memory_backend import MemoryBackend

LINE = TaskLogLine(TaskId("t"), NodeId("n"), LogLine(LogStream.STDERR, 1_500_000_000, b"oh\n"))


def test_a_frame_is_what_the_docker_cli_reads() -> None:
    assert frame(LINE, ServiceId("s")) == b"\x02\0\0\0\0\0\0\x03oh\n"
    assert frame(LINE, ServiceId("s"), details=True)[8:] == (
        b"com.docker.swarm.node.id=n,com.docker.swarm.service.id=s,com.docker.swarm.task.id=t oh\n"
    )
    assert frame(LINE, ServiceId("s"), timestamps=True)[8:] == (
        b"1970-01-01T00:00:01.500000000Z oh\n"
    )


async def read(api: Caller, path: str, **query: str) -> tuple[str, bytes]:
    async with api.client.get(path, params=query) as response:
        assert response.status == 200
        return response.headers["Content-Type"], await response.read()


async def test_logs_of_a_service_and_of_a_task(api: Caller) -> None:
    await api.post("/services/create", service_spec(Mode={"Replicated": {"Replicas": 2}}), 201)
    kind, data = await read(api, "/services/web/logs", stdout="1", stderr="1")
    assert kind == "application/vnd.docker.multiplexed-stream"
    assert data == 2 * (b"\x01\0\0\0\0\0\0\x06hello\n" + b"\x02\0\0\0\0\0\0\x03oh\n")
    kind, _ = await read(api, "/v1.41/services/web/logs", stdout="1")
    assert kind == "application/vnd.docker.raw-stream"
    task = (await api.get("/tasks"))[0]["ID"]
    _, data = await read(api, f"/tasks/{task}/logs", stdout="1", stderr="1", tail="1")
    assert data == b"\x02\0\0\0\0\0\0\x03oh\n"


async def test_following_a_service_goes_on_with_tasks_that_start_later(
    api: Caller, backend: MemoryBackend
) -> None:
    await api.post("/services/create", service_spec(), 201)
    query = {"stdout": "1", "follow": "1", "tail": "0"}
    async with api.client.get("/services/web/logs", params=query) as response:
        service = await api.get("/services/web")
        version = str(service["Version"]["Index"])
        scaled = service_spec(Mode={"Replicated": {"Replicas": 3}})
        await api.post("/services/web/update", scaled, version=version)
        line = b"\x01\0\0\0\0\0\0\x06hello\n"
        assert await response.content.readexactly(2 * len(line)) == 2 * line
        await api.delete("/services/web")
        assert await response.read() == b""
    assert not backend.snapshot().services


async def test_logs_refuse(api: Caller) -> None:
    await api.refused("GET", "/services/nope/logs", 404, stdout="1")
    await api.refused("GET", "/tasks/nope/logs", 404, stdout="1")
    await api.post("/services/create", service_spec(), 201)
    assert "one stream" in await api.refused("GET", "/services/web/logs", 400)
    await api.refused("GET", "/services/web/logs", 400, stdout="1", since="yesterday")


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [("", 0), ("0", 0), ("1.5", 1_500_000_000), ("1795377533", 1_795_377_533_000_000_000),
     ("1.000000001", 1_000_000_001), ("1970-01-01T00:00:02Z", 2_000_000_000),
     ("1970-01-01T01:00:02+01:00", 2_000_000_000), ("1970-01-01T00:00:02", 2_000_000_000)],
)  # fmt: skip
def test_times(text: str, time_ns: int) -> None:
    assert read_time_ns_untrusted(text) == time_ns


@given(st.text(max_size=30) | st.floats().map(str))
def test_any_time_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(Invalid):
        assert read_time_ns_untrusted(text) >= 0


@given(st.dictionaries(st.sampled_from(["stdout", "tail", "since", "follow"]), st.text()))
def test_any_query_is_read_or_refused(query: dict[str, str]) -> None:
    try:
        options = read_options_untrusted(query)
    except Invalid:
        return
    assert options.tail is None or options.tail >= 0
