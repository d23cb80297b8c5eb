"""A node that gossips about four others, frozen at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.api.backend import LocalGossip
from gossip.keyring import KeyState
from gossip.peer import KeyView, LogView, MemberView, State, StoredView

CLOCK_TO_UNIX_S = 1_700_000_000.0
WRITTEN = CLOCK_TO_UNIX_S + 5

MEMBERS = (
    MemberView("a", State.ALIVE, "10.9.0.1", 7946, "10.9.0.1", 2, 7, 100.0),
    MemberView("b", State.ALIVE, "10.9.0.2", 7946, "10.9.1.2", 0, 8, 100.5, round_trip_s=0.00123),
    MemberView(
        "c", State.SUSPECT, "10.9.0.3", 7946, "10.9.0.3", 1, 9, 200.0,
        accuser="b", suspicion_ends_at=203.25,
    ),
    MemberView(
        "d", State.ALIVE, "10.9.0.4", 7946, "10.9.0.4", 0, 4, 90.0,
        round_trip_s=0.0004, is_relay_only=True,
    ),
    MemberView("e", State.LEFT, "10.9.0.5", 7946, "10.9.0.5", 0, 3, 95.0),
)  # fmt: skip
LOGS = (
    LogView("_nodes", "a", 7, 0, 1, 0, 1, 0, 28, True, WRITTEN),
    LogView("net1", "b", 8, 1, 4, 2, 2, 1, 321, True, WRITTEN),
    LogView("net1", "c", 9, 1, 0, 0, 0, 0, 0, False, 0.0),
)
STORED = (
    StoredView("b", "t1", 3, 140, True, WRITTEN),
    StoredView("b", "t2", 4, None, False, WRITTEN),
    StoredView("c", "t3", 1, 99, False, WRITTEN),
)


@dataclass(frozen=True, slots=True)
class FixedGossip:
    """What `gossip.peer.Peer` would show."""

    node_id: str = "a"

    def members(self) -> tuple[MemberView, ...]:
        return MEMBERS

    def logs(self) -> tuple[LogView, ...]:
        return LOGS

    def stored(self, scope: str) -> tuple[StoredView, ...]:
        return STORED if scope == "net1" else ()

    def keys(self) -> tuple[KeyView, ...]:
        return KeyView(1, KeyState.RETIRED, 12, 50.0), KeyView(2, KeyState.PRIMARY, 3456, 60.0)

    def unix_s(self, at: float) -> float:
        return CLOCK_TO_UNIX_S + at


LOCAL = LocalGossip(FixedGossip(), {"a": "m1", "b": "w1", "net1": "shop"})
