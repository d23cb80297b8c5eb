"""`python -m bench [NAME]`: one benchmark, or all."""

from __future__ import annotations

import importlib
import sys

from bench.peers import PeerMissing
from bench.report import machine, say

NAMES = (
    "commits",
    "overlay",
    "vip",
    "ingress",
    "orchestration",
    "idle",
    "convergence",
    "detection",
    "detection_virtual",
    "gossip_idle",
    "gossip_share",
    "joins",
    "lifeguard",
    "simulator",
)


def main() -> int:
    """Run what was asked for and return the exit code."""
    names = sys.argv[1:] or list(NAMES)
    if unknown := set(names) - set(NAMES):
        say(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(NAMES)}")
        return 2
    say(f"machine: {machine()}")
    failed = 0
    for name in names:
        say(f"== {name}")
        try:
            importlib.import_module(f"bench.{name}").main()
        except PeerMissing as error:
            say(f"cannot run: {error}")
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
