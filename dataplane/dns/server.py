"""DNS in every sandbox: makes the set of listeners match a plan.

Driven by `apply`, level-triggered like a driver: zones of known sandboxes are swapped, listeners
of new ones opened, those of gone ones closed. The sockets are opened by a function that is given,
since entering a network namespace is another module's business.

Invariant: a sandbox that cannot be served (it vanished, or is not there yet) hinders no other; the
next `apply` tries again.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from dataplane.dns.forwarder import PORT, Forwarder
from dataplane.dns.listener import Counters, Listener
from dataplane.dns.upstreams import Upstream
from dataplane.dns.zone import NetworkNames, Zone, build_zones
from dataplane.plan import NodePlan

logger = logging.getLogger(__name__)

ADDRESS = ("127.0.0.11", PORT)
"""Where a sandbox's /etc/resolv.conf points; Docker's."""
LISTEN_ADDRESS = ("127.0.0.11", 61_053)
"""Where we listen: port 53 is the tasks' own. Above the ephemeral ports, and nobody's by name."""
_BACKLOG = 16

Sockets = tuple[socket.socket, socket.socket]


@dataclass(frozen=True, slots=True)
class DnsStats:
    """Counts since the start, and what is under way."""

    sandboxes: int
    queries: int
    answered: int
    """By ourselves, from the plan."""
    forwarded: int
    malformed: int
    upstream_failures: int
    in_flight: int


class DnsServer:
    """The resolvers of all sandboxes of this node."""

    def __init__(
        self,
        open_sockets: Callable[[Path], Sockets],
        upstreams: Sequence[Upstream],
        rng: Random,
    ) -> None:
        """Serve nothing yet.

        Args:
            open_sockets: returns a UDP and a listening TCP socket in the network namespace at a
                path: `open_listening_sockets`, run in there; what is sent to ADDRESS must lead to
                them. Raises OSError.
            upstreams: (address, port) of the resolvers that are asked, in this order.
            rng: shuffles answers and picks query ids.
        """
        self._open_sockets = open_sockets
        self._rng = rng
        self._forwarder = Forwarder(upstreams, rng)
        self._counters = Counters()
        self._listeners: dict[str, Listener] = {}
        self._names: Mapping[str, NetworkNames] = {}
        self._unserved: set[str] = set()

    async def apply(self, plan: NodePlan, sandbox_path: Callable[[str], Path]) -> None:
        """Answer in every sandbox of `plan` as planned; `sandbox_path` as `Driver.sandbox_path`."""
        zones, self._names = build_zones(
            plan, self._names, has_upstream=self._forwarder.has_upstream
        )
        self._unserved &= zones.keys() - self._listeners.keys()
        for sandbox_id in self._listeners.keys() - zones.keys():
            await self._listeners.pop(sandbox_id).close()
        for sandbox_id, zone in zones.items():
            listener = self._listeners.get(sandbox_id)
            if listener is not None:
                listener.zone = zone
            else:
                await self._open(sandbox_id, zone, sandbox_path(sandbox_id))

    async def close(self) -> None:
        """Stop answering."""
        for listener in self._listeners.values():
            await listener.close()
        self._listeners.clear()
        self._forwarder.close()

    def stats(self) -> DnsStats:
        """Return counts."""
        counters = self._counters
        return DnsStats(
            sandboxes=len(self._listeners),
            queries=counters.queries,
            answered=counters.answered,
            forwarded=counters.forwarded,
            malformed=counters.malformed,
            upstream_failures=self._forwarder.failures,
            in_flight=self._forwarder.in_flight,
        )

    async def _open(self, sandbox_id: str, zone: Zone, path: Path) -> None:
        try:
            udp, tcp = self._open_sockets(path)
        except OSError as error:
            if sandbox_id not in self._unserved:
                logger.warning("sandbox=%s error=%r no DNS, will retry", sandbox_id, str(error))
            self._unserved.add(sandbox_id)
            return
        listener = Listener(zone, self._forwarder, self._rng, self._counters)
        await listener.open(udp, tcp)
        self._listeners[sandbox_id] = listener


def open_listening_sockets(address: tuple[str, int] = LISTEN_ADDRESS) -> Sockets:
    """Return a UDP and a TCP socket bound to `address` (port 0: any) in this thread's namespace.

    Raises:
        OSError: the address cannot be had.
    """
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind(address)
        tcp.listen(_BACKLOG)
        udp.bind(tcp.getsockname())
    except OSError:
        tcp.close()
        udp.close()
        raise
    return udp, tcp
