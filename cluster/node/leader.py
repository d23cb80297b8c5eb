"""The control loops of the manager that leads: pure decisions, run by `cluster.reconcile`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from random import Random

from cluster.control import batch, liveness
from cluster.control.liveness import Evidence
from cluster.reconcile import reconcile
from cluster.state.changes import Change
from cluster.state.snapshot import Snapshot
from cluster.store.proposer import Proposer
from cluster.store.replica import Replica

logger = logging.getLogger(__name__)

LIVENESS_PERIOD_S = 0.5
"""Seconds between two looks at the heartbeats."""


class Leader:
    """Runs the loops while this manager leads; cancelled when it does not."""

    def __init__(
        self,
        *,
        replica: Replica,
        proposer: Proposer,
        evidence: Callable[[float], Evidence],
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        """Get ready.

        evidence: when this leader began (unix seconds) -> what is known of the nodes' lives.
        clock: unix time, seconds.
        """
        self._replica = replica
        self._proposer = proposer
        self._evidence = evidence
        self._clock = clock
        self._rng = rng

    async def run(self) -> None:
        """Lead until cancelled. The replica must have all that was committed before."""
        started_at = self._clock()
        logger.info("leading: index=%d", self._replica.snapshot().index)

        def decide_liveness(snapshot: Snapshot) -> Sequence[Change]:
            return liveness.decide(snapshot, self._evidence(started_at), self._clock())

        with self._replica.watch() as tasks_changed, self._replica.watch() as nodes_changed:
            async with asyncio.TaskGroup() as group:
                group.create_task(
                    reconcile(
                        "tasks",
                        tasks_changed,
                        self._replica.snapshot,
                        lambda snapshot: batch.decide_all(snapshot, self._clock(), self._rng),
                        self._proposer.propose,
                        next_look_s=lambda snapshot: batch.next_wakeup(snapshot, self._clock()),
                    )
                )
                group.create_task(
                    reconcile(
                        "liveness",
                        nodes_changed,
                        self._replica.snapshot,
                        decide_liveness,
                        self._proposer.propose,
                        next_look_s=lambda _: LIVENESS_PERIOD_S,
                    )
                )
