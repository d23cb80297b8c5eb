"""False alarms while some members are slow: the Lifeguard paper's interval experiment (pure).

Of 128 members, C are blocked for D and run for I, in turn, for 120 s (Dadgar et al. 2017, section
V-D): what a blocked member sends and receives waits while its timers go on, as in the paper. Every
time that any member takes a healthy one for dead is a false positive (FP); at a healthy member it
counts as FP- as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from gossip.config import GossipConfig
from gossip.events import Event, MemberChanged
from gossip.simulation.cluster import cluster
from gossip.simulation.hosts import Node
from gossip.simulation.network import SimNetwork
from gossip.wire import State

NODES = 128
ALPHA = 5
BETA = 6
_SETTLE_S = 15.0
_LASTS_S = 120.0


@dataclass(frozen=True, slots=True)
class Cell:
    """One experiment."""

    blocked: int
    """C: members that block."""
    blocked_s: float
    """D."""
    normal_s: float
    """I."""


CELLS = tuple(
    Cell(blocked, blocked_s, normal_s)
    for blocked in (4, 16, 32)
    for blocked_s in (8.192, 32.768)
    for normal_s in (0.004, 0.256)
)
"""The cells that the anchors were measured with."""


@dataclass(frozen=True, slots=True)
class Alarms:
    """What one experiment counted."""

    false: int
    """FP."""
    false_at_healthy: int
    """FP-."""
    true: int
    """Deaths of members that did block."""
    packets: int


def lifeguard() -> GossipConfig:
    """Return the configuration under test."""
    return _with_paper(GossipConfig.lan())


def swim() -> GossipConfig:
    """Return what it is compared with."""
    return _with_paper(GossipConfig.swim())


def replay(cell: Cell, config: GossipConfig, *, seed: int, nodes: int = NODES) -> Alarms:
    """Run one experiment."""
    net = cluster(nodes, seed=seed, config=config, settle_s=_SETTLE_S)
    slow = set(net.rng.sample(list(net.nodes), cell.blocked))
    counts = {"false": 0, "false at healthy": 0, "true": 0}

    def count(node: Node, event: Event) -> None:
        if not isinstance(event, MemberChanged) or event.state is not State.DEAD:
            return
        if event.node_id in slow:
            counts["true"] += 1
        else:
            counts["false"] += 1
            counts["false at healthy"] += node.name not in slow

    net.on_event = count
    before = sum(net.sent.values())
    for name in sorted(slow):
        _block(net, name, cell)
    net.run(_LASTS_S)
    packets = sum(net.sent.values()) - before
    return Alarms(counts["false"], counts["false at healthy"], counts["true"], packets)


def _block(net: SimNetwork, name: str, cell: Cell) -> None:
    net.block(name)
    net.at(cell.blocked_s, _then(net, name, cell))


def _then(net: SimNetwork, name: str, cell: Cell) -> Callable[[], None]:
    def resume() -> None:
        net.unblock(name)
        net.at(cell.normal_s, lambda: _block(net, name, cell))

    return resume


def _with_paper(config: GossipConfig) -> GossipConfig:
    return replace(config, suspicion_multiplier=ALPHA, suspicion_max_multiplier=BETA)
