"""Command line options -> service spec, in the API's JSON.

`create` and `update` share the options that set one value; `update` has `-add` and `-rm` options
for lists. What is not given is not sent, so that the daemon's defaults stay the only ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import click

from cluster.cli.document import Document
from cluster.cli.values import (
    duration_ns,
    key_values,
    nano_cpus,
    networks,
    ports,
    size_bytes,
)

_Function = TypeVar("_Function", bound=Callable[..., Any])
Options = Mapping[str, object]

_SINGLE: Mapping[str, str] = {
    "hostname": "TaskTemplate.ContainerSpec.Hostname",
    "user": "TaskTemplate.ContainerSpec.User",
    "workdir": "TaskTemplate.ContainerSpec.Dir",
    "stop_signal": "TaskTemplate.ContainerSpec.StopSignal",
    "stop_grace_period": "TaskTemplate.ContainerSpec.StopGracePeriod",
    "limit_cpu": "TaskTemplate.Resources.Limits.NanoCPUs",
    "limit_memory": "TaskTemplate.Resources.Limits.MemoryBytes",
    "reserve_cpu": "TaskTemplate.Resources.Reservations.NanoCPUs",
    "reserve_memory": "TaskTemplate.Resources.Reservations.MemoryBytes",
    "restart_condition": "TaskTemplate.RestartPolicy.Condition",
    "restart_delay": "TaskTemplate.RestartPolicy.Delay",
    "restart_max_attempts": "TaskTemplate.RestartPolicy.MaxAttempts",
    "restart_window": "TaskTemplate.RestartPolicy.Window",
    "replicas_max_per_node": "TaskTemplate.Placement.MaxReplicas",
    "endpoint_mode": "EndpointSpec.Mode",
    "image": "TaskTemplate.ContainerSpec.Image",
    "args": "TaskTemplate.ContainerSpec.Args",
    "update_parallelism": "UpdateConfig.Parallelism",
    "update_delay": "UpdateConfig.Delay",
    "update_order": "UpdateConfig.Order",
}
"""Option -> where its value goes."""

_ENV = "TaskTemplate.ContainerSpec.Env"
_HOSTS = "TaskTemplate.ContainerSpec.Hosts"
_LABELS = "Labels"
_CONTAINER_LABELS = "TaskTemplate.ContainerSpec.Labels"
_CONSTRAINTS = "TaskTemplate.Placement.Constraints"
_PREFERENCES = "TaskTemplate.Placement.Preferences"
_NETWORKS = "TaskTemplate.Networks"
_PORTS = "EndpointSpec.Ports"


def single_options(function: _Function) -> _Function:
    """Add the options that set one value, for create and update."""
    order = click.Choice(["start-first", "stop-first"])
    for option in (
        click.option("--update-order", type=order, help="What comes first in an update."),
        click.option(
            "--update-delay", type=duration_ns, metavar="DURATION", help="Pause between updates."
        ),
        click.option("--update-parallelism", type=int, help="Tasks updated at once; 0: all."),
        click.option("--endpoint-mode", type=click.Choice(["vip", "dnsrr"])),
        click.option("--replicas-max-per-node", type=int, metavar="N"),
        click.option(
            "--restart-window",
            type=duration_ns,
            metavar="DURATION",
            help="Count attempts within this time.",
        ),
        click.option("--restart-max-attempts", type=int, metavar="N"),
        click.option(
            "--restart-delay", type=duration_ns, metavar="DURATION", help="Delay before a restart."
        ),
        click.option("--restart-condition", type=click.Choice(["none", "on-failure", "any"])),
        click.option(
            "--reserve-memory",
            type=size_bytes,
            metavar="SIZE",
            help="Memory to keep free for a task.",
        ),
        click.option(
            "--reserve-cpu", type=nano_cpus, metavar="CPUS", help="CPUs to keep free for a task."
        ),
        click.option(
            "--limit-memory", type=size_bytes, metavar="SIZE", help="Most memory a task may use."
        ),
        click.option(
            "--limit-cpu", type=nano_cpus, metavar="CPUS", help="Most CPUs a task may use."
        ),
        click.option(
            "--stop-grace-period",
            type=duration_ns,
            metavar="DURATION",
            help="Time from signal to kill.",
        ),
        click.option("--stop-signal", help="Signal that asks a task to stop."),
        click.option("-w", "--workdir", help="Working directory."),
        click.option("-u", "--user", help="User the task runs as: name, uid or uid:gid."),
        click.option("--hostname", help="Host name inside the task."),
        click.option("--replicas", type=click.IntRange(min=0), help="Number of tasks."),
    ):
        function = option(function)
    return function


def new_spec(image: str, command: Sequence[str], options: Options) -> dict[str, object]:
    """Return the spec that `service create` asks for."""
    spec: dict[str, object] = {}
    _put(spec, "TaskTemplate.ContainerSpec.Image", image)
    _put(spec, "TaskTemplate.ContainerSpec.Args", list(command))
    _put(spec, "Name", options["name"])
    if options["mode"] == "global":
        if options["replicas"] is not None:
            raise click.UsageError("replicas can only be used with replicated mode")
        _put(spec, "Mode.Global", {})
    else:
        _put(spec, "Mode.Replicated.Replicas", 1)
    lists = {
        _LABELS: key_values(texts(options, "label")),
        _CONTAINER_LABELS: key_values(texts(options, "container_label")),
        _ENV: [*_env_files(texts(options, "env_file")), *texts(options, "env")],
        _HOSTS: _hosts(texts(options, "host")),
        _CONSTRAINTS: texts(options, "constraint"),
        _PREFERENCES: _preferences(texts(options, "placement_pref")),
        _NETWORKS: networks(texts(options, "network")),
        _PORTS: ports(texts(options, "publish")),
    }
    for path, value in lists.items():
        if value:
            _put(spec, path, value)
    _put_single(spec, options)
    return spec


def changed_spec(spec: dict[str, object], options: Options) -> dict[str, object]:
    """Return the spec with what `service update` asks for. The argument is changed."""
    _put_single(spec, options)
    document = Document(spec)
    if options["force"]:
        path = "TaskTemplate.ForceUpdate"
        _put(spec, path, document.number(path) + 1)
    for path, name in ((_LABELS, "label"), (_CONTAINER_LABELS, "container_label")):
        added, removed = key_values(texts(options, f"{name}_add")), texts(options, f"{name}_rm")
        if added or removed:
            kept = {k: v for k, v in document.fields(path).items() if k not in removed}
            _put(spec, path, {**kept, **added})
    _change_texts(spec, options, _ENV, "env", lambda line: line.partition("=")[0])
    _change_texts(spec, options, _CONSTRAINTS, "constraint", lambda line: line)
    _change_networks(spec, options)
    _change_ports(spec, options)
    return spec


def _put_single(spec: dict[str, object], options: Options) -> None:
    for option, path in _SINGLE.items():
        value = options.get(option)
        if value is not None:
            _put(spec, path, value)
    if options.get("replicas") is not None:
        if Document(spec).get("Mode.Replicated") is None:
            raise click.UsageError("replicas can only be used with replicated mode")
        _put(spec, "Mode.Replicated.Replicas", options["replicas"])


def _change_texts(
    spec: dict[str, object], options: Options, path: str, name: str, key: Callable[[str], str]
) -> None:
    added, removed = texts(options, f"{name}_add"), texts(options, f"{name}_rm")
    if added or removed:
        gone = {*removed, *(key(text) for text in added)}
        kept = [text for text in Document(spec).texts(path) if key(text) not in gone]
        _put(spec, path, [*kept, *added])


def _change_networks(spec: dict[str, object], options: Options) -> None:
    added, removed = networks(texts(options, "network_add")), texts(options, "network_rm")
    if added or removed:
        attached = Document(spec).items(_NETWORKS)
        kept = [a.raw() for a in attached if a.text("Target") not in removed]
        _put(spec, _NETWORKS, [*kept, *added])


def _change_ports(spec: dict[str, object], options: Options) -> None:
    added, removed = ports(texts(options, "publish_add")), texts(options, "publish_rm")
    if added or removed:
        gone = {(n.partition("/")[0], n.partition("/")[2] or "tcp") for n in removed}
        kept: list[object] = []
        for port in Document(spec).items(_PORTS):
            protocol = port.text("Protocol") or "tcp"
            is_gone = (str(port.number("TargetPort")), protocol) in gone
            is_replaced = any(
                a["Protocol"] == protocol
                and a["TargetPort"] == port.number("TargetPort")
                and a.get("PublishedPort", 0) == port.number("PublishedPort")
                for a in added
            )
            if not is_gone and not is_replaced:
                kept.append(port.raw())
        _put(spec, _PORTS, [*kept, *added])


def texts(options: Options, name: str) -> list[str]:
    """Return the values of a repeated option."""
    value = options.get(name)
    return [str(item) for item in cast("tuple[object, ...]", value or ())]


def _hosts(values: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for value in values:
        name, colon, address = value.partition(":")
        if not colon:
            raise click.UsageError(f"invalid host {value!r}: use --host name:address")
        lines.append(f"{address} {name}")
    return lines


def _preferences(values: Sequence[str]) -> list[dict[str, object]]:
    preferences: list[dict[str, object]] = []
    for value in values:
        kind, equals, descriptor = value.partition("=")
        if kind != "spread" or not equals:
            raise click.UsageError(f"invalid preference {value!r}: use spread=node.labels.NAME")
        preferences.append({"Spread": {"SpreadDescriptor": descriptor}})
    return preferences


def _env_files(paths: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for path in paths:
        with click.open_file(path, encoding="utf-8") as file:
            text = "".join(file)
        stripped = (line.strip() for line in text.splitlines())
        lines += [line for line in stripped if line and not line.startswith("#")]
    return lines


def _put(spec: dict[str, object], path: str, value: object) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        inner = Document(spec).fields(parent)
        spec[parent] = inner
        spec = inner
    spec[last] = value
