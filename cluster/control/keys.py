"""The gossip key ring (pure).

A key is 32 bytes, for AES-256. Rotation (ACCEPT on every node first, then PRIMARY, then RETIRED) is
not done yet: a cluster keeps its first key.
"""

from __future__ import annotations

from collections.abc import Callable

from cluster.model.cluster import GossipKey, KeyState

KEY_BYTES = 32


def first_keys(random_bytes: Callable[[int], bytes]) -> tuple[GossipKey, ...]:
    """Return the key ring of a new cluster; `random_bytes` is `secrets.token_bytes` or as good."""
    return (GossipKey(1, random_bytes(KEY_BYTES), KeyState.PRIMARY),)
