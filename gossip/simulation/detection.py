"""How long until a death is known (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from gossip.config import GossipConfig
from gossip.events import Event, MemberChanged
from gossip.simulation.cluster import cluster
from gossip.simulation.hosts import Node
from gossip.simulation.network import SimNetwork
from gossip.wire import State

_SETTLE_S = 12.0
_CEILING_S = 120.0


@dataclass(frozen=True, slots=True)
class Detection:
    """Seconds after a node stopped."""

    first_s: float
    """Until one member takes it for dead."""
    all_s: float
    """Until all do."""


def detect(nodes: int, *, seed: int, config: GossipConfig | None = None) -> Detection:
    """Stop one node of a quiet cluster, unannounced."""
    net = cluster(nodes, seed=seed, config=config)
    net.run(_SETTLE_S + net.rng.random())
    return kill(net, net.rng.choice(list(net.nodes)))


def detect_in_turn(nodes: int, *, deaths: int, seed: int) -> list[Detection]:
    """Stop one node after another, each when all know of the one before."""
    net = cluster(nodes, seed=seed)
    net.run(_SETTLE_S + net.rng.random())
    names = net.rng.sample(list(net.nodes), deaths)
    return [kill(net, name) for name in names]


def kill(net: SimNetwork, name: str) -> Detection:
    """Stop a node and wait until all others know."""
    known_at: dict[str, float] = {}

    def note(node: Node, event: Event) -> None:
        if isinstance(event, MemberChanged) and event.node_id == name:
            if event.state is State.DEAD:
                known_at.setdefault(node.name, net.now)
            else:
                known_at.pop(node.name, None)

    net.on_event = note
    net.kill(name)
    started, others = net.now, len(net.up)
    if not net.run(_CEILING_S, lambda: len(known_at) == others, every_s=0.0):
        raise RuntimeError(f"{name} died and {others - len(known_at)} nodes do not know")
    net.on_event = None
    times = known_at.values()
    return Detection(min(times) - started, max(times) - started)
