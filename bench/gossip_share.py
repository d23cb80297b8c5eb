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
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.gossip_fleet import fleet, wait_until_full
from bench.idle import usage
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
        made.start()
        began = time.monotonic()
        made.join(list(range(1, NODES)), began)
        if len(wait_until_full(made, began, _PATIENCE_S)) < NODES:
            raise RuntimeError(f"not all knew all within {_PATIENCE_S} s")
        time.sleep(SETTLE_S)
        parent_mb = _process_mb(os.getpid())
        pids = made.pids()
        before = {pid: usage(pid).cpu_s for pid in pids}
        began = time.monotonic()
        time.sleep(MEASURE_S)
        took = time.monotonic() - began
        percents = [100.0 * (usage(pid).cpu_s - before[pid]) / took for pid in pids]
        grown = [_process_mb(pid) - parent_mb for pid in pids]
    say(f"processor: median {statistics.median(percents):.2f} %, most {max(percents):.2f} %")
    say(f"memory: running {statistics.median(grown):.1f} MB, most {max(grown):.1f} MB")
    say(f"memory: importing gossip {imported_mb:.1f} MB")
    value("gossip_cpu_percent", statistics.median(percents))
    value("gossip_rss_mb", max(grown) + imported_mb)


def _process_mb(pid: int) -> float:
    return _anonymous_mb(Path(f"/proc/{pid}/smaps_rollup").read_text())


def _anonymous_mb(text: str) -> float:
    """Return the MiB that were not read from files, shared with a parent or not (proc(5))."""
    [found] = re.findall(r"^Anonymous:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found) / 1024


def _import_mb() -> float:
    with_gossip, without = (
        _interpreter_mb(modules) for modules in ((*_SHARED, "gossip.peer"), _SHARED)
    )
    return with_gossip - without


def _interpreter_mb(modules: tuple[str, ...]) -> float:
    code = f"import {', '.join(modules)}; print(open('/proc/self/smaps_rollup').read())"
    command = [sys.executable, "-c", code]
    return _anonymous_mb(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
