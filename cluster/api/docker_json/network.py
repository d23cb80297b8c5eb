"""Overlay networks <-> Docker's JSON (pure)."""

from __future__ import annotations

import msgspec

from cluster.api.docker_json.canonical import canonical, unknown_warnings
from cluster.api.docker_json.fields import Fields, Json, as_object
from cluster.api.docker_json.service_view import meta_view, with_prefix
from cluster.api.docker_json.text import check_network_name, timestamp
from cluster.model.errors import Forbidden, Invalid, Unimplemented
from cluster.model.ids import NetworkId
from cluster.model.network import Network, NetworkSpec, SubnetSpec
from cluster.model.node import Node
from cluster.model.service import Endpoint
from cluster.model.task import Attachment, Task, TaskState, task_name
from cluster.state.snapshot import Snapshot

_VNI_OPTION = "com.docker.network.driver.overlay.vxlanid_list"
_PREDEFINED = frozenset({"bridge", "host", "none", "default", "container"})
"""Names that mean something else to Docker's clients."""


def read_network_spec(body: Json) -> NetworkSpec:
    """Return the spec in a create request; subnets are still to be checked against the others.

    Raises:
        Invalid, Forbidden, Unimplemented: with the words that the user reads.
    """
    value = canonical(body)
    request = Fields(value)
    name = request.text("Name")
    check_network_name(name)
    if name in _PREDEFINED:
        raise Forbidden(f"operation is not permitted on predefined {name} network")
    _check_kind(request)
    spec = NetworkSpec(
        name=name,
        labels=request.text_map("Labels"),
        attachable=request.flag("Attachable"),
        internal=request.flag("Internal"),
        ingress=request.flag("Ingress"),
        subnets=_subnets(request.fields("IPAM")),
        docker=msgspec.json.encode(value).decode(),
    )
    if spec.ingress and (spec.attachable or spec.internal):
        kind = "attachable" if spec.attachable else "internal"
        raise Invalid(f"the ingress network cannot be {kind}")
    return spec


def network_warning(spec: NetworkSpec) -> str:
    """Return what the user should know of wishes that have no effect; empty: nothing."""
    return "; ".join(unknown_warnings(as_object(msgspec.json.decode(spec.docker)) or {}))


def _check_kind(request: Fields) -> None:
    driver = request.text("Driver") or "overlay"
    if driver != "overlay":
        raise Invalid(
            f"network driver {driver!r} is not offered: create an overlay network (--driver "
            "overlay)"
        )
    if request.text("Scope") not in ("", "swarm"):
        raise Invalid(f"overlay networks have the scope 'swarm', not {request.text('Scope')!r}")
    if request.flag("ConfigOnly") or request.fields("ConfigFrom").text("Network"):
        raise Unimplemented("configuration-only networks are not offered")
    if request.flag("EnableIPv6"):
        raise Unimplemented("IPv6 overlay networks are not offered yet")
    if not request.flag("EnableIPv4", default=True):
        raise Invalid("an overlay network needs IPv4")
    for option in request.text_map("Options"):
        if option == "encrypted":
            raise Unimplemented("encrypted overlay networks are not offered yet")
        raise Unimplemented(f"network option {option!r} is not offered")


def _subnets(ipam: Fields) -> tuple[SubnetSpec, ...]:
    if ipam.text("Driver") not in ("", "default"):
        raise Invalid(f"IPAM driver {ipam.text('Driver')!r} is not offered: use 'default'")
    if ipam.text_map("Options"):
        raise Unimplemented(f"{ipam.path('Options')} is not offered")
    subnets: list[SubnetSpec] = []
    for config in ipam.items("Config"):
        if config.text_map("AuxiliaryAddresses"):
            raise Unimplemented(f"{config.path('AuxiliaryAddresses')} is not offered yet")
        subnet = SubnetSpec(config.text("Subnet"), config.text("Gateway"), config.text("IPRange"))
        if subnet.subnet:
            subnets.append(subnet)
        elif subnet.gateway or subnet.ip_range:
            raise Invalid("a gateway or an IP range needs the subnet that it is in")
    return tuple(subnets)


def network_view(
    network: Network, snapshot: Snapshot, *, detail: bool = False, verbose: bool = False
) -> Json:
    """Return a network as `GET /networks/{id}` shows it.

    `detail`: with its endpoints (`Containers`, the cluster's); `verbose`: with its services.
    """
    spec = network.spec
    options: Json = {_VNI_OPTION: str(network.vni)} if network.vni else {}
    view: Json = {
        "Name": spec.name,
        "Id": network.id,
        "Created": timestamp(network.meta.created_at),
        "Scope": "swarm",
        "Driver": spec.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": _ipam(network)},
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Ingress": spec.ingress,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": {**spec.options, **options},
        "Labels": spec.labels,
    }
    if detail:
        endpoints = _endpoints(network.id, snapshot)
        view["Containers"] = {
            task.id: _container(task, attachment, snapshot) for task, attachment in endpoints
        }
        view["Peers"] = _peers(endpoints, snapshot)
    if verbose:
        view["Services"] = _services(network.id, snapshot)
    return view


def _ipam(network: Network) -> list[Json]:
    if not network.subnet:
        return []
    config: Json = {"Subnet": network.subnet}
    if network.spec.subnets and network.spec.subnets[0].ip_range:
        config["IPRange"] = network.spec.subnets[0].ip_range
    return [{**config, "Gateway": network.gateway}]


def _endpoints(network_id: NetworkId, snapshot: Snapshot) -> list[tuple[Task, Attachment]]:
    return [
        (task, attachment)
        for task in snapshot.tasks.values()
        if task.status.state is TaskState.RUNNING
        for attachment in task.attachments
        if attachment.network == network_id
    ]


def _container(task: Task, attachment: Attachment, snapshot: Snapshot) -> Json:
    return {
        "Name": task_name(task),
        "EndpointID": task.id,
        "MacAddress": "",
        "IPv4Address": with_prefix(attachment.address, attachment.network, snapshot),
        "IPv6Address": "",
    }


def _peers(endpoints: list[tuple[Task, Attachment]], snapshot: Snapshot) -> list[Json]:
    ids = sorted({task.node for task, _ in endpoints if task.node})
    nodes: list[Node] = [snapshot.nodes[i] for i in ids if i in snapshot.nodes]
    return [{"Name": node.id[:12], "IP": node.data_address or node.address} for node in nodes]


def _services(network_id: NetworkId, snapshot: Snapshot) -> Json:
    services: Json = {}
    for service in sorted(snapshot.services.values(), key=lambda s: s.spec.name):
        if all(a.target != network_id for a in service.spec.task.networks):
            continue
        endpoint = service.endpoint or Endpoint()
        vips = [v.address for v in endpoint.virtual_addresses if v.network == network_id]
        services[service.spec.name] = {
            "VIP": vips[0] if vips else "<nil>",
            "Ports": [
                f"Target: {p.target_port}, Publish: {p.published_port}" for p in endpoint.ports
            ],
            "LocalLBIndex": 0,
            "Tasks": [
                _service_task(task, attachment, snapshot)
                for task, attachment in _endpoints(network_id, snapshot)
                if task.service == service.id
            ],
        }
    return services


def _service_task(task: Task, attachment: Attachment, snapshot: Snapshot) -> Json:
    node = snapshot.nodes.get(task.node) if task.node else None
    return {
        "Name": task_name(task),
        "EndpointID": task.id,
        "EndpointIP": attachment.address,
        "Info": {"Host IP": node.address if node else ""},
    }


def attached_network_view(network: Network) -> Json:
    """Return a network as a task's attachment shows it."""
    options: Json = {_VNI_OPTION: str(network.vni)} if network.vni else {}
    spec: Json = {
        "Name": network.spec.name,
        "Labels": network.spec.labels,
        "DriverConfiguration": {"Name": network.spec.driver},
    }
    for key, value in (("Internal", network.spec.internal), ("Ingress", network.spec.ingress),
                       ("Attachable", network.spec.attachable)):  # fmt: skip
        if value:
            spec[key] = True
    return {
        "ID": network.id,
        **meta_view(network.meta),
        "Spec": {**spec, "IPAMOptions": {"Driver": {"Name": "default"}}, "Scope": "swarm"},
        "DriverState": {"Name": network.spec.driver, "Options": options},
        "IPAMOptions": {"Driver": {"Name": "default"}, "Configs": _ipam(network)},
    }
