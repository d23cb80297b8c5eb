"""Docker's own command line against real daemons: one manager, one worker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cluster.local.layout import Layout
from tests.e2e.lab import local_cluster, needs_namespaces, short_directory, wait_until

pytestmark = [
    needs_namespaces,
    pytest.mark.timeout(180),
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker command"),
]

FAST = ("--detach", "--quiet", "--no-resolve-image")
SLEEP = ("host", "sleep", "1000")


class Docker:
    """Runs the docker command against one node."""

    def __init__(self, layout: Layout, node: int, config: Path) -> None:
        self._environment = {
            **os.environ,
            "DOCKER_HOST": f"unix://{layout.socket(layout.nodes[node])}",
            "DOCKER_CONFIG": str(config),
        }

    def run(self, *arguments: str, code: int = 0) -> str:
        """Return what the command printed, standard error first, checked for its exit code."""
        done = subprocess.run(
            ["docker", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == code, done.stderr + done.stdout
        return done.stderr + done.stdout

    def __call__(self, *arguments: str, code: int = 0) -> str:
        return self.run(*arguments, code=code).strip()

    def replicas(self, name: str) -> str:
        return self("service", "ls", "--filter", f"name={name}", "--format", "{{.Replicas}}")

    def wait_for(self, name: str, replicas: str) -> None:
        wait_until(f"{name} has {replicas}", lambda: self.replicas(name) == replicas)

    def nodes_of(self, name: str) -> set[str]:
        """Return the names of the nodes where the service's tasks run."""
        text = self(
            "service", "ps", "--filter", "desired-state=running", "--format", "{{.Node}}", name
        )
        return set(text.split())


@pytest.fixture(scope="module")
def layout() -> Generator[Layout]:
    with local_cluster(short_directory(), managers=1, workers=1) as made:
        yield made


@pytest.fixture(scope="module")
def docker(layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Docker:
    """Return docker's command line on the manager."""
    return Docker(layout, 0, tmp_path_factory.mktemp("docker"))


@pytest.fixture
def clean(docker: Docker) -> Iterator[Docker]:
    """Return docker's command line; afterwards no services and no networks are left."""
    yield docker
    services = docker("service", "ls", "-q").split()
    if services:
        docker("service", "rm", *services)
    networks = docker("network", "ls", "-q", "--filter", "type=custom").split()
    if networks:
        docker("network", "rm", *networks)


def test_version_and_info(docker: Docker) -> None:
    assert docker("version", "--format", "{{.Server.Platform.Name}}") == "hivewire"
    info = json.loads(docker("info", "--format", "{{json .Swarm}}"))
    assert (info["LocalNodeState"], info["ControlAvailable"]) == ("active", True)
    assert (info["Nodes"], info["Managers"]) == (2, 1)


def test_a_worker_says_that_it_is_one(layout: Layout, tmp_path: Path) -> None:
    worker = Docker(layout, 1, tmp_path)
    assert worker("info", "--format", "{{.Swarm.ControlAvailable}}") == "false"
    assert "Worker nodes can't be used" in worker("node", "ls", code=1)


def test_nodes(docker: Docker) -> None:
    manager, worker = docker("node", "ls", "--format", "{{.Hostname}}").split()
    assert "Leader" in docker("node", "ls", "--filter", "role=manager")
    docker("node", "update", "--label-add", "zone=a", worker)
    assert docker("node", "inspect", "--format", "{{.Spec.Labels.zone}}", worker) == "a"
    assert manager in docker("node", "inspect", "--pretty", "self")
    docker("node", "update", "--label-rm", "zone", worker)
    assert "not down" in docker("node", "rm", worker, code=1)


def test_create_converges_and_is_shown_everywhere(clean: Docker) -> None:
    clean("network", "create", "-d", "overlay", "--label", "a=b", "shop")
    text = clean(
        "service", "create", "--name", "web", "--replicas", "2", "--network", "shop",
        "--publish", "8081:80", "--env", "A=1", "--update-monitor", "1s", *SLEEP,
    )  # fmt: skip
    assert "overall progress: 2 out of 2 tasks" in text
    assert "converged" in text
    assert "*:8081->80/tcp" in clean("service", "ls")
    assert "web.1" in clean("service", "ps", "web")
    assert "A=1" in clean("service", "inspect", "--pretty", "web")
    network = json.loads(clean("network", "inspect", "--verbose", "shop"))[0]
    assert len(network["Services"]["web"]["Tasks"]) == 2
    assert clean("inspect", "--format", "{{.Spec.Name}}", "web") == "web"


def test_scale_update_rollback(clean: Docker) -> None:
    clean("service", "create", *FAST, "--name", "web", *SLEEP)
    clean.wait_for("web", "1/1")
    clean("service", "scale", "--detach", "web=3")
    clean.wait_for("web", "3/3")
    clean("service", "update", *FAST, "--env-add", "B=2", "--label-add", "x=y", "web")
    spec = json.loads(clean("service", "inspect", "web"))[0]["Spec"]
    assert spec["Labels"] == {"x": "y"}
    assert spec["TaskTemplate"]["ContainerSpec"]["Env"] == ["B=2"]
    wait_until(
        "old tasks are replaced", lambda: clean("service", "ps", "web").count("Shutdown") >= 3
    )
    clean("service", "rollback", "--detach", "web")
    spec = json.loads(clean("service", "inspect", "web"))[0]["Spec"]
    assert "Env" not in spec["TaskTemplate"]["ContainerSpec"]
    clean("service", "update", *FAST, "--force", "web")
    clean.wait_for("web", "3/3")


def test_global_service_and_drain(clean: Docker) -> None:
    clean("service", "create", *FAST, "--name", "everywhere", "--mode", "global", *SLEEP)
    clean("service", "create", *FAST, "--name", "web", "--replicas", "4", *SLEEP)
    clean.wait_for("everywhere", "2/2")
    clean.wait_for("web", "4/4")
    assert len(clean.nodes_of("web")) == 2
    worker = clean("node", "ls", "--filter", "role=worker", "--format", "{{.Hostname}}")
    clean("node", "update", "--availability", "drain", worker)
    clean.wait_for("everywhere", "1/1")
    wait_until("web has left", lambda: worker not in clean.nodes_of("web"))
    clean.wait_for("web", "4/4")
    clean("node", "update", "--availability", "active", worker)
    clean.wait_for("everywhere", "2/2")


def test_logs_of_all_nodes(clean: Docker) -> None:
    command = "echo from $HOSTNAME; echo trouble >&2; exec sleep 1000"
    clean("service", "create", *FAST, "--name", "talk", "--mode", "global", "host", "sh", "-c",
          command)  # fmt: skip
    clean.wait_for("talk", "2/2")
    wait_until("logs are complete", lambda: len(clean("service", "logs", "talk").splitlines()) == 4)
    lines = clean("service", "logs", "talk").splitlines()
    assert sum("trouble" in line for line in lines) == 2
    assert len({line.split("|")[0].split("@")[1].strip() for line in lines}) == 2
    assert len(clean("service", "logs", "--raw", "--tail", "1", "talk").splitlines()) == 2


def test_a_command_that_fails_is_told(clean: Docker) -> None:
    clean("service", "create", *FAST, "--name", "bad", "--restart-condition", "none", "host",
          "/no/such/command")  # fmt: skip
    wait_until("it is refused", lambda: "ejected" in clean("service", "ps", "bad"))
    assert "/no/such/command" in clean("service", "ps", "--no-trunc", "bad")


def test_errors_in_swarms_words(clean: Docker) -> None:
    clean("network", "create", "-d", "overlay", "shop")
    clean("service", "create", *FAST, "--name", "web", "--network", "shop", "-p", "8082:80", *SLEEP)
    for arguments, words in (
        (("service", "create", *FAST, "--name", "web", *SLEEP), "service web already exists"),
        (("service", "create", *FAST, "-p", "8082:80", *SLEEP), "port '8082' is already in use"),
        (("service", "create", *FAST, "--network", "no", *SLEEP), "network no not found"),
        (("service", "create", *FAST, "alpine", "top"), "must be 'host'"),
        (("service", "create", *FAST, "host"), "a command is required"),
        (("service", "inspect", "nope"), "no such service: nope"),
        (("network", "rm", "shop"), "is in use by service"),
        (("network", "create", "-d", "overlay", "shop"), "network with name shop already exists"),
        (("swarm", "init"), "already part of a swarm"),
        (("swarm", "leave"), "participating as a manager"),
    ):
        assert words in clean(*arguments, code=1)


def test_a_spec_of_ten_megabytes_is_refused(clean: Docker, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("".join(f"A{n}={'x' * 50_000}\n" for n in range(200)))
    text = clean("service", "create", *FAST, "--env-file", str(file), *SLEEP, code=1)
    assert "Error response from daemon: the request body is larger than 4194304 bytes" in text
    assert clean("service", "ls", "--quiet") == ""


def test_other_host_ports_are_other_tasks(clean: Docker) -> None:
    ports = "--format={{range .Status.PortStatus.Ports}}{{.PublishedPort}} {{end}}"
    publish = "mode=host,target=80,published="
    clean("service", "create", *FAST, "--name", "web", "-p", f"{publish}8090", *SLEEP)
    clean.wait_for("web", "1/1")
    (first,) = running(clean, "web")
    assert clean("inspect", ports, first) == "8090"

    clean(
        "service", "update", *FAST, "--publish-rm", "80", "--publish-add", f"{publish}8091", "web"
    )

    wait_until("another task runs", lambda: len(set(running(clean, "web")) - {first}) == 1)
    (second,) = set(running(clean, "web")) - {first}
    wait_until("it has the port", lambda: clean("inspect", ports, second) == "8090 8091")


def running(docker: Docker, name: str) -> list[str]:
    wanted = ("--no-trunc", "--quiet", "--filter", "desired-state=running")
    return docker("service", "ps", *wanted, name).split()


def test_tokens(docker: Docker) -> None:
    first = docker("swarm", "join-token", "--quiet", "worker")
    assert first.startswith("SWMTKN-1-")
    docker("swarm", "join-token", "--rotate", "worker")
    assert docker("swarm", "join-token", "--quiet", "worker") != first
    assert "BEGIN CERTIFICATE" in docker("swarm", "ca")


def test_stack(clean: Docker, tmp_path: Path) -> None:
    file = tmp_path / "stack.json"
    file.write_text(json.dumps({
        "version": "3.8",
        "networks": {"front": {"driver": "overlay"}},
        "services": {"web": {
            "image": "host", "command": ["sleep", "1000"], "networks": ["front"],
            "ports": ["8083:80"], "environment": {"A": "1"}, "deploy": {"replicas": 2},
        }},
    }))  # fmt: skip
    for _ in range(2):
        clean("stack", "deploy", "--resolve-image", "never", "-c", str(file), "st")
    clean.wait_for("st_web", "2/2")
    assert clean("stack", "ls", "--format", "{{.Name}} {{.Services}}") == "st 1"
    assert "st_web.1" in clean("stack", "ps", "st")
    clean("stack", "rm", "st")
    assert "st_front" not in clean("network", "ls")


def test_events(clean: Docker) -> None:
    service = clean("service", "create", *FAST, "--name", "web", *SLEEP)
    clean("service", "rm", "web")
    until = int(datetime.now(UTC).timestamp()) + 2
    # By its identity, not by when it was made: the machine's clock may be set back meanwhile.
    text = clean(
        "events", "--since", "1", "--until", str(until), "--filter", f"service={service}"
    )  # fmt: skip
    lines = text.splitlines()
    assert "service create" in lines[0]
    assert "service remove" in lines[-1]
    assert "(name=web" in lines[0]
