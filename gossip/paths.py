"""How each member is reached: how fast, and whether directly at all (pure).

A member whose direct way is broken (one-way loss, a wrong advertised port, a filter) stays alive as
long as helpers reach it. That would hide the fault for ever, so it is flagged.

Invariant: one direct ack ends the flag; `_RELAYED_PROBES` probes in a row without one raise it.
"""

from __future__ import annotations

from collections.abc import Callable

from gossip.config import GossipConfig

_SMOOTHING = 0.125
"""Weight of a new round-trip sample (RFC 6298)."""
_RELAYED_PROBES = 5
"""With 5 % of packets lost, one probe in 100,000 makes a false alarm; with 20 %, one in 170."""


class Paths:
    """One node's ways to the others."""

    __slots__ = (
        "_config",
        "_on_change",
        "_relayed",
        "_round_trips",
    )

    def __init__(self, *, config: GossipConfig, on_change: Callable[[str, bool], None]) -> None:
        self._config = config
        self._on_change = on_change
        self._round_trips: dict[str, float] = {}
        self._relayed: dict[str, int] = {}

    def measured(self, node_id: str, sample_s: float) -> None:
        """Take the time that a direct ack took."""
        old = self._round_trips.get(node_id, sample_s)
        self._round_trips[node_id] = old + _SMOOTHING * (sample_s - old)

    def round_trip_s(self, node_id: str) -> float | None:
        """Return the smoothed round trip of direct probes, if any was answered."""
        return self._round_trips.get(node_id)

    def timeout_s(self, node_id: str) -> float:
        """Return how long to wait for a direct ack before helpers are asked."""
        config = self._config
        known = self._round_trips.get(node_id)
        if known is None:
            return config.probe_timeout_s
        return min(config.probe_timeout_s, max(config.probe_timeout_min_s, 4 * known))

    def answered(self, node_id: str, *, is_direct: bool) -> bool:
        """Take the outcome of a probe that was answered; tell whether to probe again at once."""
        if is_direct and not self._relayed:
            return False
        was_relay_only = self.is_relay_only(node_id)
        if is_direct:
            self._relayed.pop(node_id, None)
            if was_relay_only:
                self._on_change(node_id, False)
            return False
        if was_relay_only:
            return False
        self._relayed[node_id] = self._relayed.get(node_id, 0) + 1
        if self.is_relay_only(node_id):
            self._on_change(node_id, True)
            return False
        return True

    def was_relayed(self, node_id: str) -> bool:
        """Tell whether only helpers reached a member when it was last probed."""
        return node_id in self._relayed

    def is_relay_only(self, node_id: str) -> bool:
        """Tell whether only helpers reach a member."""
        return self._relayed.get(node_id, 0) >= _RELAYED_PROBES

    def relay_only(self) -> int:
        """Return how many members are reached through helpers only."""
        return sum(count >= _RELAYED_PROBES for count in self._relayed.values())

    def forget(self, node_id: str) -> None:
        """Drop what is remembered of a member that is gone."""
        self._round_trips.pop(node_id, None)
        self._relayed.pop(node_id, None)
