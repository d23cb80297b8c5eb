"""What gossip costs an idle daemon: processor time and memory of bare gossip processes.

Thirty processes of `gossip_fleet` (profile `lan`, loopback) know each other and do nothing else for
a minute. A process is a peer, its event loop, TLS contexts and the pipe that the benchmark talks
over, so what is shown is at least gossip's share. Memory is what the process has allocated since it
was forked from a parent that had imported everything, plus what importing `gossip` takes (measured
in an interpreter that has imported what a daemon needs in any case).

What the numbers are not: the cost of tables; nobody publishes anything here. Serf's figures in
docs/benchmarks.md are of another day and machine.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from bench.gossip_fleet import fleet, gather
from bench.idle import usage, watch
from bench.report import say, value
from gossip.peer import GossipConfig

NODES = 30
SETTLE_S = 15.0
MEASURE_S = 60.0
_PATIENCE_S = 30.0
_SHARED = ("asyncio", "ssl", "msgpack", "cluster.ca.tls")
"""What a daemon imports whether or not it gossips."""


def main() -> None:
    """Measure and print."""
    imported_mb = _import_mb()
    with fleet(NODES, GossipConfig.lan()) as made:
        gather(made, list(range(1, NODES)), _PATIENCE_S)
        time.sleep(SETTLE_S)
        parent_mb = usage(os.getpid()).anonymous_mb
        used = watch(made.pids(), MEASURE_S)
    percents = [percent for _, percent in used]
    grown = [spent.anonymous_mb - parent_mb for spent, _ in used]
    say(f"processor: median {statistics.median(percents):.2f} %, most {max(percents):.2f} %")
    say(f"memory: running {statistics.median(grown):.1f} MB, most {max(grown):.1f} MB")
    say(f"memory: importing gossip {imported_mb:.1f} MB")
    value("gossip_cpu_percent", statistics.median(percents))
    value("gossip_rss_mb", max(grown) + imported_mb)


def _import_mb() -> float:
    with_gossip, without = (
        _interpreter_mb(modules) for modules in ((*_SHARED, "gossip.peer"), _SHARED)
    )
    return with_gossip - without


def _interpreter_mb(modules: tuple[str, ...]) -> float:
    code = f"import {', '.join(modules)}; print(flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdout is None or not process.stdout.readline():
            raise RuntimeError(f"cannot import {', '.join(modules)}")
        used = usage(process.pid)
        process.communicate(b"\n")
    return used.anonymous_mb
