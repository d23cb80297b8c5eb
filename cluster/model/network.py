"""Overlay networks (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.model.ids import NetworkId
from cluster.model.meta import Meta

INGRESS_NETWORK_NAME = "ingress"


@dataclass(frozen=True, slots=True)
class SubnetSpec:
    """One subnet that the user asked for."""

    subnet: str
    """CIDR."""
    gateway: str = ""
    ip_range: str = ""
    """CIDR inside the subnet that addresses are given from; empty: all of it."""


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """What the user wished for a network."""

    name: str
    labels: dict[str, str] = field(default_factory=dict[str, str])
    driver: str = "overlay"
    options: dict[str, str] = field(default_factory=dict[str, str])
    attachable: bool = False
    internal: bool = False
    ingress: bool = False
    subnets: tuple[SubnetSpec, ...] = ()
    """At most one for now; empty: carved from the cluster's pool."""
    docker: str = "{}"
    """The request as the client sent it, JSON."""


@dataclass(frozen=True, slots=True)
class Network:
    """An overlay network. The `ingress` network has no tasks' interfaces: it is routed."""

    id: NetworkId
    spec: NetworkSpec
    vni: int = 0
    """VXLAN network identifier, 4097..2^24-1; 0: not allocated yet."""
    subnet: str = ""
    """CIDR; empty: not allocated yet."""
    gateway: str = ""
    meta: Meta = Meta()
