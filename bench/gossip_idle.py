"""Packets, hops and repairs of gossip (virtual time).

Idle: all nodes attached to one network, nothing happens;
anti-entropy is included, and bytes count IP and UDP headers. Hops: over how many nodes one update
came to the last one, 5 runs. Repairs: a node of 25 that heard nothing for the second in which an
update and an attachment were spread.

What the numbers are not: processor time or memory (`make bench NAME=idle`).
"""

from __future__ import annotations

import math

from bench.report import say, value
from bench.virtual import simulate
from gossip.simulation.figures import figures
from gossip.simulation.load import Load, hops, idle, repair_s

_SIZES = (8, 16, 32, 64, 128, 256)
_HOP_SIZES = (5, 10, 25, 50, 100, 200, 500)
_HOP_RUNS = 5
_REPAIRS = 1000


def main() -> None:
    """Measure and print."""
    loads = simulate(_idle, _SIZES)
    for nodes, load in zip(_SIZES, loads, strict=True):
        say(f"idle N={nodes:<4} {load.packets:.2f} packets/s {load.bytes:.0f} B/s a node")
    most = 0.0
    for nodes in _HOP_SIZES:
        worst = max(simulate(_hops, [(nodes, seed) for seed in range(_HOP_RUNS)]))
        say(f"hops N={nodes:<4} at most {worst}, log3 N + 3 = {math.log(nodes, 3) + 3:.1f}")
        most = max(most, worst - math.log(nodes, 3))
    repairs = figures(simulate(_repair, range(_REPAIRS)))
    say(f"repairs {repairs.text(1, 2)} s (p50/p90/max)")
    value("gossip_repair_p99_s", repairs.at(0.99))
    value("gossip_hops_over_log3", most)
    packets = [load.packets for load in loads]
    value("gossip_idle_unevenness", max(packets) / min(packets))
    value("gossip_idle_packets", max(packets))


def _idle(nodes: int) -> Load:
    return idle(nodes, seed=1)


def _hops(job: tuple[int, int]) -> int:
    nodes, seed = job
    return hops(nodes, seed=seed)


def _repair(seed: int) -> float:
    return repair_s(25, seed=seed)
