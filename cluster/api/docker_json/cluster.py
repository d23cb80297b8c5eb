"""The swarm's settings, init and join requests, and what `info` says of them (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Network

import msgspec

from cluster.api.backend import InitRequest, JoinRequest, LocalState, Membership
from cluster.api.docker_json.canonical import canonical
from cluster.api.docker_json.fields import INT64_MAX, Fields, Json, as_object
from cluster.api.docker_json.service_view import meta_view
from cluster.api.docker_json.text import nanoseconds, timestamp
from cluster.model.cluster import (
    DEFAULT_ADDRESS_POOL,
    DEFAULT_SUBNET_SIZE,
    Cluster,
    ClusterSpec,
    JoinTokens,
)
from cluster.model.errors import Invalid, Unimplemented
from cluster.model.node import Availability
from dataplane.addressing import RESERVED

_INVALID = "rpc error: code = InvalidArgument desc = "
SUBNET_SIZE_MAX = 29
"""Smaller networks have no room for gateway, VIP and tasks (Swarm's limit)."""
DATA_PATH_PORT_MIN = 1024
DATA_PATH_PORT_MAX = 49151
DATA_PATH_PORT = 4789
"""Default; IANA's port for VXLAN."""
CERTIFICATE_VALIDITY_S_MIN = 3600.0
"""Swarm's limit."""
HEARTBEAT_PERIOD_S_MIN = 1.0
KEY_ROTATION_S_MIN = 3600.0
"""Nodes that were down for as long must ask a manager for the ring before they can gossip."""

_RAFT_DEFAULTS: Json = {
    "SnapshotInterval": 10000,
    "KeepOldSnapshots": 0,
    "LogEntriesForSlowFollowers": 500,
    "ElectionTick": 10,
    "HeartbeatTick": 1,
}
"""What Swarm shows; hivewire's Raft has its own constants."""


def read_init(body: Json) -> InitRequest:
    """Return an init request, checked.

    Raises:
        Invalid, Unimplemented: with the words that the user reads.
    """
    request = Fields(canonical(body))
    if request.flag("AutoLockManagers"):
        raise Unimplemented(_NO_AUTOLOCK)
    size = request.integer("SubnetSize", maximum=INT64_MAX) or DEFAULT_SUBNET_SIZE
    return InitRequest(
        listen_address=request.text("ListenAddr") or "0.0.0.0:2377",
        advertise_address=request.text("AdvertiseAddr"),
        data_path_address=request.text("DataPathAddr"),
        data_path_port=_data_path_port(request),
        address_pool=_address_pool(request.texts("DefaultAddrPool"), size),
        subnet_size=size,
        spec=read_cluster_spec(request.fields("Spec").raw(), ClusterSpec()),
        availability=read_availability(request),
        force_new_cluster=request.flag("ForceNewCluster"),
    )


def read_join(body: Json) -> JoinRequest:
    """Return a join request, checked.

    Raises:
        Invalid: with the words that the user reads.
    """
    request = Fields(canonical(body))
    remotes = tuple(a for a in request.texts("RemoteAddrs") if a)
    if not remotes:
        raise Invalid("at least 1 RemoteAddr is required to join")
    token = request.text("JoinToken")
    if not token:
        raise Invalid(f"{_INVALID}A valid join token is necessary to join this cluster")
    return JoinRequest(
        remote_addresses=remotes,
        token=token,
        listen_address=request.text("ListenAddr") or "0.0.0.0:2377",
        advertise_address=request.text("AdvertiseAddr"),
        data_path_address=request.text("DataPathAddr"),
        availability=read_availability(request),
    )


_NO_AUTOLOCK = "autolock is not offered yet"


def read_cluster_spec(body: Json, old: ClusterSpec) -> ClusterSpec:
    """Return `old` with what an init or update request sets; zeros and absent keys keep it.

    Raises:
        Invalid, Unimplemented: with the words that the user reads.
    """
    value = canonical(body)
    spec = Fields(value)
    if spec.text("Name") not in ("", "default"):
        raise Invalid(f'{_INVALID}swarm must be named "default"')
    if spec.fields("EncryptionConfig").flag("AutoLockManagers"):
        raise Unimplemented(_NO_AUTOLOCK)
    ca = spec.fields("CAConfig")
    for key in ("ExternalCAs", "SigningCACert", "SigningCAKey", "ForceRotate"):
        if ca.raw().get(key):
            raise Unimplemented(f"CAConfig.{key} is not offered yet")
    heartbeat_s = spec.fields("Dispatcher").seconds("HeartbeatPeriod", 0.0)
    if 0 < heartbeat_s < HEARTBEAT_PERIOD_S_MIN:
        raise Invalid(f"{_INVALID}heartbeat time period must be at least 1s")
    validity_s = ca.seconds("NodeCertExpiry", 0.0)
    if 0 < validity_s < CERTIFICATE_VALIDITY_S_MIN:
        raise Invalid(f"{_INVALID}minimum certificate expiry time is 1h0m0s")
    rotation_s = spec.fields("GossipKeys").seconds("RotationPeriod", 0.0)
    if 0 < rotation_s < KEY_ROTATION_S_MIN:
        raise Invalid(f"{_INVALID}minimum rotation period of gossip keys is 1h0m0s")
    history = spec.fields("Orchestration").integer(
        "TaskHistoryRetentionLimit", old.task_history_limit, minimum=-1
    )
    return replace(
        old,
        labels=spec.text_map("Labels") if spec.has("Labels") else old.labels,
        task_history_limit=history,
        heartbeat_period_s=heartbeat_s or old.heartbeat_period_s,
        node_certificate_validity_s=validity_s or old.node_certificate_validity_s,
        key_rotation_s=rotation_s or old.key_rotation_s,
        docker=msgspec.json.encode(value).decode(),
    )


def read_availability(request: Fields) -> Availability:
    """Return the availability that a request asks for; active when it says nothing."""
    text = request.text("Availability")
    try:
        return Availability(text.lower() or "active")
    except ValueError:
        raise Invalid(f"invalid Availability: {text!r}") from None


def _data_path_port(request: Fields) -> int:
    port = request.integer("DataPathPort")
    if port and not DATA_PATH_PORT_MIN <= port <= DATA_PATH_PORT_MAX:
        raise Invalid(
            f"Datapath port number is not valid (must be {DATA_PATH_PORT_MIN}.."
            f"{DATA_PATH_PORT_MAX}), not {port}"
        )
    return port or DATA_PATH_PORT


def _address_pool(texts: tuple[str, ...], size: int) -> tuple[str, ...]:
    if size > SUBNET_SIZE_MAX:
        raise Invalid(f"invalid subnet size {size}: at most {SUBNET_SIZE_MAX}")
    pools: list[IPv4Network] = []
    for text in texts:
        try:
            pool = IPv4Network(text)
        except ValueError as error:
            raise Invalid(f"invalid address pool {text!r}: {error}") from None
        if pool.prefixlen > size:
            raise Invalid(f"invalid address pool {text}: smaller than one /{size} subnet")
        for other in (*pools, RESERVED):
            if pool.overlaps(other):
                raise Invalid(f"address pool {text} overlaps {other}")
        pools.append(pool)
    return tuple(str(pool) for pool in pools) or DEFAULT_ADDRESS_POOL


def cluster_spec_view(spec: ClusterSpec) -> Json:
    """Return the settings as `GET /swarm` shows them."""
    sent = as_object(msgspec.json.decode(spec.docker)) or {}
    known: Json = {
        "Name": "default",
        "Labels": spec.labels,
        "Orchestration": {"TaskHistoryRetentionLimit": spec.task_history_limit},
        "Raft": {**_RAFT_DEFAULTS, **_non_zero(as_object(sent.get("Raft")) or {})},
        "Dispatcher": {"HeartbeatPeriod": nanoseconds(spec.heartbeat_period_s)},
        "CAConfig": {"NodeCertExpiry": nanoseconds(spec.node_certificate_validity_s)},
        "GossipKeys": {"RotationPeriod": nanoseconds(spec.key_rotation_s)},
        "TaskDefaults": as_object(sent.get("TaskDefaults")) or {},
        "EncryptionConfig": {"AutoLockManagers": spec.autolock},
    }
    return {**sent, **known}


def _non_zero(values: Json) -> Json:
    return {key: value for key, value in values.items() if value}


def cluster_view(cluster: Cluster, tls_info: Mapping[str, str]) -> Json:
    """Return the cluster as `info` shows it: without join tokens."""
    pools = None if cluster.address_pool == DEFAULT_ADDRESS_POOL else list(cluster.address_pool)
    return {
        "ID": cluster.id,
        **meta_view(cluster.meta),
        "Spec": cluster_spec_view(cluster.spec),
        "TLSInfo": dict(tls_info),
        "RootRotationInProgress": False,
        "DefaultAddrPool": pools,
        "SubnetSize": cluster.subnet_size,
        "DataPathPort": cluster.data_path_port,
    }


def tokens_view(tokens: JoinTokens) -> Json:
    """Return the join tokens as `GET /swarm` shows them."""
    return {"Worker": tokens.worker, "Manager": tokens.manager}


def keys_view(cluster: Cluster) -> Json:
    """Return the gossip key ring as `GET /swarm/keys` shows it: without secrets."""
    ring: list[Json] = [
        {"ID": key.id, "State": key.state.value, "Since": timestamp(key.since)}
        for key in cluster.gossip_keys
    ]
    return {"RotationPeriod": nanoseconds(cluster.spec.key_rotation_s), "Keys": ring}


def membership_view(membership: Membership) -> Json:
    """Return the part of `info` that needs no quorum."""
    managers: list[Json] = [
        {"NodeID": peer.node, "Addr": peer.address} for peer in membership.managers
    ]
    return {
        "NodeID": membership.node or "",
        "NodeAddr": membership.address,
        "LocalNodeState": membership.state.value,
        "ControlAvailable": membership.is_manager and membership.state is LocalState.ACTIVE,
        "Error": membership.error,
        "RemoteManagers": managers or None,
    }
