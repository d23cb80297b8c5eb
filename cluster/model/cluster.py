"""The cluster itself: settings, trust and address space (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from cluster.model.ids import ClusterId
from cluster.model.meta import Meta

HEARTBEAT_PERIOD_S = 5.0
"""Swarm's default (swarmkit manager/dispatcher)."""
TASK_HISTORY_LIMIT = 5
"""Ended tasks kept per slot (Swarm's default)."""
KEY_ROTATION_S = 12 * 3600.0
"""Swarm's period (swarmkit manager/keymanager)."""
NODE_CERTIFICATE_VALIDITY_S = 90 * 24 * 3600.0
DEFAULT_ADDRESS_POOL = ("10.0.0.0/8",)
DEFAULT_SUBNET_SIZE = 24


class KeyState(StrEnum):
    """A gossip key's life: every node accepts it, then seals with it, then forgets it."""

    ACCEPT = "accept"
    PRIMARY = "primary"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class GossipKey:
    """One key of the gossip key ring."""

    id: int
    """Grows with every key ever made."""
    secret: bytes = field(repr=False)
    """32 bytes, AES-256."""
    state: KeyState = KeyState.PRIMARY
    since: float = 0.0
    """When it entered this state, unix seconds; 0: not known."""


@dataclass(frozen=True, slots=True)
class AllocationKey:
    """An Ed25519 key pair that the managers sign allocations with, raw."""

    public: bytes
    secret: bytes = field(repr=False)
    """Only managers hold it."""


@dataclass(frozen=True, slots=True)
class JoinTokens:
    """The current join token of each role."""

    worker: str = field(repr=False)
    manager: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """What the user wished for the cluster."""

    labels: dict[str, str] = field(default_factory=dict[str, str])
    task_history_limit: int = TASK_HISTORY_LIMIT
    heartbeat_period_s: float = HEARTBEAT_PERIOD_S
    node_certificate_validity_s: float = NODE_CERTIFICATE_VALIDITY_S
    key_rotation_s: float = KEY_ROTATION_S
    """Seconds that a gossip key is primary; a retired one is kept as long for nodes that are
    down."""
    autolock: bool = False
    docker: str = "{}"
    """The spec as the client sent it, JSON, so that it reads back what it wrote."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The one cluster object of a replicated state."""

    id: ClusterId
    spec: ClusterSpec
    ca_certificate: bytes
    """PEM."""
    ca_key: bytes = field(repr=False)
    """PEM, PKCS#8. Only managers hold it; the Raft log is encrypted at rest."""
    join_tokens: JoinTokens
    gossip_keys: tuple[GossipKey, ...]
    allocation_keys: tuple[AllocationKey, ...] = ()
    """The first signs, all are accepted; none: in a cluster of an older version."""
    address_pool: tuple[str, ...] = DEFAULT_ADDRESS_POOL
    """Networks that subnets are carved from."""
    subnet_size: int = DEFAULT_SUBNET_SIZE
    data_path_port: int = 4789
    past_validity_s: float = 0.0
    """The longest that certificates of earlier specs were valid, seconds; 0: there was no other."""
    meta: Meta = Meta()
