"""The gossip key ring: when there is a new key, which one seals, which one goes (pure).

A key is ACCEPT (nodes open with it), PRIMARY (nodes seal with it), RETIRED (nodes open with it, and
answer whoever still seals with it), gone. The states are replicated and every step is one commit,
so a new leader goes on where the last one stopped: it neither skips nor repeats a step, and the
time of the next rotation is counted from the primary key, not from the leader's start (swarmkit
#1954 rotated with every leader, twice in a row replaced all keys that nodes had).

A rotation is due when the primary key is old, and when a node was removed that may hold it. Nodes
that are removed together cost one rotation, or two; such rotations leave room for others.

Which ring a node holds, it says itself with its heartbeats, once the ring is on its disk. That is
not replicated: a new leader hears it again within a second, and waits until then.

Invariants:
    exactly one key is PRIMARY, at most one is ACCEPT, and the newest key is one of the two;
    a key becomes PRIMARY when every node that is not down holds it;
    no step leaves a node that is not down without a key that the others seal with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import assert_never

from cluster.model.cluster import Cluster, GossipKey, KeyState
from cluster.model.errors import FailedPrecondition
from cluster.model.ids import NodeId
from cluster.model.node import NodeState
from cluster.state.changes import Change, PutCluster
from cluster.state.snapshot import Snapshot

KEY_BYTES = 32
"""For AES-256."""
KEYS_MAX = 8
"""Keys in a ring; with that many, rotation waits until a retired one goes."""
KEY_ID_MAX = 2**16 - 1
"""The largest that fits a packet's header; 89 years of rotations every 12 hours."""
REMOVAL_KEYS_MAX = KEYS_MAX - 2
"""With so many keys in the ring, one that a removed node holds is not replaced before a retired one
goes: what users wish, and what the clock asks for, still has room."""
DOWN_PERIODS = 2
"""Heartbeat periods that a new key waits when nodes are down: one may be coming back."""
RETIRED_S_MIN = 600.0
"""A retired key stays as long even if every node has acknowledged its successor: by then each pair
of members has spoken, and knows of each other that nobody seals with it."""
REMOVAL_PAUSE_S = RETIRED_S_MIN
"""So long a key is primary before it is replaced because a removed node may hold it: by then the
one before may be gone, so removals without end do not fill the ring while all nodes are up."""
CLOCK_SKEW_S = 60.0
"""By how much the clocks of managers may differ before a key's time counts as wrong."""
LOOK_S = 0.5
"""Seconds between two looks at the acknowledgements while a key waits for them."""
OVERDUE_S = 60.0
"""After so long somebody should look why a node does not take a new key."""
_DIGEST_BYTES = 16

Acknowledged = Mapping[NodeId, bytes]
"""Node -> digest of the ring that it holds, as it said last."""


def first_keys(random_bytes: Callable[[int], bytes], now: float) -> tuple[GossipKey, ...]:
    """Return the key ring of a new cluster; `random_bytes` is `secrets.token_bytes` or as good."""
    return (GossipKey(1, random_bytes(KEY_BYTES), KeyState.PRIMARY, now),)


def ring_digest(keys: tuple[GossipKey, ...]) -> bytes:
    """Return what a node says instead of the ring itself: ids, secrets and states, hashed."""
    digest = blake2b(digest_size=_DIGEST_BYTES)
    for key in keys:
        digest.update(f"{key.id} {key.state} {len(key.secret)} ".encode() + key.secret)
    return digest.digest()


def ring_text(keys: tuple[GossipKey, ...]) -> str:
    """Return the ring for logs and people, without secrets: `1 retired, 2 primary`."""
    return ", ".join(f"{key.id} {key.state}" for key in keys)


def decide(
    snapshot: Snapshot, acknowledged: Acknowledged, now: float, secret: bytes
) -> list[Change]:
    """Return the next step of the ring, if one is due.

    secret: KEY_BYTES fresh random bytes, for a new key.
    """
    cluster = snapshot.cluster
    if cluster is None or not cluster.gossip_keys or not snapshot.nodes:
        return []
    keys = tuple(_timed(key, now) for key in cluster.gossip_keys)
    missing = waiting_for(snapshot, acknowledged)
    live = [node for node in missing if snapshot.nodes[node].state is not NodeState.DOWN]
    pending = _pending(keys)
    if not live and pending is not None and (not missing or _has_waited(pending, cluster, now)):
        keys = tuple(_turned(key, now) for key in keys)
    else:
        keep_s = cluster.spec.key_rotation_s if missing else RETIRED_S_MIN
        keys = keys if live else tuple(key for key in keys if not _is_over(key, keep_s, now))
        if _is_rotation_due(keys, snapshot, now):
            keys = _with_new(keys, secret, now)
    return [] if keys == cluster.gossip_keys else [_put(cluster, keys, now)]


def rotate(cluster: Cluster, secret: bytes, now: float) -> Change:
    """Return what begins a rotation now, at a user's wish.

    Raises:
        FailedPrecondition: not now.
    """
    keys = cluster.gossip_keys
    pending = _pending(keys)
    if pending is not None:
        raise FailedPrecondition(
            f"a rotation of the gossip keys is under way already: key {pending.id} becomes primary "
            "when every node that is up holds it; see `hivewire swarm keys`"
        )
    if len(keys) >= KEYS_MAX:
        raise FailedPrecondition(
            f"the ring has {len(keys)} gossip keys, which is the most: retired ones go when every "
            "node holds the newest ring (bring back or remove nodes that are down), or "
            f"{cluster.spec.key_rotation_s / 3600:g} hours after they were retired"
        )
    if not _has_room(keys):
        raise FailedPrecondition(f"the ids of gossip keys are used up: the newest is {KEY_ID_MAX}")
    return _put(cluster, _with_new(keys, secret, now), now)


def waiting_for(snapshot: Snapshot, acknowledged: Acknowledged) -> list[NodeId]:
    """Return the nodes, down ones included, that have not said that they hold the ring."""
    keys = snapshot.cluster.gossip_keys if snapshot.cluster else ()
    digest = ring_digest(keys)
    return [node for node in sorted(snapshot.nodes) if acknowledged.get(node) != digest]


def overdue(snapshot: Snapshot, acknowledged: Acknowledged, now: float) -> list[NodeId]:
    """Return the nodes that are up and have kept a new key waiting for OVERDUE_S."""
    pending = _pending(snapshot.cluster.gossip_keys if snapshot.cluster else ())
    if pending is None or now < pending.since + OVERDUE_S:
        return []
    missing = waiting_for(snapshot, acknowledged)
    return [node for node in missing if snapshot.nodes[node].state is not NodeState.DOWN]


def is_settled(snapshot: Snapshot, now: float) -> bool:
    """Return whether `decide` has nothing to do, whatever nodes acknowledge."""
    keys = snapshot.cluster.gossip_keys if snapshot.cluster else ()
    is_single = len(keys) == 1 and keys[0] == _timed(keys[0], now)
    return not keys or (is_single and not _is_rotation_due(keys, snapshot, now))


def next_wakeup(snapshot: Snapshot) -> float | None:
    """Return LOOK_S while a key waits to be acknowledged; else nothing is urgent: None."""
    keys = snapshot.cluster.gossip_keys if snapshot.cluster else ()
    return None if _pending(keys) is None else LOOK_S


def _pending(keys: tuple[GossipKey, ...]) -> GossipKey | None:
    return next((key for key in keys if key.state is KeyState.ACCEPT), None)


def _timed(key: GossipKey, now: float) -> GossipKey:
    """Return the key with a time that can be counted from: none, or one to come, is no such."""
    return key if 0 < key.since <= now + CLOCK_SKEW_S else replace(key, since=now)


def _has_waited(pending: GossipKey, cluster: Cluster, now: float) -> bool:
    return now >= pending.since + DOWN_PERIODS * cluster.spec.heartbeat_period_s


def _is_over(key: GossipKey, keep_s: float, now: float) -> bool:
    return key.state is KeyState.RETIRED and now >= key.since + keep_s


def _is_rotation_due(keys: tuple[GossipKey, ...], snapshot: Snapshot, now: float) -> bool:
    primary = next((key for key in keys if key.state is KeyState.PRIMARY), None)
    if primary is None or snapshot.cluster is None:
        return False
    if _pending(keys) is not None or not _has_room(keys):
        return False
    age_s = now - primary.since
    is_known = any(removed.key >= primary.id for removed in snapshot.removed.values())
    if is_known and len(keys) < REMOVAL_KEYS_MAX and age_s >= REMOVAL_PAUSE_S:
        return True
    return age_s >= snapshot.cluster.spec.key_rotation_s


def _has_room(keys: tuple[GossipKey, ...]) -> bool:
    return len(keys) < KEYS_MAX and keys[-1].id < KEY_ID_MAX


def _with_new(keys: tuple[GossipKey, ...], secret: bytes, now: float) -> tuple[GossipKey, ...]:
    return (*keys, GossipKey(keys[-1].id + 1, secret, KeyState.ACCEPT, now))


def _turned(key: GossipKey, now: float) -> GossipKey:
    """Return what the key is when the pending one becomes PRIMARY."""
    match key.state:
        case KeyState.ACCEPT:
            return replace(key, state=KeyState.PRIMARY, since=now)
        case KeyState.PRIMARY:
            return replace(key, state=KeyState.RETIRED, since=now)
        case KeyState.RETIRED:
            return key
        case _:
            assert_never(key.state)


def _put(cluster: Cluster, keys: tuple[GossipKey, ...], now: float) -> Change:
    changed = replace(cluster, gossip_keys=keys, meta=replace(cluster.meta, updated_at=now))
    return PutCluster(changed, expect=cluster.meta.version)
