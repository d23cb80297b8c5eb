"""Which nodes were seen alive, when and by whom (pure).

Every manager notes the nodes that have their session with it. It reports its whole list to the
leader, again and again, so a lost report does no harm; the leader joins the lists. `now` is
monotonic seconds; ages travel, because clocks differ.

Invariant: what another manager reports never makes a node look older than what was seen here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from cluster.dispatch.requests import ReportedSighting
from cluster.model.ids import NodeId

GONE_KEPT_S = 60.0
"""How long a node without a session is still reported as gone."""
REPORT_AFTER_S = 1.0
"""Seconds between two reports to the leader when no session began or ended."""
REPORTS_KEPT_S = 60.0
"""How long the last report of a manager that is silent counts."""


@dataclass(frozen=True, slots=True)
class Seen:
    """When a node was last heard of, and whether it has a session."""

    at: float
    is_connected: bool
    ring: bytes = b""
    """Digest of the gossip keys that it held then; empty: it has not said."""


class Sightings:
    """One manager's list, and the latest lists of the others."""

    def __init__(self) -> None:
        self._own: dict[NodeId, Seen] = {}
        self._reports: dict[NodeId, tuple[float, dict[NodeId, Seen]]] = {}

    def saw(self, node: NodeId, now: float, ring: bytes | None = None) -> bool:
        """Note a message of the node; return whether it holds another ring than it said before."""
        known = self._own.get(node)
        before = b"" if known is None else known.ring
        self._own[node] = Seen(now, is_connected=True, ring=before if ring is None else ring)
        return ring is not None and ring != before

    def lost(self, node: NodeId, now: float) -> None:
        """Note that the node's session here is over; the node was last heard of before that."""
        seen = self._own.get(node)
        self._own[node] = (
            Seen(now, is_connected=False) if seen is None else replace(seen, is_connected=False)
        )

    def report(self, now: float) -> tuple[ReportedSighting, ...]:
        """Return this manager's list, for the leader."""
        self._own = {
            node: seen
            for node, seen in self._own.items()
            if seen.is_connected or now - seen.at < GONE_KEPT_S
        }
        return tuple(
            ReportedSighting(node, max(0.0, now - seen.at), seen.is_connected, seen.ring)
            for node, seen in sorted(self._own.items())
        )

    def receive(self, manager: NodeId, sightings: Sequence[ReportedSighting], now: float) -> None:
        """Note the list of another manager in place of its last one."""
        self._reports[manager] = (
            now,
            {s.node: Seen(now - s.age_s, s.is_connected, s.ring) for s in sightings},
        )

    def reporters(self, since: float) -> set[NodeId]:
        """Return the managers whose last report came since then."""
        return {manager for manager, (at, _) in self._reports.items() if at >= since}

    def joined(self, now: float, nodes: Collection[NodeId]) -> dict[NodeId, Seen]:
        """Return what is known of each of `nodes` that anyone has seen.

        A node is connected if it is with any manager. The ring is what it said last: of two
        managers, the one whose session with it is there, or was the last, has heard that.
        """
        self._reports = {
            manager: report
            for manager, report in self._reports.items()
            if now - report[0] < REPORTS_KEPT_S
        }
        joined: dict[NodeId, Seen] = {}
        for table in (self._own, *(table for _, table in self._reports.values())):
            for node, seen in table.items():
                known = joined.get(node)
                joined[node] = seen if known is None else _join(known, seen)
        return {node: seen for node, seen in joined.items() if node in nodes}


def _join(one: Seen, other: Seen) -> Seen:
    last = max(one, other, key=lambda seen: (seen.is_connected, seen.at))
    is_connected = one.is_connected or other.is_connected
    return Seen(max(one.at, other.at), is_connected, last.ring)
