"""All loops in one transaction: from a new service to its assigned tasks (pure).

The loops run in the order of a task's life, each on what the ones before it have changed, so that
one commit takes any number of replicas from nothing to their nodes. The transaction is kept well
below what consensus takes; what does not fit waits for the next look. A cut is safe anywhere: any
prefix of what a loop returns may be committed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from cluster.control import allocator, orchestrator, reaper, scheduler
from cluster.state.apply import apply
from cluster.state.changes import Change
from cluster.state.codec import encode_changes
from cluster.state.snapshot import Snapshot

BATCH_BYTES_MAX = 384 * 1024
"""Largest transaction made here; consensus takes 512 KiB (`store.proposer.COMMAND_BYTES_MAX`)."""
LOOP_BYTES_MAX = BATCH_BYTES_MAX // 2
"""One loop's part: new tasks leave room for their own allocation and assignment."""


def decide_all(snapshot: Snapshot, now: float, rng: Random) -> list[Change]:
    """Return what orchestrator, allocator, scheduler and reaper ask for, in this order.

    But tasks are given up first: the others count on their places and addresses.
    """
    loops: tuple[Callable[[Snapshot], list[Change]], ...] = (
        lambda view: reaper.give_up(view, now),
        lambda view: orchestrator.decide(view, now, rng),
        lambda view: allocator.decide(view, now),
        lambda view: scheduler.decide(view, now),
        reaper.forget,
    )
    decided: list[Change] = []
    room = BATCH_BYTES_MAX
    for decide in loops:
        changes, size = _fitting(decide(snapshot), min(room, LOOP_BYTES_MAX))
        if not decided and not changes:
            continue
        room -= size
        decided += changes
        snapshot = apply(snapshot, changes, snapshot.index + 1)
    return decided


def next_wakeup(snapshot: Snapshot, now: float) -> float | None:
    """Return the seconds (> 0) after which time alone may ask for something; None: never."""
    delays = (orchestrator.next_wakeup(snapshot, now), reaper.next_wakeup(snapshot, now))
    return min((delay for delay in delays if delay is not None), default=None)


def _fitting(changes: Sequence[Change], room: int) -> tuple[list[Change], int]:
    """Return the first changes that fit in `room` bytes (but at least one), and their size."""
    size = 0
    for position, change in enumerate(changes):
        grown = size + len(encode_changes([change]))
        if grown > room and position:
            return list(changes[:position]), size
        size = grown
    return list(changes), size
