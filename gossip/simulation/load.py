"""What gossip costs: packets and bytes of idle nodes, hops of an update, repairs (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from gossip.config import GossipConfig
from gossip.simulation.cluster import cluster
from gossip.simulation.hosts import Node
from gossip.simulation.network import Mode, SimNetwork

_NET = "net"
_SETTLE_S = 30.0
_HEADERS_BYTES = 28
"""IPv4 and UDP."""
_OUTAGE_S = 1.0
_CEILING_S = 60.0


@dataclass(frozen=True, slots=True)
class Load:
    """Of one node, on average, each second."""

    packets: float
    bytes: float
    """With IP and UDP headers."""


def idle(nodes: int, *, seed: int, lasts_s: float = 60.0, mode: Mode = Mode.OBJECTS) -> Load:
    """Return what idle nodes send, all attached to one scope, anti-entropy included."""
    net = cluster(nodes, seed=seed, mode=mode, scope=_NET, settle_s=_SETTLE_S)
    before = _sent(net)
    net.run(lasts_s)
    packets, size = (now - then for now, then in zip(_sent(net), before, strict=True))
    node_seconds = nodes * lasts_s
    return Load(packets / node_seconds, (size + packets * _HEADERS_BYTES) / node_seconds)


def hops(nodes: int, *, seed: int) -> int:
    """Return over how many hops one update reaches the last of all nodes."""
    net = cluster(nodes, seed=seed, scope=_NET, settle_s=_SETTLE_S)
    found = {"n0": 0}

    def note(node: Node) -> None:
        if node.name not in found and node.machine.holds(_NET, "n0", "key"):
            found[node.name] = found.get(node.heard_from, 0) + 1

    net.publish("n0", _NET, "key", b"v")
    net.on_step = note
    if not net.run(_CEILING_S, lambda: len(found) == nodes):
        raise RuntimeError(f"an update reached {len(found)} of {nodes} nodes, seed {seed}")
    return max(found.values())


def repair_s(nodes: int, *, seed: int, config: GossipConfig | None = None) -> float:
    """Return how long a node that missed an update and an attachment goes without them.

    It hears nothing for a second, in which both are disseminated.
    """
    net = cluster(nodes, seed=seed, config=config, scope=_NET)
    net.run(_SETTLE_S + net.rng.random())
    net.add("late", join=["n0"])
    net.run(_SETTLE_S)
    net.split(["n1"])
    net.publish("n0", _NET, "key", b"v")
    net.attach("late", _NET)
    net.run(_OUTAGE_S)
    net.heal()
    healed, machine = net.now, net.machine("n1")

    def has_both() -> bool:
        return machine.holds(_NET, "n0", "key") and "late" in machine.peers(_NET)

    if not net.run(_CEILING_S, has_both):
        raise RuntimeError(f"nothing repaired in {_CEILING_S:.0f} s, seed {seed}")
    return net.now - healed


def _sent(net: SimNetwork) -> tuple[int, int]:
    counters = [node.machine.counters for node in net.up]
    return sum(c.datagrams_out for c in counters), sum(c.bytes_out for c in counters)
