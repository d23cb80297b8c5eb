"""One simulated node: its machine, its disk, its inbox and what is wrong with it (pure)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from gossip.machine import Machine
from gossip.wire import Address

NEVER = float("inf")


@dataclass(slots=True, eq=False)
class Node:
    """One simulated host."""

    name: str
    number: int
    address: Address
    machine: Machine
    epoch: int
    """What its disk says."""
    service_s: float
    """How long it is busy with one packet: an inbox is never processed in zero time."""
    is_up: bool = True
    is_paused: bool = False
    is_blocked: bool = False
    """Its timers go on, but it neither sends nor takes anything."""
    side: int = 0
    """Of a partition: nodes of different sides do not hear each other."""
    scopes: set[str] = field(default_factory=set[str])
    alarm_at: float = NEVER
    busy_until: float = 0.0
    is_serving: bool = False
    """Whether an event is set that takes the next packet of the inbox."""
    heard_from: str = ""
    """Who sent the packet that it took last."""
    inbox: deque[tuple[bytes, Node]] = field(default_factory=deque["tuple[bytes, Node]"])
    """Packets and who sent them."""
    outbox: list[tuple[bytes, Address]] = field(default_factory=list[tuple[bytes, Address]])
    """What waits while it is blocked."""

    def begin(self, machine: Machine, epoch: int) -> None:
        """Begin a new life."""
        self.machine, self.epoch = machine, epoch
        self.is_up, self.is_paused, self.is_blocked, self.is_serving = True, False, False, False
        self.alarm_at, self.busy_until = NEVER, 0.0
        self.inbox.clear()
        self.outbox.clear()
        self.scopes.clear()
