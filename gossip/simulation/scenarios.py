"""What can be run by name: a cluster, what happens to it, and figures (pure).

Every scenario starts with nodes that know each other, all attached to one scope, unless it says
that they join first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gossip.simulation.cluster import cluster
from gossip.simulation.detection import kill
from gossip.simulation.network import Mode, SimNetwork
from gossip.wire import State

_NET = "net"
_SETTLE_S = 10.0
_CEILING_S = 180.0
_LATE = f"not within {_CEILING_S:.0f} s"

Fact = tuple[str, str]
"""What was measured, and the figure."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario."""

    summary: str
    play: Callable[[SimNetwork], Iterable[Fact]]
    nodes: int = 25
    joins: bool = False
    """Whether the nodes have yet to find each other."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    nodes: int
    facts: tuple[Fact, ...]
    trace: str
    """Equal for equal seeds, whatever the mode."""

    @property
    def is_late(self) -> bool:
        """Whether something that was waited for did not come."""
        return any(figure == _LATE for _, figure in self.facts)


def play(name: str, *, seed: int, nodes: int | None = None, mode: Mode = Mode.OBJECTS) -> Outcome:
    """Run a scenario. Raises KeyError if there is none of that name."""
    scenario = SCENARIOS[name]
    size = nodes or scenario.nodes
    if scenario.joins:
        net = SimNetwork(size, seed=seed, mode=mode)
    else:
        net = cluster(size, seed=seed, mode=mode, scope=_NET, settle_s=_SETTLE_S)
    facts = list(scenario.play(net))
    packets = sum(net.sent.values())
    facts += [
        ("virtual time", _seconds(net.now)),
        ("packets", f"{packets} ({packets / net.now / len(net.nodes):.2f} a node and second)"),
        ("deaths declared", str(sum(n.machine.counters.deaths for n in net.nodes.values()))),
    ]
    return Outcome(size, tuple(facts), net.trace)


def _join(net: SimNetwork) -> Iterable[Fact]:
    yield "all know all after", until(net, net.all_alive)


def _idle(net: SimNetwork) -> Iterable[Fact]:
    before = sum(net.sent.values())
    net.run(60)
    packets = sum(net.sent.values()) - before
    yield "packets a node and second", f"{packets / 60 / len(net.nodes):.2f}"


def _update(net: SimNetwork) -> Iterable[Fact]:
    yield "all have one record after", _spread(net)


def _lossy(net: SimNetwork) -> Iterable[Fact]:
    net.faults.loss = 0.2
    yield "all have one record after", _spread(net)
    net.run(60)
    net.faults.loss = 0.0
    yield "all alive after the loss ended", until(net, net.all_alive)


def _death(net: SimNetwork) -> Iterable[Fact]:
    found = kill(net, "n1")
    yield "first to know after", _seconds(found.first_s)
    yield "all know after", _seconds(found.all_s)


def _pause(net: SimNetwork) -> Iterable[Fact]:
    net.pause("n1")
    net.run(30)
    yield "takes it for dead", str(sum(net.states(n.name)["n1"] is State.DEAD for n in net.up))
    net.resume("n1")
    yield "all alive after it woke", until(net, net.all_alive)


def _partition(net: SimNetwork) -> Iterable[Fact]:
    names = list(net.nodes)
    net.split(names[: len(names) // 2])
    net.run(60)
    net.publish(names[0], _NET, "key", b"v")
    net.heal()
    yield "all alive after it healed", until(net, net.all_alive)
    holds = [net.machine(name).holds for name in names]

    def have_all() -> bool:
        return all(holder(_NET, names[0], "key") for holder in holds)

    yield "from then on until all have what was said meanwhile", until(net, have_all)


def _one_way(net: SimNetwork) -> Iterable[Fact]:
    net.cut.add(("n1", "n0"))
    net.run(60)
    yield "probes that only helpers answered", str(net.machine("n0").counters.probes_relayed)


def _restart(net: SimNetwork) -> Iterable[Fact]:
    for name in net.nodes:
        net.kill(name)
    for name in net.nodes:
        net.restart(name, join=["n0", "n1", "n2"])
    yield "all know all after", until(net, net.all_alive)


def _spread(net: SimNetwork) -> str:
    net.publish("n0", _NET, "key", b"v")
    holds = [node.machine.holds for node in net.up]
    return until(net, lambda: all(holder(_NET, "n0", "key") for holder in holds))


def until(net: SimNetwork, holds: Callable[[], bool]) -> str:
    """Return how long it takes until something holds, or say that it does not come."""
    started = net.now
    every_s = 0.001 if len(net.nodes) < 100 else 0.05  # noqa: PLR2004 - asking all is dear
    if not net.run(_CEILING_S, holds, every_s=every_s):
        return _LATE
    return _seconds(net.now - started)


def _seconds(value: float) -> str:
    return f"{value:.3f} s"


SCENARIOS = {
    "death": Scenario("One node stops without a word.", _death),
    "idle": Scenario("Nothing happens for a minute.", _idle),
    "join": Scenario("All nodes start at once and look for the first.", _join, 60, joins=True),
    "lossy": Scenario("A fifth of all packets is lost for a minute.", _lossy),
    "one-way": Scenario("One node no longer hears another, which hears it.", _one_way),
    "partition": Scenario("The network is parted for a minute, and heals.", _partition),
    "pause": Scenario("One node sleeps for 30 s, and wakes.", _pause),
    "restart": Scenario("All nodes restart at once, keeping their disks.", _restart),
    "update": Scenario("One record is published.", _update),
}
"""By name."""
