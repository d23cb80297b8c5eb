"""Nodes <-> Docker's JSON (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cluster.api.backend import RaftView
from cluster.api.docker_json.canonical import canonical
from cluster.api.docker_json.cluster import read_availability
from cluster.api.docker_json.fields import Fields, Json
from cluster.api.docker_json.service_view import meta_view
from cluster.model.errors import Invalid, Unimplemented
from cluster.model.node import Node, NodeSpec, Role

_PLUGINS: tuple[Mapping[str, str], ...] = ({"Type": "Network", "Name": "overlay"},)


def read_node_spec(body: Json, old: NodeSpec) -> NodeSpec:
    """Return the spec in an update request.

    Raises:
        Invalid, Unimplemented: with the words that the user reads.
    """
    spec = Fields(canonical(body))
    role = spec.text("Role").lower() or old.role.value
    if role not in (Role.MANAGER.value, Role.WORKER.value):
        raise Invalid(f"invalid Role: {spec.text('Role')!r}")
    if role != old.role.value:
        raise Unimplemented(
            "changing a node's role is not offered yet: let it leave, and join with the other token"
        )
    return replace(
        old,
        name=spec.text("Name"),
        labels=spec.text_map("Labels"),
        availability=read_availability(spec) if spec.has("Availability") else old.availability,
    )


def node_view(node: Node, raft: RaftView, tls_info: Mapping[str, str]) -> Json:
    """Return a node as `GET /nodes/{id}` shows it."""
    spec: Json = {
        "Labels": node.spec.labels,
        "Role": node.spec.role.value,
        "Availability": node.spec.availability.value,
    }
    if node.spec.name:
        spec["Name"] = node.spec.name
    status: Json = {"State": node.state.value, "Addr": node.address}
    if node.message:
        status["Message"] = node.message
    view: Json = {
        "ID": node.id,
        **meta_view(node.meta),
        "Spec": spec,
        "Description": _description(node, tls_info),
        "Status": status,
    }
    reachability = raft.reachability.get(node.id)
    if reachability is not None:  # of a manager that has left there is nothing to say
        leader: Json = {"Leader": True} if raft.leader == node.id else {}
        standing = {"Reachability": reachability.value, "Addr": node.manager_address}
        view["ManagerStatus"] = {**leader, **standing}
    return view


def _description(node: Node, tls_info: Mapping[str, str]) -> Json:
    description = node.description
    engine: Json = {"EngineVersion": description.engine_version}
    if description.engine_labels:
        engine["Labels"] = description.engine_labels
    return {
        "Hostname": description.hostname,
        "Platform": {"Architecture": description.architecture, "OS": description.os},
        "Resources": {
            "NanoCPUs": description.nano_cpus,
            "MemoryBytes": description.memory_bytes,
        },
        "Engine": {**engine, "Plugins": [dict(p) for p in _PLUGINS]},
        "TLSInfo": dict(tls_info),
    }
