"""What can befall the nodes of a local cluster, as values; `Faults` brings it about and ends it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from dataclasses import dataclass

from cluster.local.control import Request, ask
from cluster.local.layout import Layout, LocalNode
from dataplane.kernel.nft import chain_block, replace_table
from tests.e2e.lab import daemon_of, supervisor_of


@dataclass(frozen=True, slots=True)
class Killed:
    """The daemon is killed; it is started again at the end."""

    node: str
    tasks: bool
    """The tasks too, as in a power cut."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """The daemon stands still (SIGSTOP)."""

    node: str


@dataclass(frozen=True, slots=True)
class Cut:
    """No packet gets from any node of `sources` to any of `targets`."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    both_ways: bool


_POWER_CUT = 0.08
"""Share of the rounds."""

Fault = Killed | Frozen | Cut


def choose(rng: random.Random, managers: list[str], workers: list[str]) -> list[Fault]:
    """Return what befalls a cluster in one round: one to three faults, or no power."""
    if rng.random() < _POWER_CUT:
        return [Killed(node, tasks=True) for node in managers + workers]
    faults = [_choose_one(rng, managers, workers) for _ in range(rng.choice((1, 1, 2, 3)))]
    hit: set[str] = set()
    chosen: list[Fault] = []
    for fault in faults:  # a node dies or freezes once
        if isinstance(fault, Cut):
            chosen.append(fault)
        elif fault.node not in hit:
            hit.add(fault.node)
            chosen.append(fault)
    return chosen


def _choose_one(rng: random.Random, managers: list[str], workers: list[str]) -> Fault:
    nodes = managers + workers
    both_ways = rng.random() < 0.6
    kind = rng.choice(
        ("kill", "kill", "freeze", "managers", "managers", "halves", "pair", "worker")
    )
    match kind:
        case "kill":
            return Killed(rng.choice(nodes), tasks=rng.random() < 0.5)
        case "freeze":
            return Frozen(rng.choice(nodes))
        case "managers":  # they are parted from each other, not from the workers
            return _cut(rng, managers, both_ways)
        case "halves":
            return _cut(rng, nodes, both_ways)
        case "pair":
            return _cut(rng, rng.sample(nodes, 2), both_ways)
        case _:
            return Cut((rng.choice(workers),), tuple(managers), both_ways)


def _cut(rng: random.Random, nodes: list[str], both_ways: bool) -> Cut:
    side = set(rng.sample(nodes, rng.randint(1, len(nodes) - 1)))
    sources = tuple(node for node in nodes if node in side)
    return Cut(sources, tuple(node for node in nodes if node not in side), both_ways)


class Faults:
    """Brings faults about in a local cluster and ends them."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._killed: list[str] = []
        self._frozen: list[int] = []

    def begin(self, faults: list[Fault]) -> None:
        """Bring them about, all at once."""
        self._set_cuts([fault for fault in faults if isinstance(fault, Cut)])
        for fault in faults:
            if isinstance(fault, Killed):
                request = Request(do="kill", node=fault.node, tasks=fault.tasks)
                ask(self._layout.control_socket, request)
                self._killed.append(fault.node)
            elif isinstance(fault, Frozen):
                daemon = daemon_of(self._layout, self._layout.node(fault.node))
                os.kill(daemon, signal.SIGSTOP)
                self._frozen.append(daemon)

    def end(self) -> None:
        """End what `begin` brought about."""
        while self._frozen:
            os.kill(self._frozen.pop(), signal.SIGCONT)
        while self._killed:
            ask(self._layout.control_socket, Request(do="start", node=self._killed.pop()))
        self._set_cuts([])

    def _set_cuts(self, cuts: list[Cut]) -> None:
        """Let the bridge that all nodes are on drop just what these cuts say."""
        rules = [
            f"ip saddr {_set(self._layout, source)} ip daddr {_set(self._layout, target)} drop"
            for cut in cuts
            for source, target in _ways(cut)
        ]
        hook = "type filter hook forward priority 0"
        text = replace_table("bridge chaos", chain_block("forward", rules, hook))
        inside = ["nsenter", "-t", str(supervisor_of(self._layout)), "--net"]
        if os.geteuid() != 0:
            inside += ["--user", "--preserve-credentials"]
        subprocess.run([*inside, "nft", "-f", "-"], input=text.encode(), check=True)


def _ways(cut: Cut) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    back = [(cut.targets, cut.sources)] if cut.both_ways else []
    return [(cut.sources, cut.targets), *back]


def _set(layout: Layout, names: tuple[str, ...]) -> str:
    nodes: list[LocalNode] = [layout.node(name) for name in names]
    return "{ " + ", ".join(node.address for node in nodes) + " }"
