"""What a user asks to run -> ServiceSpec (pure).

What Docker offers and hivewire does not is refused, never ignored, when ignoring it would change
what the task may do or see (mounts, capabilities, health checks, ...). Checks that need the state
(networks, ports of other services) are in `api.services`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import TypeVar

import msgspec

from cluster.api.docker_json.canonical import canonical, unknown_warnings
from cluster.api.docker_json.fields import UINT64_MAX, Fields, Json, as_list, as_object
from cluster.api.docker_json.text import check_dns_name, check_service_name, signal_name
from cluster.model.errors import Invalid, Unimplemented
from cluster.model.ids import NetworkId
from cluster.model.service import (
    EndpointMode,
    NetworkAttachmentSpec,
    Placement,
    PortSpec,
    PublishMode,
    Resources,
    RestartCondition,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)

REPLICAS_MAX = 10_000
"""More tasks than that in one service is a slip of the keyboard."""
CPU_NANOS_MIN = 1_000_000
"""0.001 CPU (swarmkit controlapi/service.go)."""
MEMORY_BYTES_MIN = 4 * 1024 * 1024
PORT_MAX = 65535
HOST_IMAGE = "host"
"""The machine's own file system."""
_INVALID = "rpc error: code = InvalidArgument desc = "

_NOT_OFFERED = (
    "Mounts", "Secrets", "Configs", "Healthcheck", "DNSConfig", "Privileges", "Groups", "TTY",
    "OpenStdin", "ReadOnly", "CapabilityAdd", "CapabilityDrop", "Sysctls", "Ulimits",
    "OomScoreAdj",
)  # fmt: skip
"""ContainerSpec keys that the process runtime cannot honour (yet)."""

_Member = TypeVar("_Member", EndpointMode, PublishMode, RestartCondition)


def read_service_spec(body: Json) -> ServiceSpec:
    """Return the spec in a create or update request; its networks' targets are still as sent.

    Raises:
        Invalid, Unimplemented: with the words that the user reads.
    """
    value = _with_defaults(canonical(body))
    spec = Fields(value)
    name = spec.text("Name")
    check_service_name(name)
    mode, replicas = _mode(spec.fields("Mode"))
    endpoint = spec.fields("EndpointSpec")
    endpoint_mode = _choice(EndpointMode, endpoint, "Mode", EndpointMode.VIP)
    return ServiceSpec(
        name=name,
        task=_task(spec.fields("TaskTemplate"), spec),
        labels=spec.text_map("Labels"),
        mode=mode,
        replicas=replicas,
        endpoint_mode=endpoint_mode,
        ports=_ports(endpoint, endpoint_mode),
        docker=msgspec.json.encode(value).decode(),
    )


def _with_defaults(value: Json) -> Json:
    """Fill what Swarm fills in a stored spec, and what clients take for granted."""
    filled: Json = {"Name": "", "Labels": {}, "TaskTemplate": {}, **value}
    mode = as_object(filled.get("Mode") or {"Replicated": {}})
    if mode is not None:
        replicated = as_object(mode.get("Replicated"))
        if replicated is not None:
            mode = {**mode, "Replicated": {"Replicas": 1, **replicated}}
        filled["Mode"] = mode
    task = as_object(filled["TaskTemplate"])
    if task is not None:
        filled["TaskTemplate"] = {"ForceUpdate": 0, "Runtime": "container", **task}
    return filled


def _mode(mode: Fields) -> tuple[ServiceMode, int]:
    kinds = [
        k for k in mode.present() if k in ("Replicated", "Global", "ReplicatedJob", "GlobalJob")
    ]
    if len(kinds) > 1:
        raise Invalid("must specify only one service mode")
    match kinds:
        case ["Replicated"]:
            replicas = mode.fields("Replicated").integer("Replicas", 1, maximum=UINT64_MAX)
            if replicas > REPLICAS_MAX:
                raise Invalid(f"a service can have at most {REPLICAS_MAX} replicas, not {replicas}")
            return ServiceMode.REPLICATED, replicas
        case ["Global"]:
            mode.fields("Global")
            return ServiceMode.GLOBAL, 1
        case ["ReplicatedJob" | "GlobalJob"]:
            raise Unimplemented("jobs are not offered yet: use --mode replicated or global")
        case _:
            raise Invalid(f"unknown service mode: {', '.join(mode.present())}")


def _task(task: Fields, spec: Fields) -> TaskSpec:
    runtime = task.text("Runtime")
    if runtime not in ("", "container") or task.has("PluginSpec"):
        raise Unimplemented(f"task runtime {runtime or 'plugin'!r} is not offered")
    container = task.fields("ContainerSpec")
    _refuse_what_is_not_offered(container)
    resources = task.fields("Resources")
    # Clients before API 1.25 put the networks beside the task template.
    networks = task if task.items("Networks") else spec
    return TaskSpec(
        image=image(container.text("Image")),
        command=_command(container),
        environment=_environment(container),
        working_directory=_working_directory(container),
        hostname=_hostname(container),
        user=container.text("User"),
        labels=container.text_map("Labels"),
        hosts=_hosts(container),
        stop_signal=signal_name(container.text("StopSignal") or "SIGTERM"),
        stop_grace_s=container.seconds("StopGracePeriod", 10.0),
        limits=_resources(resources.fields("Limits")),
        reservations=_resources(resources.fields("Reservations")),
        restart=_restart(task.fields("RestartPolicy")),
        placement=_placement(task.fields("Placement")),
        networks=_networks(networks),
        force_update=task.integer("ForceUpdate", maximum=UINT64_MAX),
    )


def image(reference: str) -> str:
    """Return what the process runtime calls an image: `host` or an absolute directory path.

    Docker's clients make `host:latest` or `host@sha256:…` of `host`; all mean the same.

    Raises:
        Invalid: it is neither.
    """
    if not reference:
        raise Invalid(f"{_INVALID}ContainerSpec: image reference must be provided")
    if reference.startswith("/"):
        return reference
    if reference.partition("@")[0].partition(":")[0] == HOST_IMAGE:
        return HOST_IMAGE
    raise Invalid(
        f"image {reference!r}: tasks run as processes, so the image must be 'host' (this "
        "machine's file system) or the absolute path of a root directory"
    )


def _command(container: Fields) -> tuple[str, ...]:
    command = (*container.texts("Command"), *container.texts("Args"))
    if not command or not command[0]:
        raise Invalid(
            "a command is required: tasks run as processes, and no image says what to start"
        )
    return command


def _environment(container: Fields) -> tuple[tuple[str, str], ...]:
    variables: dict[str, str] = {}
    for line in container.texts("Env"):
        name, _, value = line.partition("=")
        if not name:
            raise Invalid(f"{container.path('Env')}: {line!r} has no variable name")
        _refuse_template(container.path("Env"), value)
        variables[name] = value
    return tuple(variables.items())


def _working_directory(container: Fields) -> str:
    directory = container.text("Dir")
    if directory and not directory.startswith("/"):
        raise Invalid(f"the working directory {directory!r} must be an absolute path")
    return directory


def _hostname(container: Fields) -> str:
    name = container.text("Hostname")
    _refuse_template(container.path("Hostname"), name)
    if name:
        check_dns_name(container.path("Hostname"), name)
    return name


def _refuse_template(path: str, value: str) -> None:
    if "{{" in value:
        raise Unimplemented(f"{path}: templates ({{{{…}}}}) are not offered yet")


def _hosts(container: Fields) -> tuple[tuple[str, str], ...]:
    lines: list[tuple[str, str]] = []
    for line in container.texts("Hosts"):
        address, *names = line.split()
        try:
            ip_address(address)
        except ValueError:
            raise Invalid(f"{container.path('Hosts')}: {line!r}: no IP address") from None
        lines.extend((address, name) for name in names)
    return tuple(lines)


def _refuse_what_is_not_offered(container: Fields) -> None:
    for key in _NOT_OFFERED:
        if _asks_for_something(container.raw().get(key)):
            raise Unimplemented(f"{container.path(key)} is not offered by the process runtime yet")


def _asks_for_something(value: object) -> bool:
    inner = as_object(value)
    if inner is not None:
        return any(_asks_for_something(item) for item in inner.values())
    return bool(as_list(value) != ["NONE"] and value)  # ["NONE"]: a health check switched off


def _resources(resources: Fields) -> Resources:
    cpus = resources.integer("NanoCPUs")
    memory = resources.integer("MemoryBytes")
    if 0 < cpus < CPU_NANOS_MIN:
        raise Invalid(
            f"{_INVALID}invalid cpu value {cpus / 1e9:g}: Must be at least {CPU_NANOS_MIN / 1e9:g}"
        )
    if 0 < memory < MEMORY_BYTES_MIN:
        raise Invalid(f"{_INVALID}invalid memory value {memory}: Must be at least 4MiB")
    for key in ("GenericResources", "Pids"):
        if _asks_for_something(resources.raw().get(key)):
            raise Unimplemented(f"{resources.path(key)} is not offered yet")
    return Resources(nano_cpus=cpus, memory_bytes=memory)


def _restart(policy: Fields) -> RestartPolicy:
    return RestartPolicy(
        condition=_choice(RestartCondition, policy, "Condition", RestartCondition.ANY),
        delay_s=policy.seconds("Delay", 5.0),
        attempts_max=policy.integer("MaxAttempts", maximum=UINT64_MAX),
        window_s=policy.seconds("Window", 0.0),
    )


def _placement(placement: Fields) -> Placement:
    return Placement(
        constraints=placement.texts("Constraints"),
        spread_over=tuple(
            preference.fields("Spread").text("SpreadDescriptor")
            for preference in placement.items("Preferences")
        ),
        replicas_max_per_node=placement.integer("MaxReplicas", maximum=UINT64_MAX),
    )


def _networks(holder: Fields) -> tuple[NetworkAttachmentSpec, ...]:
    attachments: list[NetworkAttachmentSpec] = []
    for network in holder.items("Networks"):
        if network.text_map("DriverOpts"):
            raise Unimplemented(f"{network.path('DriverOpts')} is not offered yet")
        aliases = network.texts("Aliases")
        for alias in aliases:
            check_dns_name(network.path("Aliases"), alias)
        attachments.append(NetworkAttachmentSpec(NetworkId(network.text("Target")), aliases))
    return tuple(attachments)


def _ports(endpoint: Fields, mode: EndpointMode) -> tuple[PortSpec, ...]:
    ports: list[PortSpec] = []
    for port in endpoint.items("Ports"):
        protocol = port.text("Protocol") or "tcp"
        if protocol == "sctp":
            raise Unimplemented(f"{port.path('Protocol')}: sctp is not offered; use tcp or udp")
        if protocol not in ("tcp", "udp"):
            raise Invalid(f"invalid protocol value {protocol!r}")
        publish_mode = _choice(PublishMode, port, "PublishMode", PublishMode.INGRESS)
        if mode is EndpointMode.DNSRR and publish_mode is PublishMode.INGRESS:
            raise Invalid(
                f"{_INVALID}EndpointSpec: port published with ingress mode can't be used with "
                "dnsrr mode"
            )
        ports.append(
            PortSpec(
                protocol=protocol,
                target_port=port.integer("TargetPort", -1, minimum=1, maximum=PORT_MAX),
                published_port=port.integer("PublishedPort", maximum=PORT_MAX),
                mode=publish_mode,
                name=port.text("Name"),
            )
        )
    _check_ports(ports)
    return tuple(ports)


def _check_ports(ports: list[PortSpec]) -> None:
    if any(p.target_port < 1 for p in ports):
        raise Invalid(f"{_INVALID}EndpointSpec: a published port needs a target port")
    published = [(p.protocol, p.published_port) for p in ports if p.published_port]
    if len(published) != len(set(published)):
        raise Invalid(f"{_INVALID}EndpointSpec: duplicate published ports provided")


def _choice(kind: type[_Member], fields: Fields, key: str, default: _Member) -> _Member:
    text = fields.text(key)
    if not text:
        return default
    try:
        return kind(text)
    except ValueError:
        raise Invalid(f"invalid {kind.__name__}: {text!r}") from None


def warnings_of(spec: ServiceSpec) -> list[str]:
    """Return what the user should know of wishes that are kept, but have no effect (yet)."""
    sent = as_object(msgspec.json.decode(spec.docker)) or {}
    value = Fields(sent)
    ignored = [key for key in ("UpdateConfig", "RollbackConfig") if value.has(key)]
    if value.fields("TaskTemplate").has("LogDriver"):
        ignored.append("TaskTemplate.LogDriver")
    return [f"{key} is kept, but has no effect yet" for key in ignored] + unknown_warnings(sent)


def with_network_ids(spec: ServiceSpec, ids: Mapping[str, NetworkId]) -> ServiceSpec:
    """Return the spec with each network's target, as it was sent, replaced by `ids[target]`."""
    networks = tuple(
        NetworkAttachmentSpec(ids[str(a.target)], a.aliases) for a in spec.task.networks
    )
    value = as_object(msgspec.json.decode(spec.docker)) or {}
    task = as_object(value.get("TaskTemplate"))
    for holder in (value, task or {}):
        for attachment in as_list(holder.get("Networks")) or []:
            fields = as_object(attachment)
            if fields is not None:
                fields["Target"] = ids.get(str(fields.get("Target")), fields.get("Target"))
    return replace(
        spec,
        task=replace(spec.task, networks=networks),
        docker=msgspec.json.encode(value).decode(),
    )
