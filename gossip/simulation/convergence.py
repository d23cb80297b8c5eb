"""How long until all nodes have one change: NetworkDB's measurements, made of this gossip (pure).

The scenario is that of moby's `networkdb/convergence_test.go`: a quiet cluster, one change, and the
time until every node has it, in steps of a millisecond. Under churn, eight junk records are written
every 20 ms by other nodes in turn, up to 2,000, and every 100 ms one node leaves or joins again; it
is not waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

from gossip.simulation.cluster import cluster
from gossip.simulation.network import SimNetwork

_NET = "net"
_STEP_S = 0.001
_CEILING_S = 180.0
_SETTLE_S = 8.0
_CHURN_S = 0.02
_CHURN_WRITES = 8
_CHURN_ENTRIES_MAX = 2000
_CHURN_STEPS_PER_FLAP = 5


class Change(Enum):
    """What happens once."""

    CREATE = "create"
    DELETE = "delete"
    JOIN_NETWORK = "join-network"
    WRITE_AFTER_JOIN = "write-after-join"


def converge_s(change: Change, nodes: int, *, seed: int, loss: float = 0.0) -> float:
    """Return how long one change takes to reach all nodes of a quiet cluster."""
    net = cluster(nodes, seed=seed)
    late = f"n{nodes - 1}" if change in {Change.JOIN_NETWORK, Change.WRITE_AFTER_JOIN} else ""
    for name in net.nodes:
        if name != late:
            net.attach(name, _NET)
    if change is Change.DELETE:
        net.publish("n0", _NET, "key", b"v")
    net.run(_SETTLE_S + net.rng.random())
    net.faults.loss = loss
    started = net.now
    has_it = _apply(net, change, late)
    names = list(net.nodes)
    if not net.run(_CEILING_S, lambda: all(map(has_it, names)), every_s=_STEP_S):
        raise RuntimeError(f"{change.value} with {nodes} nodes, seed {seed}: no convergence")
    return net.now - started


def converge_under_churn_s(nodes: int, *, seed: int) -> float:
    """Return how long one write takes to reach all stable nodes of a busy cluster."""
    net = cluster(nodes, seed=seed, scope=_NET, settle_s=_SETTLE_S)
    stable = list(net.nodes)[:-1]
    _Churn(net, stable[1:], f"n{nodes - 1}").start()
    started = net.now
    net.publish("n0", _NET, "tracked", b"v")
    has_it = _holder(net, "n0", "tracked")
    if not net.run(_CEILING_S, lambda: all(map(has_it, stable)), every_s=_STEP_S):
        raise RuntimeError(f"churn with {nodes} nodes, seed {seed}: no convergence")
    return net.now - started


class _Churn:
    """Junk records, and one node that comes and goes."""

    def __init__(self, net: SimNetwork, writers: Sequence[str], flapper: str) -> None:
        self._net = net
        self._writers = writers
        self._flapper = flapper
        self._steps = 0
        self._entries = 0

    def start(self) -> None:
        net, writer = self._net, self._writers[self._steps % len(self._writers)]
        self._steps += 1
        for _ in range(_CHURN_WRITES):
            if self._entries < _CHURN_ENTRIES_MAX:
                self._entries += 1
                net.publish(writer, _NET, f"junk{self._entries}", b"junk")
        if self._steps % _CHURN_STEPS_PER_FLAP == 0:
            is_in = _NET in net.nodes[self._flapper].scopes
            (net.detach if is_in else net.attach)(self._flapper, _NET)
        net.at(_CHURN_S, self.start)


def _apply(net: SimNetwork, change: Change, late: str) -> Callable[[str], bool]:
    """Make the change; return what tells whether a node has it."""
    match change:
        case Change.CREATE:
            net.publish("n0", _NET, "key", b"v")
            return _holder(net, "n0", "key")
        case Change.DELETE:
            net.withdraw("n0", _NET, "key")
            holds = _holder(net, "n0", "key")
            return lambda name: not holds(name)
        case Change.JOIN_NETWORK:
            net.attach(late, _NET)
            return lambda name: name == late or late in net.machine(name).peers(_NET)
        case Change.WRITE_AFTER_JOIN:
            net.attach(late, _NET)
            net.publish(late, _NET, "key", b"v")
            return _holder(net, late, "key")


def _holder(net: SimNetwork, owner: str, key: str) -> Callable[[str], bool]:
    return lambda name: net.machine(name).holds(_NET, owner, key)
