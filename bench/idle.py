"""What an idle node costs: memory (RSS) and processor time of every daemon of a local cluster.

Five daemons on this machine, 3 managers and 2 workers, no services: what is left is Raft's and
gossip's heartbeats, sessions and control loops, at the timing of profile `local` (which beats
faster than `lan`). RSS counts shared pages of libraries in full for every daemon that uses them, as
`ps` does; what no other process can share is the anonymous part, which is shown too.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from bench.report import say, value
from cluster.local.lifecycle import start, stop
from cluster.model.errors import ClusterError

SETTLE_S = 10.0
MEASURE_S = 30.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What one daemon has used."""

    rss_mb: float
    """MiB now."""
    anonymous_mb: float
    """Of which not read from files."""
    cpu_s: float
    """User and system time since its start, with all its threads."""


def main() -> None:
    """Measure and print."""
    directory = Path(tempfile.mkdtemp(prefix="hw-"))
    layout = start(directory, managers=3, workers=2, progress=lambda _: None)
    try:
        time.sleep(SETTLE_S)
        processes = {node.name: daemon_pid(layout.data_root(node)) for node in layout.nodes}
        used = dict(zip(processes, watch(processes.values(), MEASURE_S), strict=True))
    finally:
        stop(layout)
    for name, (spent, percent) in used.items():
        say(
            f"{name}: {spent.rss_mb:.1f} MB (anonymous: {spent.anonymous_mb:.1f}), "
            f"{percent:.2f} % of a core"
        )
    value("idle_rss_mb", max(spent.rss_mb for spent, _ in used.values()))
    value("idle_cpu_percent", max(percent for _, percent in used.values()))


def watch(pids: Collection[int], seconds: float) -> list[tuple[Usage, float]]:
    """Return what each process has used after `seconds`, and percents of a core meanwhile."""
    before = [usage(pid).cpu_s for pid in pids]
    began = time.monotonic()
    time.sleep(seconds)
    after = [usage(pid) for pid in pids]
    took = time.monotonic() - began
    return [
        (used, 100.0 * (used.cpu_s - cpu_s) / took)
        for used, cpu_s in zip(after, before, strict=True)
    ]


def usage(pid: int) -> Usage:
    """Return what a process has used so far (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    resident, shared = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
    pages_per_mb = (1 << 20) / os.sysconf("SC_PAGE_SIZE")
    return Usage(
        resident / pages_per_mb,
        (resident - shared) / pages_per_mb,
        ticks / os.sysconf("SC_CLK_TCK"),
    )


def daemon_pid(data_root: Path) -> int:
    """Return the pid, as seen from here, of the daemon that keeps its state in `data_root`.

    Raises:
        ClusterError: there is not exactly one.
    """
    mark = f"\0--data-root\0{data_root}\0".encode()
    found = {pid for pid in _pids() if mark in _read(pid, "cmdline")}
    own = [pid for pid in found if _parent(pid) not in found]
    if len(own) != 1:
        raise ClusterError(f"{len(own)} daemons with --data-root {data_root}")
    return own[0]


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _parent(pid: int) -> int:
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""  # it ended
