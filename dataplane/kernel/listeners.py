"""Which ports processes listen on in a network namespace.

Source: proc(5), /proc/net/tcp and /proc/net/udp: fields 2 (local address:port, hexadecimal) and 4
(state: 0A is LISTEN for TCP, 07 is unconnected for UDP).
"""

from __future__ import annotations

from pathlib import Path

from dataplane.kernel.netns import run_in_namespace

_TABLES = (("tcp", "tcp", "0A"), ("tcp", "tcp6", "0A"), ("udp", "udp", "07"), ("udp", "udp6", "07"))
"""(protocol, file, state)."""
_FIELDS_MIN = 4


def open_ports(namespace: Path) -> set[tuple[str, int]]:
    """Return (protocol, port) of every listening TCP and unconnected UDP socket.

    Raises:
        OSError: the namespace is gone.
    """
    return run_in_namespace(namespace, _own_open_ports)


def _own_open_ports() -> set[tuple[str, int]]:
    found: set[tuple[str, int]] = set()
    for protocol, name, state in _TABLES:
        # `self` would be the main thread, which is in another namespace.
        path = Path("/proc/thread-self/net") / name
        text = path.read_text() if path.exists() else ""
        found |= parse_table(text, protocol, state)
    return found


def parse_table(text: str, protocol: str, state: str) -> set[tuple[str, int]]:
    """Return the ports in a table whose sockets are in `state`."""
    rows = (line.split() for line in text.splitlines()[1:])
    return {
        (protocol, int(row[1].rpartition(":")[2], 16))
        for row in rows
        if len(row) >= _FIELDS_MIN and row[3] == state
    }
