"""Services and their task specs -> Docker's JSON (pure)."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_network

import msgspec

from cluster.api.docker_json.fields import Json, as_object
from cluster.api.docker_json.text import nanoseconds, timestamp
from cluster.model.ids import NetworkId, ServiceId
from cluster.model.meta import Meta
from cluster.model.service import (
    EndpointMode,
    PortSpec,
    Resources,
    RestartPolicy,
    Service,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from cluster.model.task import TaskState
from cluster.state.snapshot import Snapshot

_UPDATE_DEFAULTS: Json = {
    "Parallelism": 1,
    "FailureAction": "pause",
    "Monitor": 5_000_000_000,
    "MaxFailureRatio": 0,
    "Order": "stop-first",
}


def meta_view(meta: Meta) -> Json:
    """Return the version and times of any object."""
    return {
        "Version": {"Index": meta.version},
        "CreatedAt": timestamp(meta.created_at),
        "UpdatedAt": timestamp(meta.updated_at),
    }


def service_view(
    service: Service,
    snapshot: Snapshot,
    *,
    insert_defaults: bool = False,
    status: Json | None = None,
) -> Json:
    """Return a service as `GET /services/{id}` shows it, with its status if that is given."""
    view: Json = {
        "ID": service.id,
        **meta_view(service.meta),
        "Spec": spec_view(service.spec, insert_defaults=insert_defaults),
    }
    if service.previous_spec is not None:
        view["PreviousSpec"] = spec_view(service.previous_spec)
    view["Endpoint"] = _endpoint(service, snapshot)
    if status is not None:
        view["ServiceStatus"] = status
    return view


def spec_view(spec: ServiceSpec, *, insert_defaults: bool = False) -> Json:
    """Return a spec as its client wrote it; with defaults: what it means."""
    view = dict(as_object(msgspec.json.decode(spec.docker)) or {})
    if not insert_defaults:
        return view
    task = as_object(view.get("TaskTemplate")) or {}
    container = as_object(task.get("ContainerSpec")) or {}
    view["TaskTemplate"] = {
        **task,
        "ContainerSpec": {
            "StopGracePeriod": nanoseconds(spec.task.stop_grace_s),
            **container,
        },
        "RestartPolicy": _restart(spec.task.restart),
    }
    for key in ("UpdateConfig", "RollbackConfig"):
        view.setdefault(key, dict(_UPDATE_DEFAULTS))
    view.setdefault("EndpointSpec", {"Mode": spec.endpoint_mode.value})
    return view


def task_spec_view(spec: TaskSpec) -> Json:
    """Return a task's own spec, with what differs from the defaults."""
    container: Json = {"Image": spec.image}
    optional: Json = {
        "Labels": spec.labels,
        "Args": list(spec.command),
        "Hostname": spec.hostname,
        "Env": [f"{name}={value}" for name, value in spec.environment],
        "Dir": spec.working_directory,
        "User": spec.user,
        "Hosts": [f"{address} {name}" for address, name in spec.hosts],
    }
    container.update({key: value for key, value in optional.items() if value})
    container["StopSignal"] = spec.stop_signal
    container["StopGracePeriod"] = nanoseconds(spec.stop_grace_s)
    view: Json = {
        "ContainerSpec": container,
        "Resources": {
            "Limits": _resources(spec.limits),
            "Reservations": _resources(spec.reservations),
        },
        "RestartPolicy": _restart(spec.restart),
        "Placement": _placement(spec),
    }
    if spec.networks:
        view["Networks"] = [
            {"Target": a.target, **({"Aliases": list(a.aliases)} if a.aliases else {})}
            for a in spec.networks
        ]
    view["ForceUpdate"] = spec.force_update
    return view


def port_view(port: PortSpec) -> Json:
    """Return a published port."""
    view: Json = {"Name": port.name} if port.name else {}
    view |= {"Protocol": port.protocol, "TargetPort": port.target_port}
    if port.published_port:
        view["PublishedPort"] = port.published_port
    view["PublishMode"] = port.mode.value
    return view


def _placement(spec: TaskSpec) -> Json:
    view: Json = {}
    if spec.placement.constraints:
        view["Constraints"] = list(spec.placement.constraints)
    if spec.placement.spread_over:
        view["Preferences"] = [
            {"Spread": {"SpreadDescriptor": over}} for over in spec.placement.spread_over
        ]
    if spec.placement.replicas_max_per_node:
        view["MaxReplicas"] = spec.placement.replicas_max_per_node
    return view


def _restart(policy: RestartPolicy) -> Json:
    view: Json = {
        "Condition": policy.condition.value,
        "Delay": nanoseconds(policy.delay_s),
        "MaxAttempts": policy.attempts_max,
    }
    if policy.window_s:
        view["Window"] = nanoseconds(policy.window_s)
    return view


def _resources(resources: Resources) -> Json:
    view: Json = {}
    if resources.nano_cpus:
        view["NanoCPUs"] = resources.nano_cpus
    if resources.memory_bytes:
        view["MemoryBytes"] = resources.memory_bytes
    return view


def _endpoint(service: Service, snapshot: Snapshot) -> Json:
    endpoint = service.endpoint
    if endpoint is None:
        return {"Spec": {}}
    spec: Json = {"Mode": service.spec.endpoint_mode.value}
    if service.spec.ports:
        spec["Ports"] = [port_view(p) for p in service.spec.ports]
    view: Json = {"Spec": spec}
    if endpoint.ports:
        view["Ports"] = [port_view(p) for p in endpoint.ports]
    if endpoint.virtual_addresses and service.spec.endpoint_mode is EndpointMode.VIP:
        view["VirtualIPs"] = [
            {"NetworkID": vip.network, "Addr": with_prefix(vip.address, vip.network, snapshot)}
            for vip in endpoint.virtual_addresses
        ]
    return view


def with_prefix(address: str, network_id: NetworkId, snapshot: Snapshot) -> str:
    """Return `10.0.1.2/24` for an address in a network (without length if that is unknown)."""
    network = snapshot.networks.get(network_id)
    if network is None or not network.subnet:
        return address
    return f"{address}/{ip_network(network.subnet, strict=False).prefixlen}"


def service_statuses(snapshot: Snapshot) -> dict[ServiceId, Json]:
    """Return how many tasks of every service run, and how many should."""
    running = Counter(
        t.service for t in snapshot.tasks.values() if t.status.state is TaskState.RUNNING
    )
    desired = Counter(
        t.service for t in snapshot.tasks.values() if t.desired_state is TaskState.RUNNING
    )
    return {
        service.id: {
            "RunningTasks": running[service.id],
            "DesiredTasks": (
                service.spec.replicas
                if service.spec.mode is ServiceMode.REPLICATED
                else desired[service.id]
            ),
            "CompletedTasks": 0,
        }
        for service in snapshot.services.values()
    }
