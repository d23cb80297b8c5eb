"""Sixty nodes that join one seed at one instant: how long until all 61 know all, beside serf.

Every node is a process of its own on loopback (`gossip_fleet`); processes start before the clock
does. Serf's agents (profile lan, encrypted) are told to join over connections that are open, at one
instant as well, and are asked for their members every half second, which costs them something. All
share this machine's cores: neither time is that of 61 machines, and neither counts what a daemon
does before and after, such as getting its certificate.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from bench import serf
from bench.gossip_fleet import Fleet, fleet, wait_until_full
from bench.report import say, value
from gossip.peer import GossipConfig

JOINERS = 60
RUNS = 20
SERF_RUNS = 2
TARGET_S = 3.0
_PATIENCE_S = 15.0
_SERF_PATIENCE_S = 20.0
_LEAD_S = 0.3
"""Between the command to join and the instant."""


def main() -> None:
    """Measure and print."""
    say(f"serf, {JOINERS} agents join one at once:")
    for _ in range(SERF_RUNS):
        _serf_run()
    worst: list[float] = []
    complete = 0
    with fleet(JOINERS + 1, GossipConfig.lan()) as made:
        for run in range(RUNS):
            times = _run(made)
            is_complete = len(times) == made.size
            slowest = max(times) if is_complete else _PATIENCE_S
            complete += is_complete and slowest <= TARGET_S
            worst.append(slowest)
            known = f"{len(times)} of {made.size} know all"
            say(f"run {run + 1}: {known}, the last after {slowest:.2f} s")
    say(f"median of the last: {statistics.median(worst):.2f} s; worst: {max(worst):.2f} s")
    value("joins_complete_runs", complete)
    value("joins_worst_s", max(worst))


def _run(made: Fleet) -> list[float]:
    made.start()
    try:
        at = time.monotonic() + _LEAD_S
        made.join(list(range(1, made.size)), at)
        return list(wait_until_full(made, at, _PATIENCE_S).values())
    finally:
        made.stop()


def _serf_run() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="hivewire-bench-") as directory,
        serf.agents(JOINERS + 1, Path(directory)) as agents,
    ):
        at = time.monotonic()
        for agent in agents[1:]:
            agent.join(agents[0].port)
        for agent in agents[1:]:
            agent.joined()
        times = serf.full_after(agents, at, _SERF_PATIENCE_S, 0.5)
        last = f"the last after {max(times):.2f} s" if len(times) == len(agents) else "not all"
        say(f"serf: {len(times)} of {len(agents)} know all within {_SERF_PATIENCE_S:.0f} s, {last}")
