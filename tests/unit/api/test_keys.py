"""The gossip keys: seen by managers only, never with their secrets, rotated one at a time."""

from __future__ import annotations

from dataclasses import replace

from cluster.api.backend import LocalState, Membership
from cluster.model.cluster import Cluster
from cluster.model.ids import NodeId
from cluster.state.changes import PutCluster
from tests.unit.api.caller import Caller
from tests.unit.api.memory_backend import MemoryBackend

CALLS = (("GET", "/swarm/keys"), ("POST", "/swarm/keys/rotate"))


def cluster_of(backend: MemoryBackend) -> Cluster:
    cluster = backend.snapshot().cluster
    assert cluster is not None
    return cluster


async def test_the_ring_is_shown_without_secrets(api: Caller, backend: MemoryBackend) -> None:
    ring = await api.get("/v1.51/swarm/keys")
    [key] = ring["Keys"]
    assert (key["ID"], key["State"]) == (1, "primary")
    assert key["Since"].endswith("Z")
    assert set(key) == {"ID", "State", "Since"}
    assert ring["RotationPeriod"] == 12 * 3600 * 10**9
    for change in (cluster_of(backend), await api.get("/swarm"), await api.get("/info")):
        assert cluster_of(backend).gossip_keys[0].secret.hex() not in repr(change)
        assert repr(cluster_of(backend).gossip_keys[0].secret) not in repr(change)


async def test_a_rotation_begins_with_a_key_that_is_accepted(
    api: Caller, backend: MemoryBackend
) -> None:
    ring = await api.post("/swarm/keys/rotate")
    assert [(k["ID"], k["State"]) for k in ring["Keys"]] == [(1, "primary"), (2, "accept")]
    first, second = cluster_of(backend).gossip_keys
    assert len(second.secret) == 32
    assert second.secret != first.secret
    text = await api.refused("POST", "/swarm/keys/rotate", 400)
    assert "a rotation of the gossip keys is under way already: key 2" in text
    assert cluster_of(backend).gossip_keys == (first, second)


async def test_it_does_not_overwrite_what_somebody_else_changes_meanwhile(
    api: Caller, backend: MemoryBackend
) -> None:
    cluster = cluster_of(backend)
    changed = replace(cluster, spec=replace(cluster.spec, task_history_limit=77))
    backend.meanwhile = [PutCluster(changed)]
    ring = await api.post("/swarm/keys/rotate")
    assert len(ring["Keys"]) == 2
    assert cluster_of(backend).spec.task_history_limit == 77


async def test_only_managers_with_a_leader_know_and_rotate(
    outside: Caller, backend: MemoryBackend
) -> None:
    for method, path in CALLS:
        assert "docker swarm init" in await outside.refused(method, path, 503)
    await outside.post("/swarm/init", {})
    backend.has_leader = False
    for method, path in CALLS:
        assert "does not have a leader" in await outside.refused(method, path, 503)
    backend.set_membership(Membership(LocalState.ACTIVE, NodeId("n2"), False))
    for method, path in CALLS:
        assert "run this command on a manager" in await outside.refused(method, path, 503)
