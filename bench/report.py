"""Printing results in a form that machines find again."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path


def say(text: str) -> None:
    """Print one line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def ratio(name: str, ours: float, peer: float) -> None:
    """Print the ratio of ours to the peer's."""
    say(f"ratio {name} {ours / peer:.2f}")


def value(name: str, figure: float) -> None:
    """Print an absolute figure."""
    say(f"value {name} {figure:.2f}")


def machine() -> str:
    """Return this machine in one line."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{len(os.sched_getaffinity(0))} cores ({model}), {memory:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )
