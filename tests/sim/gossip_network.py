"""The seeds that gossip scenarios run with, and the simulator they use."""

from __future__ import annotations

import os
from random import Random

from gossip.simulation.hosts import Node
from gossip.simulation.network import AUTHORITY, KEYS, Mode, SimNetwork

__all__ = ["AUTHORITY", "KEYS", "SEEDS", "Mode", "Node", "SimNetwork", "mode", "size"]

SEEDS = range(int(os.environ.get("HIVEWIRE_SEEDS", "200")))
"""Seeds each scenario runs with."""


def mode(seed: int) -> Mode:
    """Return the mode to run a seed in: a share of all packets are packed, sealed and opened."""
    return Mode.BYTES if seed % 20 == 0 else Mode.OBJECTS


def size(seed: int, full: int, *, small: tuple[int, int], full_every: int = 10) -> int:
    """Return how large a scenario is that takes too long to be of full size with all seeds.

    One seed in `full_every` runs it at full size, the others at a size drawn within `small`.
    """
    return full if seed % full_every == 0 else Random(seed).randint(*small)
