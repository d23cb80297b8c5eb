"""docker-py against real daemons: what Docker's own SDK sends is understood, and reads back."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from datetime import UTC, datetime, timedelta

import docker
import docker.errors
import docker.types
import pytest

from cluster.local.layout import Layout
from tests.e2e.lab import local_cluster, needs_namespaces, short_directory, wait_until

pytestmark = [needs_namespaces, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def layout() -> Generator[Layout]:
    with local_cluster(short_directory(), managers=1, workers=1) as made:
        yield made


@pytest.fixture
def client(layout: Layout) -> Iterator[docker.DockerClient]:
    """Return docker-py on the manager; afterwards no services are left."""
    made = docker.DockerClient(base_url=f"unix://{layout.socket(layout.nodes[0])}")
    yield made
    for service in made.services.list():
        service.remove()
    made.close()


def test_system_and_swarm(client: docker.DockerClient) -> None:
    assert client.ping()
    assert client.version()["ApiVersion"] == "1.51"
    assert client.info()["Swarm"]["LocalNodeState"] == "active"
    assert set(client.swarm.attrs["JoinTokens"]) == {"Worker", "Manager"}
    client.swarm.update(rotate_worker_token=True, task_history_retention_limit=4)
    client.swarm.reload()
    assert client.swarm.attrs["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"] == 4


def test_nodes(client: docker.DockerClient) -> None:
    (node,) = client.nodes.list(filters={"role": "worker"})
    spec = {**node.attrs["Spec"], "Labels": {"zone": "a"}}
    assert node.update(spec)
    node.reload()
    assert node.attrs["Spec"] == spec


def test_service_life(client: docker.DockerClient) -> None:
    types = docker.types
    network = client.networks.create(
        "shop",
        driver="overlay",
        attachable=True,
        labels={"a": "b"},
        ipam=types.IPAMConfig(pool_configs=[types.IPAMPool(subnet="10.77.0.0/24")]),
    )
    assert network.attrs["IPAM"]["Config"][0]["Gateway"] == "10.77.0.1"
    service = client.services.create(
        "host",
        ["sh", "-c", "echo hi; exec sleep 1000"],
        name="web",
        networks=["shop"],
        env=["A=1"],
        labels={"x": "y"},
        mode=types.ServiceMode("replicated", 2),
        endpoint_spec=types.EndpointSpec(ports={8099: 80}),
        restart_policy=types.RestartPolicy("on-failure"),
        constraints=["node.platform.os == linux"],
        update_config=types.UpdateConfig(parallelism=2, order="start-first"),
    )
    spec = service.attrs["Spec"]
    assert spec["Mode"] == {"Replicated": {"Replicas": 2}}
    assert spec["UpdateConfig"]["Order"] == "start-first"
    assert "RollbackConfig" not in spec
    wait_until("both run", lambda: states(client) == ["running"] * 2)
    assert service.scale(3)
    wait_until("three run", lambda: states(client) == ["running"] * 3)
    service.reload()
    service.update(env=["B=2"])
    service.reload()
    assert service.attrs["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] == ["B=2"]
    assert service.attrs["PreviousSpec"]["TaskTemplate"]["ContainerSpec"]["Env"] == ["A=1"]
    wait_until("it says hi", lambda: b"hi\n" in b"".join(service.logs(stdout=True)))
    (listed,) = client.services.list(filters={"name": "web"}, status=True)
    assert listed.attrs["ServiceStatus"]["DesiredTasks"] == 3
    service.remove()
    network.remove()


def states(client: docker.DockerClient) -> list[str]:
    tasks = client.services.get("web").tasks(filters={"desired-state": "running"})
    return [task["Status"]["State"] for task in tasks]


def test_errors(client: docker.DockerClient) -> None:
    with pytest.raises(docker.errors.NotFound, match="service nope not found"):
        client.services.get("nope")
    with pytest.raises(docker.errors.APIError, match="must be 'host'"):
        client.services.create("alpine", "top")
    assert client.containers.list() == []
    assert client.images.list() == []


def test_events(client: docker.DockerClient) -> None:
    since = datetime.now(UTC)
    client.networks.create("events", driver="overlay").remove()
    until = datetime.now(UTC) + timedelta(seconds=2)
    events = client.events(
        decode=True,
        since=int(since.timestamp()),
        until=int(until.timestamp()),
        filters={"network": "events"},
    )
    actions = [event["Action"] for event in events]
    assert (actions[0], actions[-1]) == ("create", "remove")
