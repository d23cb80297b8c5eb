"""Managers in virtual time, as far as gossip keys go: real decisions, sessions with delays.

They see nodes by heartbeats, tell them the ring, and hear which ring they hold; any of them may
lead. A node may be cut off from the managers and not from the other nodes, and the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from random import Random

from cluster.control import keys
from cluster.control.liveness import GRACE_PERIODS
from cluster.model.cluster import Cluster, ClusterSpec, GossipKey, JoinTokens
from cluster.model.ids import ClusterId, NodeId
from cluster.model.node import Node, NodeDescription, NodeSpec, NodeState, Role
from cluster.state.apply import apply
from cluster.state.changes import Change, DeleteNode, PutCluster, PutNode, SetNodeState
from cluster.state.snapshot import Snapshot
from gossip.keyring import GossipKey as RingKey
from gossip.keyring import KeyState as RingState
from gossip.simulation.network import KEYS, UNIX_S, SimNetwork

HEARTBEAT_S = 1.0
TICK_S = 0.25
DELAY_S_MAX = 0.3
"""Longest way of a message between a manager and a node; longest write to a node's disk."""
ELECTION_S_MAX = 2.0


@dataclass(slots=True)
class _Session:
    heard_at: float
    told: tuple[GossipKey, ...]
    disk: tuple[GossipKey, ...]
    arrives_at: float = 0.0
    kept_at: float = 0.0


@dataclass
class Managers:
    """The managers of the nodes of `net`."""

    net: SimNetwork
    rotation_s: float = 12 * 3600.0
    key_age_s: float = 0.0
    """How old the first key is at the start."""
    unreachable: set[str] = field(default_factory=set[str])
    """Nodes without a session, whatever gossip says."""
    snapshot: Snapshot = field(default_factory=Snapshot)
    steps: list[str] = field(default_factory=list[str])
    """Every ring that there was."""
    _held: dict[NodeId, bytes] = field(default_factory=dict[NodeId, bytes])
    _sessions: dict[str, _Session] = field(default_factory=dict[str, _Session])
    _leads_at: float = 0.0

    def __post_init__(self) -> None:
        self._rng = Random(self.net.seed)
        [first] = KEYS
        ring = (GossipKey(first.key_id, first.key, since=UNIX_S - self.key_age_s),)
        spec = ClusterSpec(heartbeat_period_s=HEARTBEAT_S, key_rotation_s=self.rotation_s)
        cluster = Cluster(ClusterId("c"), spec, b"", b"", JoinTokens("", ""), ring)
        self._commit([PutCluster(cluster)])
        for number, name in enumerate(self.net.nodes, 1):
            node = Node(NodeId(name), NodeSpec(Role.WORKER), NodeDescription(name), number)
            self._commit([PutNode(node), SetNodeState(node.id, NodeState.READY, "")])
            self._sessions[name] = _Session(self.net.now, ring, ring)
        self._tick()

    @property
    def ring(self) -> tuple[GossipKey, ...]:
        """The ring as the managers agree on it."""
        return self._cluster.gossip_keys

    @property
    def is_settled(self) -> bool:
        """Whether no key waits to be primary, and every node that runs has the ring."""
        is_over = self.ring[-1].state == "primary"
        return is_over and all(
            s.disk == self.ring for n, s in self._sessions.items() if self.net.nodes[n].is_up
        )

    def rotate(self) -> None:
        """Begin a rotation, as a user would."""
        self._commit([keys.rotate(self._cluster, self._rng.randbytes(32), self._now)])

    def remove(self, name: str) -> None:
        """Remove a node; the others are told by their sessions."""
        self._commit([DeleteNode(NodeId(name), timestamp=self._now)])
        del self._sessions[name]
        removed = list(self.snapshot.removed)
        for other in self._sessions:
            tell = partial(self.net.do, other, lambda m: m.set_removed(removed, now=self.net.now))
            self._at(self._after(0.0), tell)

    def change_leader(self) -> None:
        """Let another manager lead, which has heard of no node yet."""
        self._held.clear()
        self._leads_at = self.net.now + self._rng.uniform(0.0, ELECTION_S_MAX)

    @property
    def _cluster(self) -> Cluster:
        assert self.snapshot.cluster is not None
        return self.snapshot.cluster

    @property
    def _now(self) -> float:
        return UNIX_S + self.net.now

    def _commit(self, changes: list[Change]) -> None:
        self.snapshot = apply(self.snapshot, changes, self.snapshot.index + 1)
        if (text := keys.ring_text(self.ring)) not in self.steps[-1:]:
            self.steps.append(text)

    def _reaches(self, name: str) -> bool:
        node = self.net.nodes[name]
        return node.is_up and not node.is_paused and name not in self.unreachable

    def _tick(self) -> None:
        self.net.at(TICK_S, self._tick)
        for name, session in self._sessions.items():
            self._see(name, session)
        if self.net.now >= self._leads_at:
            secret = self._rng.randbytes(keys.KEY_BYTES)
            changes = keys.decide(self.snapshot, self._held, self._now, secret)
            if changes:
                self._commit(changes)

    def _see(self, name: str, session: _Session) -> None:
        node = NodeId(name)
        if not self._reaches(name):
            session.told = ()  # the next session tells everything
            if self.net.now >= session.heard_at + GRACE_PERIODS * HEARTBEAT_S:
                self._commit([SetNodeState(node, NodeState.DOWN, "")])
            return
        session.heard_at = self.net.now
        if self.snapshot.nodes[node].state is not NodeState.READY:
            self._commit([SetNodeState(node, NodeState.READY, "")])
        if session.told != self.ring:
            session.told = self.ring
            session.arrives_at = self._after(session.arrives_at)
            self._at(session.arrives_at, partial(self._tell, name, session, self.ring))
        held = keys.ring_digest(session.disk)
        if self._held.get(node) != held:
            self._at(self._after(0.0), partial(self._held.__setitem__, node, held))

    def _tell(self, name: str, session: _Session, ring: tuple[GossipKey, ...]) -> None:
        if not self._reaches(name):
            return
        self.net.do(name, lambda machine: machine.set_keys(_ring_of(ring)))
        session.kept_at = self._after(session.kept_at)
        self._at(session.kept_at, partial(self._keep, name, session, ring))

    def _keep(self, name: str, session: _Session, ring: tuple[GossipKey, ...]) -> None:
        if self.net.nodes[name].is_up:
            session.disk = ring
            self.net.rings[name] = _ring_of(ring)

    def _after(self, at: float) -> float:
        """Return a time after `at` and now: nothing overtakes what was on its way at `at`."""
        return max(at, self.net.now) + self._rng.uniform(0.0, DELAY_S_MAX)

    def _at(self, at: float, action: partial[None]) -> None:
        self.net.at(at - self.net.now, action)


def _ring_of(ring: tuple[GossipKey, ...]) -> list[RingKey]:
    return [RingKey(key.id, key.secret, RingState(key.state.value)) for key in ring]
