"""The seeds that gossip scenarios run with, and the simulator they use."""

from __future__ import annotations

import os

from gossip.simulation.hosts import Node
from gossip.simulation.network import AUTHORITY, KEYS, Mode, SimNetwork

__all__ = ["AUTHORITY", "KEYS", "SEEDS", "Mode", "Node", "SimNetwork"]

SEEDS = range(int(os.environ.get("HIVEWIRE_SEEDS", "3")))
"""Seeds each scenario runs with."""
