"""The control loops of the manager that leads: pure decisions, run by `cluster.reconcile`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random

from cluster.control.liveness import Sighting

from cluster.control import liveness, loops
from cluster.model.ids import NodeId
from cluster.reconcile import reconcile
from cluster.state.changes import Change
from cluster.state.snapshot import Snapshot
from cluster.store.proposer import Proposer
from cluster.store.replica import Replica

logger = logging.getLogger(__name__)

LIVENESS_PERIOD_S = 0.25
"""Seconds between two looks at the heartbeats."""


class Leader:
    """Runs the loops while this manager leads; cancelled when it does not."""

    def __init__(
        self,
        *,
        replica: Replica,
        proposer: Proposer,
        sightings: Callable[[], Mapping[NodeId, Sighting]],
        dead: Callable[[], Collection[NodeId]],
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        self._replica = replica
        self._proposer = proposer
        self._sightings = sightings
        self._dead = dead
        self._clock = clock
        self._rng = rng

    async def run(self) -> None:
        """Lead until cancelled."""
        logger.info("leading: index=%d", self._replica.snapshot().index)
        with self._replica.watch() as tasks_changed, self._replica.watch() as nodes_changed:
            async with asyncio.TaskGroup() as group:
                group.create_task(
                    reconcile(
                        "tasks",
                        tasks_changed,
                        self._replica.snapshot,
                        self._decide_tasks,
                        self._proposer.propose,
                        next_look_s=self._next_look_s,
                    )
                )
                group.create_task(
                    reconcile(
                        "liveness",
                        nodes_changed,
                        self._replica.snapshot,
                        self._liveness(started_at=self._clock()),
                        self._proposer.propose,
                        next_look_s=lambda _: LIVENESS_PERIOD_S,
                    )
                )

    def _decide_tasks(self, snapshot: Snapshot) -> Sequence[Change]:
        return loops.decide_all(snapshot, self._clock(), self._rng)

    def _next_look_s(self, snapshot: Snapshot) -> float | None:
        now = self._clock()
        at = loops.next_wakeup(snapshot, now)
        return None if at is None else max(0.01, at - now)

    def _liveness(self, *, started_at: float) -> Callable[[Snapshot], Sequence[Change]]:
        def decide(snapshot: Snapshot) -> Sequence[Change]:
            return liveness.decide(
                snapshot,
                self._sightings(),
                self._dead(),
                self._clock(),
                started_at=started_at,
            )

        return decide
