"""Which of the host's 127.0.x.0/24 networks a local cluster answers in.

Local clusters of all users share the host's loopback addresses. A cluster holds a network by the
name of an abstract unix socket (unix(7)), which the kernel gives to one holder in a network
namespace and frees when the last process that inherited the socket has ended, also by kill -9.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path

from cluster.local.layout import HOST_NETWORKS_MAX
from cluster.model.errors import Unavailable

_FIRST_PORT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
RELEASE_TIMEOUT_S = 3.0
"""A forwarder notices within a fraction of a second that its cluster is gone."""


def hold_free() -> tuple[int, socket.socket]:
    """Return the lowest network that nobody holds, and the socket that holds it now.

    Raises:
        Unavailable: there is none.
    """
    for network in range(HOST_NETWORKS_MAX):
        holder = _try_to_hold(network)
        if holder is not None:
            return network, holder
    raise Unavailable(f"{HOST_NETWORKS_MAX} local clusters run on this machine: end one first")


def lowest_port() -> int:
    """Return the lowest port that this user may listen on (ip(7), ip_unprivileged_port_start)."""
    if os.geteuid() == 0:
        return 1
    return max(1, int(_FIRST_PORT.read_text()))


def wait_until_free(network: int) -> None:
    """Return once nobody holds the network, or after RELEASE_TIMEOUT_S (another cluster may)."""
    deadline = time.monotonic() + RELEASE_TIMEOUT_S
    while time.monotonic() < deadline:
        holder = _try_to_hold(network)
        if holder is not None:
            holder.close()
            return
        time.sleep(0.02)


def _try_to_hold(network: int) -> socket.socket | None:
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        holder.bind(f"\0hivewire-local-127.0.{network}")
    except OSError as error:
        holder.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return holder
