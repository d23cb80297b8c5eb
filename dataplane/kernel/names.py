"""Names and numbers by which the kernel driver knows what is its own (pure).

Everything that the driver makes carries one of these, and it removes nothing else: devices,
tables, routing tables, rules and firewall marks of others are never touched.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

TABLE = "hivewire"
"""Name of our nftables tables, in the node's namespace and in every sandbox."""
GENERATION = "generation_"
"""Prefix of the empty chain whose name says what its table holds."""
GATEWAY_DEVICE = "hw-gw"
"""Holds the node's gateway address; what is routed to it is for no sandbox that exists."""
INGRESS_DEVICE = "vx-ing"
NETWORK_BRIDGE = "br0"
NETWORK_TUNNEL = "vx0"
PORT_PREFIX = "hv"
"""Far side of a sandbox's cable, in a network or on the node: `hv` and 12 hex digits."""

MARK = 0x48570000
"""Firewall mark of a connection that came in by another node, less that node's index ("HW")."""
MARK_MASK = 0xFFFFF000
ROUTE_TABLE = 0x4857
"""Routing table of marked packets, and the priority of the rule that leads to it."""
ROUTE_TABLE_OF_NODE = 0x48570000
"""Without an egress hook each entry node has a routing table of its own, this plus its index."""
INSIDE_GROUP = 0x4857
"""Link group of sandboxes' uplinks and of the ingress tunnel, by which firewall rules know them."""
REMOVAL_GROUP = 0x4858
"""Link group of links that are being removed together."""
UPLINK_MAC = "02:fe:01:00:00:01"
"""Of the node's end of every uplink: both ends know each other without asking."""
RETURN_HOST = 0xFFFE
"""Offset in 100.127.0.0/16 of the next hop that stands for "the entry node"."""
RETURN_MAC = "02:fe:00:00:ff:fe"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def network_path(directory: Path, network: str) -> Path:
    """Return where the namespace of a network is pinned."""
    return directory / f"n-{_checked(network)}"


def sandbox_path(directory: Path, sandbox: str) -> Path:
    """Return where the namespace of a sandbox is pinned."""
    return directory / f"t-{_checked(sandbox)}"


def port_name(sandbox: str, number: int) -> str:
    """Return the far side's name of interface `number` of a sandbox: unique on the node."""
    digest = hashlib.sha256(f"{sandbox}/{number}".encode()).hexdigest()
    return PORT_PREFIX + digest[:12]


def interface_name(number: int) -> str:
    """Return the name that interface `number` has in its sandbox."""
    return f"eth{number}"


def is_port_name(name: str) -> bool:
    """Return whether a device of this name is the far side of some sandbox's interface."""
    return re.fullmatch(PORT_PREFIX + "[0-9a-f]{12}", name) is not None


def _checked(identifier: str) -> str:
    if _ID.fullmatch(identifier) is None:
        raise ValueError(f"{identifier!r} is no id that a file can be named by")
    return identifier
