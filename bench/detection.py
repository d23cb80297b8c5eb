"""One of thirty processes is killed with SIGKILL: how long until the others say so, beside serf.

The host lives and refuses packets to the dead process, so this is not how long a host that lost its
power is missed: that takes 6 to 10 s, see the simulator's figures. Every node is a process of its
own on loopback with `GossipConfig.lan()` (`gossip_fleet`); the daemon itself waits longer for
refused members (2.5 instead of 1.25 s), so that one that restarts is not declared dead. Serf's
agents (profile lan, encrypted) are asked for their members all the time, which costs them something
and rounds their times up by some 0.1 s. The time of the last node counts; the ratio is of medians.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from pathlib import Path
from random import Random

from bench import serf
from bench.gossip_fleet import fleet, gather, wait_until_dead
from bench.report import ratio, say, value
from gossip.peer import GossipConfig

NODES = 30
KILLS = 20
SERF_KILLS = 3
_PATIENCE_S = 30.0
_SETTLE_S = (1.0, 2.0)
"""Random, so that kills fall anywhere between probes."""


def main() -> None:
    """Measure and print."""
    theirs = _serf_kills()
    firsts, lasts = _kills()
    for name, times in (("first", firsts), ("all", lasts)):
        say(
            f"{name}: median {statistics.median(times):.2f} s, p95 {_p95(times):.2f} s, "
            f"{min(times):.2f}-{max(times):.2f} s"
        )
    value("detection_first_p95_s", _p95(firsts))
    value("detection_all_p95_s", _p95(lasts))
    ratio("detection", statistics.median(lasts), statistics.median(theirs))


def _p95(times: list[float]) -> float:
    return sorted(times)[math.ceil(0.95 * len(times)) - 1]


def _kills() -> tuple[list[float], list[float]]:
    rng = Random(1)  # noqa: S311 - when to kill whom
    firsts: list[float] = []
    lasts: list[float] = []
    with fleet(NODES, GossipConfig.lan()) as made:
        joiners = list(range(1, NODES))
        for _ in range(KILLS):
            gather(made, joiners, _PATIENCE_S)
            time.sleep(rng.uniform(*_SETTLE_S))
            victim = rng.randrange(1, NODES)
            at = made.kill(victim)
            times = wait_until_dead(made, victim, at, _PATIENCE_S)
            if len(times) < NODES - 1:
                raise RuntimeError(f"only {len(times)} nodes noticed within {_PATIENCE_S} s")
            firsts.append(min(times.values()))
            lasts.append(max(times.values()))
            joiners = [victim]
    return firsts, lasts


def _serf_kills() -> list[float]:
    rng = Random(1)  # noqa: S311 - when to kill whom
    times: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="hivewire-bench-") as directory,
        serf.agents(NODES, Path(directory)) as agents,
    ):
        for agent in agents[1:]:  # one after the other: all at once, some never learn of all
            agent.join(agents[0].port)
            agent.joined()
        serf.full_after(agents, time.monotonic(), _PATIENCE_S, 0.2)
        left = list(agents)
        for _ in range(SERF_KILLS):
            time.sleep(rng.uniform(*_SETTLE_S))
            victim = left.pop(rng.randrange(1, len(left)))
            at = time.monotonic()
            victim.kill()
            seen = serf.failed_after(left, victim.name, at, _PATIENCE_S)
            say(f"serf: {len(seen)} of {len(left)}: first {min(seen):.2f} s, all {max(seen):.2f} s")
            times.append(max(seen))
    return times
