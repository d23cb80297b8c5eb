"""The simulator's own speed: idle clusters of objects, and what building one takes.

Node-seconds of virtual time in a second of processor time, of one process; resident memory is all
of it, after ten virtual seconds. The nodes are attached to nothing, as in the prototype behind the
target (50,000 with 1,000 nodes).

What the numbers are not: the speed of a cluster in which something happens. They depend on the
machine and on what else runs on it: 1,000 nodes do not fit its caches.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench.report import say, value
from gossip.simulation.cluster import cluster

_SIZES = (100, 1000)
_SETTLE_S = 10.0
_LASTS_S = 20.0


def main() -> None:
    """Measure and print; the values without a size are of the largest cluster."""
    value("simulator_node_seconds_per_s", [_measure(nodes) for nodes in _SIZES][-1])


def _measure(nodes: int) -> float:
    started = time.process_time()
    net = cluster(nodes, seed=1)
    build_s = time.process_time() - started
    net.run(_SETTLE_S)
    packets, served, began = net.delivered, net.served, time.process_time()
    net.run(_LASTS_S)
    node_seconds = nodes * _LASTS_S
    speed = node_seconds / (time.process_time() - began)
    packets, served = net.delivered - packets, net.served - served
    say(
        f"N={nodes:<4} {speed:.0f} node-seconds/s, in each {packets / node_seconds:.2f} packets"
        f" and {served / node_seconds:.2f} events"
    )
    value(f"simulator_build_s_{nodes}", build_s)
    value(f"simulator_rss_mib_{nodes}", _resident_mb())
    return speed


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
