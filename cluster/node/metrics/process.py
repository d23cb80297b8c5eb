"""Metrics of the daemon's process, by the names that all Prometheus clients give them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from cluster.api.exposition import Kind, Metric
from cluster.model.version import VERSION

_PROC = Path("/proc")
_START_FIELD = 19
"""Of `/proc/self/stat`, counted from the one after the name (proc(5): starttime is the 22nd)."""
_RSS_FIELD = 1
"""Of `/proc/self/statm`: resident pages."""


@dataclass(frozen=True, slots=True)
class ProcessStats:
    """What the kernel says of this process."""

    cpu_s: float
    resident_bytes: int
    started_at: float
    """Unix time, seconds."""
    open_files: int


def read_process() -> ProcessStats:
    """Return what the kernel says of this process."""
    after_name = (_PROC / "self/stat").read_text().rpartition(")")[2].split()
    pages = int((_PROC / "self/statm").read_text().split()[_RSS_FIELD])
    return ProcessStats(
        cpu_s=time.process_time(),
        resident_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
        started_at=_booted_at() + int(after_name[_START_FIELD]) / os.sysconf("SC_CLK_TCK"),
        open_files=len(os.listdir(_PROC / "self/fd")),  # noqa: PTH208  (names only)
    )


def _booted_at() -> int:
    lines = (_PROC / "stat").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("btime ")).split()[1])


PROCESS: tuple[Metric[ProcessStats], ...] = (
    Metric(
        Kind.INFO,
        "hivewire_build_info",
        "The daemon's version.",
        lambda _: {VERSION: 1},
        ("version",),
    ),
    Metric(
        Kind.COUNTER,
        "process_cpu_seconds_total",
        "Processor time that the daemon has used; its tasks' is not in it.",
        lambda s: s.cpu_s,
    ),
    Metric(
        Kind.GAUGE,
        "process_resident_memory_bytes",
        "Memory of the daemon that is resident.",
        lambda s: s.resident_bytes,
    ),
    Metric(
        Kind.GAUGE,
        "process_start_time_seconds",
        "When the daemon started, as Unix time.",
        lambda s: s.started_at,
    ),
    Metric(
        Kind.GAUGE,
        "process_open_fds",
        "Files and sockets that the daemon has open.",
        lambda s: s.open_files,
    ),
)
