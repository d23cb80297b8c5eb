"""The first objects of a new cluster, and the files of a node that comes into one."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from random import Random

from cluster.allocation.tokens import SECRET_BYTES, new_key
from cluster.api.backend import InitRequest
from cluster.ca.authority import authority_of, new_join_tokens, node_id_of_request_untrusted
from cluster.ca.certificates import new_request, new_root_ca
from cluster.ca.files import Credentials
from cluster.control.keys import first_keys
from cluster.model.cluster import Cluster
from cluster.model.ids import ClusterId, NetworkId, new_id
from cluster.model.meta import Meta
from cluster.model.network import INGRESS_NETWORK_NAME, Network, NetworkSpec
from cluster.model.node import Node, NodeDescription, NodeSpec, NodeState, Role
from cluster.private_file import sync_directory, write_private
from cluster.state.changes import ABSENT, Change, PutCluster, PutNetwork, PutNode
from cluster.state.codec import decode_changes, encode_changes

BOOTSTRAP_FILE = "bootstrap"
"""The first transaction of a new cluster, until it is committed: only here is the CA's key then."""
DATA_KEY_FILE = "raft.key"
DATA_KEY_BYTES = 32
FIRST_INDEX = 1


@dataclass(frozen=True, slots=True)
class NewCluster:
    """What `swarm init` makes."""

    credentials: Credentials
    node: Node
    cluster: Cluster
    changes: tuple[Change, ...]
    """The first transaction."""


def new_cluster(
    request: InitRequest,
    description: NodeDescription,
    *,
    address: str,
    control_port: int,
    data_address: str,
    gossip_port: int,
    now: float,
    rng: Random,
) -> NewCluster:
    """Return a cluster of this one node, nothing written yet."""
    root = new_root_ca(now)
    meta = Meta(created_at=now, updated_at=now)
    cluster = Cluster(
        id=ClusterId(new_id(rng)),
        spec=request.spec,
        ca_certificate=root.certificate,
        ca_key=root.key,
        join_tokens=new_join_tokens(root.certificate),
        gossip_keys=first_keys(secrets.token_bytes, now),
        allocation_keys=(new_key(secrets.token_bytes(SECRET_BYTES)),),
        address_pool=request.address_pool,
        subnet_size=request.subnet_size,
        data_path_port=request.data_path_port,
        meta=meta,
    )
    csr = new_request()
    node = Node(
        id=node_id_of_request_untrusted(csr.csr),
        spec=NodeSpec(Role.MANAGER, availability=request.availability),
        description=description,
        index=FIRST_INDEX,
        address=address,
        gossip_port=gossip_port,
        data_address=data_address,
        manager_address=f"{address}:{control_port}",
        state=NodeState.READY,
        meta=meta,
    )
    certificate = authority_of(cluster).issue_untrusted(
        csr.csr, node=node.id, role=Role.MANAGER, now=now
    )
    ingress = Network(
        NetworkId(new_id(rng)), NetworkSpec(INGRESS_NETWORK_NAME, ingress=True), meta=meta
    )
    return NewCluster(
        Credentials(root.certificate, certificate, csr.key),
        node,
        cluster,
        (PutCluster(cluster, ABSENT), PutNode(node, ABSENT), PutNetwork(ingress, ABSENT)),
    )


def save_bootstrap(data_root: Path, changes: tuple[Change, ...]) -> None:
    """Keep the first transaction until it is committed."""
    write_private(data_root / BOOTSTRAP_FILE, encode_changes(changes))


def load_bootstrap(data_root: Path) -> tuple[Change, ...]:
    """Return the first transaction if it was never seen committed, else nothing."""
    try:
        return decode_changes((data_root / BOOTSTRAP_FILE).read_bytes())
    except FileNotFoundError:
        return ()


def forget_bootstrap(data_root: Path) -> None:
    """Delete the kept transaction: it is committed, the CA's key is in Raft now."""
    (data_root / BOOTSTRAP_FILE).unlink(missing_ok=True)
    sync_directory(data_root)


def data_key(data_root: Path) -> bytes:
    """Return the key that this manager's log is encrypted with, made when there is none."""
    path = data_root / DATA_KEY_FILE
    try:
        return path.read_bytes()
    except FileNotFoundError:
        key = secrets.token_bytes(DATA_KEY_BYTES)
        write_private(path, key)
        return key
