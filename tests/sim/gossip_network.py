"""The seeds that gossip scenarios run with, and the simulator they use."""

from __future__ import annotations

import os

from gossip.simulation.hosts import Node
from gossip.simulation.network import AUTHORITY, KEYS, Mode, SimNetwork

__all__ = ["AUTHORITY", "KEYS", "SEEDS", "SHARE", "Mode", "Node", "SimNetwork", "mode"]

SEEDS = range(int(os.environ.get("HIVEWIRE_SEEDS", "200")))
"""Seeds each scenario runs with."""
SHARE = SEEDS[::10]
"""Seeds of what takes long, and is no scenario of its own."""


def mode(seed: int) -> Mode:
    """Return the mode to run a seed in: a share of all packets are packed, sealed and opened."""
    return Mode.BYTES if seed % 20 == 0 else Mode.OBJECTS
