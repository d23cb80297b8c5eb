"""The control loops of the manager that leads: pure decisions, run by `cluster.reconcile`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from random import Random

from cluster.allocation.tokens import SECRET_BYTES
from cluster.control import allocation_key, batch, keys, liveness
from cluster.control.liveness import Evidence
from cluster.model.ids import NodeId
from cluster.reconcile import reconcile
from cluster.state.changes import Change, PutCluster
from cluster.state.snapshot import Snapshot
from cluster.store.proposer import Proposer
from cluster.store.replica import Replica
from cluster.task_group import TaskGroup

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
        rings: Callable[[], Mapping[NodeId, bytes]],
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        """Get ready.

        evidence: when this leader began (unix seconds) -> what is known of the nodes' lives.
        rings: digests of the gossip keys that nodes hold. clock: unix time, seconds. rng: a source
        of secrets, too: a `SystemRandom` or as good.
        """
        self._replica = replica
        self._proposer = proposer
        self._evidence = evidence
        self._rings = rings
        self._overdue: list[NodeId] = []
        """Nodes that a new gossip key has been waiting for, as last logged."""
        self._clock = clock
        self._rng = rng

    async def run(self) -> None:
        """Lead until cancelled. The replica must have all that was committed before."""
        started_at = self._clock()
        logger.info("leading: index=%d", self._replica.snapshot().index)

        def decide_liveness(snapshot: Snapshot) -> Sequence[Change]:
            return liveness.decide(snapshot, self._evidence(started_at), self._clock())

        with (
            self._replica.watch() as tasks_changed,
            self._replica.watch() as nodes_changed,
            self._replica.watch() as keys_changed,
        ):
            async with TaskGroup() as group:
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
                group.create_task(
                    reconcile(
                        "keys",
                        keys_changed,
                        self._replica.snapshot,
                        self._decide_keys,
                        self._proposer.propose,
                        next_look_s=keys.next_wakeup,
                    )
                )

    def _decide_keys(self, snapshot: Snapshot) -> Sequence[Change]:
        if missing := allocation_key.decide(snapshot, self._rng.randbytes(SECRET_BYTES)):
            logger.info("allocation key made")
            return missing
        now = self._clock()
        if keys.is_settled(snapshot, now):
            return ()  # without asking what nodes hold: this is called at every change
        rings = self._rings()
        if (overdue := keys.overdue(snapshot, rings, now)) != self._overdue:
            self._overdue = overdue
            if overdue:
                logger.warning("gossip keys: a new key waits for nodes=%s", ",".join(overdue))
        changes = keys.decide(snapshot, rings, now, self._rng.randbytes(keys.KEY_BYTES))
        for change in changes:
            if isinstance(change, PutCluster):
                ring = keys.ring_text(change.cluster.gossip_keys)
                logger.info("gossip keys: ring=%s", ring)
        return changes
