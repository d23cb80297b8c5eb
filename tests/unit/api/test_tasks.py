"""Tasks, as clients poll them while they wait for a service."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.model.ids import TaskId
from cluster.model.task import TaskState, TaskStatus
from cluster.state.changes import PutTask, ReportStatus
from tests.unit.api.caller import Caller, filters, service_spec
from tests.unit.api.memory_backend import MemoryBackend


@pytest.fixture
async def web(api: Caller) -> str:
    """Return the id of a service of two tasks in the network shop."""
    await api.post("/networks/create", {"Name": "shop"}, 201)
    spec = service_spec(
        Mode={"Replicated": {"Replicas": 2}},
        Labels={"stack": "s"},
        Networks=[{"Target": "shop"}],
        EndpointSpec={"Ports": [{"TargetPort": 80, "PublishedPort": 81, "PublishMode": "host"}]},
    )
    return str((await api.post("/services/create", spec, 201))["ID"])


async def test_a_running_task(api: Caller, web: str) -> None:
    first, second = await api.get("/tasks")
    assert {first["Slot"], second["Slot"]} == {1, 2}
    task = await api.get(f"/tasks/{first['ID']}")
    assert task == first
    assert (task["ServiceID"], task["DesiredState"]) == (web, "running")
    assert task["Status"]["State"] == "running"
    assert task["Status"]["ContainerStatus"] == {
        "ContainerID": task["ID"],
        "PID": 42,
        "ExitCode": 0,
    }
    assert task["Status"]["PortStatus"]["Ports"][0]["PublishedPort"] == 81
    assert task["Spec"]["ContainerSpec"]["Image"] == "host"
    assert task["Spec"]["ContainerSpec"]["Args"] == ["sleep", "1000"]
    (attachment,) = task["NetworksAttachments"]
    assert attachment["Network"]["Spec"]["Name"] == "shop"
    assert attachment["Addresses"] == [f"10.0.1.{10 + task['Slot']}/24"]


async def test_filters(api: Caller, web: str) -> None:
    (first, _) = await api.get("/tasks")
    for wanted, count in (
        ({"service": [web]}, 2), ({"service": ["web"]}, 2), ({"service": ["nope"]}, 0),
        ({"desired-state": ["running"]}, 2), ({"desired-state": ["shutdown"]}, 0),
        ({"id": [first["ID"]]}, 1), ({"name": ["web.1"]}, 1), ({"node": ["n1"]}, 2),
        ({"node": [first["NodeID"]]}, 2), ({"label": ["stack=s"]}, 2), ({"label": ["x"]}, 0),
        ({"_up-to-date": ["true"], "service": [web]}, 2), ({"_up-to-date": ["false"]}, 0),
    ):  # fmt: skip
        assert len(await api.get("/tasks", filters=filters(**wanted))) == count, wanted
    for bad in ('{"desired-state":["happy"]}', '{"_up-to-date":["x"]}', '{"slot":["1"]}'):
        assert "invalid filter" in await api.refused("GET", "/tasks", 400, filters=bad)


@pytest.mark.usefixtures("web")
async def test_a_task_that_never_started(api: Caller, backend: MemoryBackend) -> None:
    (task, _) = [t for _, t in sorted(backend.snapshot().tasks.items())]
    failed = TaskStatus(TaskState.REJECTED, 1.0, "preparing", "command not found", 127)
    await backend.propose([ReportStatus(task.id, task.node, failed)])
    status = (await api.get(f"/tasks/{task.id}"))["Status"]
    assert (status["State"], status["Err"]) == ("rejected", "command not found")
    assert status["ContainerStatus"]["ExitCode"] == 127
    assert status["PortStatus"] == {}


async def test_out_of_date_tasks_are_told_apart(
    api: Caller, backend: MemoryBackend, web: str
) -> None:
    (task, _) = [t for _, t in sorted(backend.snapshot().tasks.items())]
    old = replace(
        task, id=TaskId("z" * 25), spec_version=0, spec=replace(task.spec, hostname="old")
    )
    await backend.commit([PutTask(old)])
    current = await api.get("/tasks", filters=filters(**{"_up-to-date": ["true"]}, service=[web]))
    assert old.id not in {t["ID"] for t in current}
    assert len(current) == 2
