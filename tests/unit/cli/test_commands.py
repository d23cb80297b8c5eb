"""Commands against a daemon: what they print, what they change, how they fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cluster.api.backend import LocalState
from cluster.cli.failure import EXIT_UNREACHABLE
from cluster.cli.main import main
from cluster.model.service import PublishMode, ServiceMode
from tests.unit.cli.conftest import Shell


async def test_swarm(outside: Shell) -> None:
    text = await outside.run("service", "ls", code=1)
    assert text.startswith("Error response from daemon: This node is not a swarm manager.")
    text = await outside.run("swarm", "init", "--task-history-limit", "2", "--advertise-addr", "lo")
    assert "is now a manager" in text
    assert "hivewire swarm join --token SWMTKN-1-w 10.9.0.1:2377" in text
    cluster = outside.backend.snapshot().cluster
    assert cluster is not None
    assert cluster.spec.task_history_limit == 2
    assert await outside.run("swarm", "join-token", "-q", "manager") == "SWMTKN-1-m\n"
    rotated = await outside.run("swarm", "join-token", "-q", "--rotate", "manager")
    assert rotated.startswith("SWMTKN-1-")
    assert rotated != "SWMTKN-1-m\n"
    await outside.run("swarm", "update", "--task-history-limit", "9", "--cert-expiry", "48h")
    cluster = outside.backend.snapshot().cluster
    assert cluster is not None
    assert cluster.spec.task_history_limit == 9
    assert cluster.spec.node_certificate_validity_s == 48 * 3600
    await outside.run("swarm", "update", code=2)
    assert "--force" in await outside.run("swarm", "leave", code=1)
    await outside.run("swarm", "leave", "--force")
    assert outside.backend.membership().state is LocalState.INACTIVE


async def test_gossip_keys_are_listed_and_rotated_without_their_secrets(outside: Shell) -> None:
    assert "not a swarm manager" in await outside.run("swarm", "keys", code=1)
    assert "not a swarm manager" in await outside.run("swarm", "keys", "rotate", code=1)
    await outside.run("swarm", "init", "--key-rotation", "6h")
    head, line = (await outside.run("swarm", "keys")).splitlines()
    assert head.split() == ["ID", "STATE", "SINCE"]
    assert line.startswith("1    Primary   ")
    assert line.endswith(" ago")
    text = await outside.run("swarm", "keys", "rotate", "--format", "{{.ID}} {{.State}}")
    assert text == "1 Primary\n2 Accept\n"
    assert "is under way already" in await outside.run("swarm", "keys", "rotate", code=1)
    assert "without their secrets" in await outside.run("swarm", "keys", "--help")
    assert "One rotation at a time" in await outside.run("swarm", "keys", "rotate", "--help")
    await outside.run("swarm", "update", "--key-rotation", "1h")
    cluster = outside.backend.snapshot().cluster
    assert cluster is not None
    assert cluster.spec.key_rotation_s == 3600
    assert len(cluster.gossip_keys) == 2


async def test_join_reads_the_token_from_stdin(outside: Shell) -> None:
    text = await outside.run("swarm", "join", "--token", "-", "10.9.0.9", stdin="SWMTKN-1-x\n")
    assert text == "This node joined a swarm as a worker.\n"
    (request,) = outside.backend.joined
    assert (request.remote_addresses, request.token) == (("10.9.0.9",), "SWMTKN-1-x")


async def test_service_create_with_every_option(shell: Shell) -> None:
    await shell.run("network", "create", "shop")
    await shell.run(
        "service", "create", "--detach", "--name", "web", "--replicas", "3", "--network",
        "name=shop,alias=front", "-p", "8080:80", "-p", "published=53,target=53,protocol=udp,"
        "mode=host", "-e", "A=1", "--label", "x=y", "--container-label", "c=d", "--constraint",
        "node.role==manager", "--placement-pref", "spread=node.labels.zone", "--host",
        "db:10.1.1.1", "--hostname", "h", "-u", "nobody", "-w", "/srv", "--stop-signal", "INT",
        "--stop-grace-period", "3s", "--limit-cpu", "0.5", "--limit-memory", "64M",
        "--reserve-cpu", "0.1", "--reserve-memory", "16M", "--restart-condition", "on-failure",
        "--restart-delay", "2s", "--restart-max-attempts", "3", "--restart-window", "1m",
        "--replicas-max-per-node", "9", "--endpoint-mode", "vip", "--update-parallelism", "2",
        "host", "sleep", "--", "-x", "--name",
    )  # fmt: skip
    (service,) = shell.backend.snapshot().services.values()
    spec, task = service.spec, service.spec.task
    assert (spec.name, spec.replicas, spec.labels) == ("web", 3, {"x": "y"})
    assert task.command == ("sleep", "--", "-x", "--name")
    assert [(p.protocol, p.published_port, p.mode) for p in spec.ports] == [
        ("tcp", 8080, PublishMode.INGRESS),
        ("udp", 53, PublishMode.HOST),
    ]
    assert task.networks[0].aliases == ("front",)
    assert (task.environment, task.labels) == ((("A", "1"),), {"c": "d"})
    assert task.hosts == (("10.1.1.1", "db"),)
    assert (task.stop_signal, task.stop_grace_s, task.working_directory) == ("SIGINT", 3.0, "/srv")
    assert (task.limits.nano_cpus, task.reservations.memory_bytes) == (500_000_000, 16 << 20)
    assert (task.restart.delay_s, task.restart.attempts_max, task.restart.window_s) == (2, 3, 60)
    assert task.placement.constraints == ("node.role==manager",)
    assert task.placement.spread_over == ("node.labels.zone",)
    text = await shell.run("service", "ls")
    assert text.splitlines()[1].split()[1:] == [
        "web", "replicated", "3/3", "(max", "9", "per", "node)", "host", "*:8080->80/tcp",
    ]  # fmt: skip


async def test_service_create_detached_prints_the_id(shell: Shell) -> None:
    text = await shell.run("service", "create", "--name", "web", "--quiet", "-d", "host", "sleep")
    assert len(text.strip()) == 25
    global_one = await shell.run("service", "create", "-d", "--mode", "global", "host", "sleep")
    service = shell.backend.snapshot().services
    assert any(
        s.id == global_one.strip() and s.spec.mode is ServiceMode.GLOBAL for s in service.values()
    )
    text = await shell.run(
        "service", "create", "--mode", "global", "--replicas", "2", "host", "x", code=2
    )
    assert "replicas can only be used" in text


async def test_service_update(shell: Shell) -> None:
    await shell.run("network", "create", "a")
    await shell.run("network", "create", "b")
    await shell.run(
        "service", "create", "-d", "--name", "web", "--network", "a", "-p", "8080:80", "-e", "A=1",
        "-e", "B=2", "-l", "x=y", "host", "sleep", "1",
    )  # fmt: skip
    await shell.run(
        "service", "update", "-d", "--args", "sleep '2 3'", "--env-add", "A=9", "--env-rm", "B",
        "--label-add", "z=1", "--label-rm", "x", "--network-add", "b", "--network-rm", "a",
        "--publish-add", "9090:90", "--publish-rm", "80", "--constraint-add", "node.id!=x",
        "--replicas", "2", "--limit-cpu", "1", "--force", "web",
    )  # fmt: skip
    snapshot = shell.backend.snapshot()
    (service,) = snapshot.services.values()
    spec, task = service.spec, service.spec.task
    assert task.command == ("sleep", "2 3")
    assert (task.environment, spec.labels) == ((("A", "9"),), {"z": "1"})
    assert [snapshot.networks[a.target].spec.name for a in task.networks] == ["b"]
    assert [p.published_port for p in spec.ports] == [9090]
    assert (spec.replicas, task.force_update) == (2, 1)
    assert task.placement.constraints == ("node.id!=x",)
    await shell.run("service", "rollback", "-d", "web")
    (service,) = shell.backend.snapshot().services.values()
    assert service.spec.task.command == ("sleep", "1")
    await shell.run("service", "scale", "-d", "web=7")
    assert "7/7" in await shell.run("service", "ls")
    await shell.run("service", "scale", "-d", "web=x", code=2)


async def test_inspect_ps_rm(shell: Shell) -> None:
    await shell.run("service", "create", "-d", "--name", "web", "host", "sleep")
    (value,) = json.loads(await shell.run("service", "inspect", "web"))
    assert value["Spec"]["Name"] == "web"
    assert await shell.run("service", "inspect", "--format", "{{.Spec.Name}}", "web") == "web\n"
    text = await shell.run("service", "ps", "web")
    assert text.splitlines()[1].split()[1:5] == ["web.1", "host", "n1", "Running"]
    (task_id,) = (await shell.run("service", "ps", "-q", "web")).split()
    assert task_id in await shell.run("task", "ls", "--no-trunc")
    assert "web.1" in await shell.run("node", "ps")
    assert await shell.run("task", "inspect", "--format", "{{.Slot}}", task_id) == "1\n"
    text = await shell.run("service", "rm", "web", "nope", code=1)
    assert text.splitlines() == ["web", "Error response from daemon: service nope not found"]


async def test_logs(shell: Shell) -> None:
    await shell.run("service", "create", "-d", "--name", "web", "host", "sleep")
    (task_id,) = (await shell.run("service", "ps", "-q", "web")).split()
    text = await shell.run("service", "logs", "web")
    assert text == f"web.1.{task_id}@n1 | hello\nweb.1.{task_id}@n1 | oh\n"
    assert await shell.run("service", "logs", "--raw", task_id) == "hello\noh\n"
    text = await shell.run("service", "logs", "--raw", "-t", "-n", "1", "web")
    assert text == "2023-11-14T22:13:20.000000001Z oh\n"
    text = await shell.run("service", "logs", "nope", code=1)
    assert text == "no such task or service: nope\n"


async def test_nodes(shell: Shell) -> None:
    text = await shell.run("node", "ls")
    assert text.splitlines()[1].split()[1:] == ["*", "n1", "Ready", "Active", "Leader", "0.1.0"]
    await shell.run("node", "update", "--availability", "drain", "--label-add", "a=b", "n1")
    assert await shell.run("node", "inspect", "--format", "{{json .Spec.Labels}}", "self") == (
        '{"a":"b"}\n'
    )
    assert "Drain" in await shell.run("node", "ls")
    await shell.run("node", "update", "--label-rm", "a", "n1")
    assert "must be demoted" in await shell.run("node", "rm", "n1", code=1)


async def test_networks(shell: Shell) -> None:
    await shell.run(
        "network", "create", "--subnet", "10.5.0.0/24", "--gateway", "10.5.0.9", "--label", "a=b",
        "--internal", "shop",
    )  # fmt: skip
    await shell.run(
        "network", "create", "--subnet", "10.6.0.0/24", "--subnet", "10.7.0.0/24", "two", code=2
    )
    text = await shell.run("network", "ls", "--filter", "label=a")
    assert text.splitlines()[1].split()[1:4] == ["shop", "overlay", "swarm"]
    assert '"Internal": true' in await shell.run("network", "inspect", "shop")
    await shell.run("network", "rm", "shop")
    await shell.run("network", "rm", "shop", code=1)
    await shell.run("network", "rm", "-f", "shop")
    assert "No port can be published" in await shell.run("network", "rm", "ingress", code=1)
    await shell.run("network", "rm", "ingress", stdin="y\n")
    await shell.run("network", "create", "idle")
    assert await shell.run("network", "prune", "-f") == "Deleted Networks:\nidle\n"


async def test_info_and_version(shell: Shell) -> None:
    text = await shell.run("info")
    assert "1, 1 of them managers" in text
    assert await shell.run("info", "--format", "{{.Swarm.LocalNodeState}}") == "active\n"
    assert "Server:  0.1.0" in await shell.run("version")
    assert await shell.run("version", "--format", "{{.Server.ApiVersion}}") == "1.51\n"


def test_no_daemon(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["-H", f"unix://{tmp_path}/none.sock", "service", "ls"])
    assert result.exit_code == EXIT_UNREACHABLE
    assert "Is the daemon running?" in result.output


@pytest.mark.parametrize("arguments", [["-H", "tcp://x:1", "info"], ["-H", "nonsense", "info"]])
async def test_other_hosts_are_refused(outside: Shell, arguments: list[str]) -> None:
    assert "only unix:" in await outside.run(*arguments, code=1)
