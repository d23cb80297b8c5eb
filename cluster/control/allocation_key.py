"""The key that allocations are signed with: a cluster of an older version gets its first (pure).

Until then its nodes believe nobody's endpoints; those of a new cluster are never without one.
"""

from __future__ import annotations

from dataclasses import replace

from cluster.allocation.tokens import new_key
from cluster.state.changes import Change, PutCluster
from cluster.state.snapshot import Snapshot


def decide(snapshot: Snapshot, secret: bytes) -> list[Change]:
    """Return what gives the cluster a key, if it has none.

    secret: `cluster.allocation.tokens.SECRET_BYTES` fresh random bytes.
    """
    cluster = snapshot.cluster
    if cluster is None or cluster.allocation_keys:
        return []
    changed = replace(cluster, allocation_keys=(new_key(secret),))
    return [PutCluster(changed, expect=cluster.meta.version)]
