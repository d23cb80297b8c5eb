"""A new cluster's key ring."""

from __future__ import annotations

from cluster.control.keys import KEY_BYTES, first_keys
from cluster.model.cluster import KeyState


def test_a_new_cluster_seals_with_one_fresh_key() -> None:
    [key] = first_keys(lambda size: b"k" * size)
    assert key.state is KeyState.PRIMARY
    assert key.secret == b"k" * KEY_BYTES
    assert "kkk" not in repr(key)
