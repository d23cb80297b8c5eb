"""What a node says of the machine that it runs on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from cluster.api.backend import EngineFacts
from cluster.model.node import NodeDescription
from cluster.model.version import VERSION
from cluster.node.config import NodeConfig


def describe(config: NodeConfig, *, has_limits: bool) -> EngineFacts:
    """Return the facts of this machine; they do not change while the daemon runs."""
    return EngineFacts(
        engine_id=config.hostname,
        hostname=config.hostname,
        version=VERSION,
        operating_system=_operating_system(),
        kernel_version=platform.release(),
        architecture=platform.machine(),
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        data_root=str(config.data_root),
        labels=dict(config.labels),
        has_limits=has_limits,
        published_port_min=config.published_port_min,
    )


def describe_node(facts: EngineFacts) -> NodeDescription:
    """Return the same facts as a node registers them."""
    return NodeDescription(
        hostname=facts.hostname,
        os="linux",
        architecture=facts.architecture,
        nano_cpus=facts.cpus * 1_000_000_000,
        memory_bytes=facts.memory_bytes,
        engine_version=facts.version,
        engine_labels=facts.labels,
        has_limits=facts.has_limits,
    )


def _operating_system() -> str:
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return "Linux"
    pairs = dict(line.split("=", 1) for line in lines if "=" in line)
    return pairs.get("PRETTY_NAME", "Linux").strip('"')
