"""Listens to gossip: what the other nodes say, as far as the managers have signed it.

Driven by gossip, by `listen` (where) and by `trust` (whom). Proofs are checked a few at a time, so
that the daemon goes on meanwhile.

Invariants: a look counts as a whole; until it is done, what was heard before it counts, and of a
scope that is new nothing is known (`is_ready`). After a start, what is remembered of an owner
stands in until all that it has said is known.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from cluster.agent.hosts import Answers, DeadMember, Hosts
from cluster.agent.publisher import Gossip
from cluster.agent.sightings import (
    RawRecord,
    Reader,
    Reading,
    Sightings,
    is_repeated,
    recall,
    with_lost,
)
from cluster.allocation.tokens import Verifier
from cluster.model.assignment import ClusterInfo
from cluster.model.ids import ClusterId, NodeId
from cluster.task_group import TaskGroup
from gossip.wire import State

logger = logging.getLogger(__name__)

COALESCE_S = 0.005
"""What comes through gossip within this time shares one look."""
READ_AT_ONCE = 20
"""Records that are verified before others may run: 5 ms."""
READ_PER_LOOK_MAX = 2000
"""Records that one look verifies: 0.5 s; the rest is the next look's."""
WARN_AGAIN_S = 600.0
"""A node that publishes what is not its own is named no more often."""
RECALL_UNKNOWN_S = 30.0
"""After a start: how long members that gossip has not found yet count as live."""
RECALL_SILENT_S = 3.0
"""After a start: how long the records of live members may still be on their way."""
RECALL_FIRST_S = 2.0
"""After a start: how long the others may take to be heard at all."""


class Listener:
    """Hears and reads."""

    def __init__(
        self,
        node: NodeId,
        gossip: Gossip,
        *,
        remembered: Sightings,
        host_answers: Answers,
        on_heard: Callable[[], None],
    ) -> None:
        """Get ready; nothing happens before `run`.

        remembered: what gossip said before this start. host_answers: see `hosts`. on_heard:
        called after every look.
        """
        self._node = node
        self._gossip = gossip
        self._remembered = remembered
        self._on_heard = on_heard
        self._reader = Reader(node, Verifier(ClusterId(""), ()))
        """Believes nobody until it is told whom to believe."""
        self._scopes: frozenset[str] = frozenset()
        self._read_scopes: frozenset[str] = frozenset()
        """Scopes of the last look."""
        self._due = asyncio.Event()
        """Another look is."""
        self._hosts = Hosts(host_answers, self._look_again)
        self._started_at = 0.0
        self._warned_at: dict[NodeId, float] = {}
        self.sightings = remembered
        """What gossip said last, with what is remembered."""
        self.reading = Reading()
        """What that means."""
        self.is_up_to_date = False
        """The others have been heard since the start, or waited for: what is remembered is at least
        as old as what the kernel holds."""

    @property
    def is_ready(self) -> bool:
        """Whether all scopes have been looked at."""
        return self._scopes <= self._read_scopes

    def trust(self, info: ClusterInfo) -> None:
        """Believe the managers of this cluster."""
        verifier = Verifier(info.cluster, info.allocation_keys)
        if verifier != self._reader.verifier:
            self._reader = Reader(self._node, verifier)
            self._due.set()

    def listen(self, scopes: frozenset[str]) -> None:
        """Listen to these scopes, which gossip is attached to."""
        if scopes - self._scopes:
            self._due.set()
        self._scopes = scopes

    async def run(self) -> None:
        """Listen until cancelled."""
        self._started_at = asyncio.get_running_loop().time()
        with self._gossip.watch() as self._due:
            async with TaskGroup() as group:
                group.create_task(self._forget())
                group.create_task(self._hosts.run())
                while True:
                    self._due.clear()
                    await self._look()
                    await self._due.wait()
                    await asyncio.sleep(COALESCE_S)

    def _look_again(self) -> None:
        self._due.set()

    async def _forget(self) -> None:
        """Look again when what is remembered no longer counts."""
        passed_s = 0.0
        for at_s in (RECALL_FIRST_S, RECALL_SILENT_S, RECALL_UNKNOWN_S):
            await asyncio.sleep(at_s - passed_s)
            passed_s = at_s
            self._due.set()
        self._remembered = Sightings()

    async def _look(self) -> None:
        """Take in what gossip says now."""
        now = asyncio.get_running_loop().time()
        scopes, reader = self._scopes, self._reader
        is_recent = now - self._started_at < RECALL_SILENT_S
        stand_ins = self._remembered if is_recent else Sightings()
        said = _sightings(self._gossip, scopes, stand_ins)
        is_heard = bool(scopes) and is_repeated(said, self._remembered, scopes, self._node)
        self.sightings = recall(
            said,
            self._remembered,
            unknown_live=now - self._started_at < RECALL_UNKNOWN_S,
            silent_live=is_recent,
        )
        self._hosts.take(_dead(self._gossip))
        unread = reader.unread(self.sightings, scopes)
        for start in range(0, min(len(unread), READ_PER_LOOK_MAX), READ_AT_ONCE):
            for heard in unread[start : start + READ_AT_ONCE]:
                reader.examine(heard)
            await asyncio.sleep(0)
        if reader is not self._reader:
            return  # whom to believe has changed meanwhile: another look is due
        if len(unread) > READ_PER_LOOK_MAX:
            self._due.set()
        reading = reader.reading(self.sightings, scopes)
        self.reading = with_lost(reading, self._hosts.living, self.reading)
        self._read_scopes = scopes
        is_late = now - self._started_at >= RECALL_FIRST_S
        self.is_up_to_date = self.is_up_to_date or is_heard or is_late
        self._warn(now)
        self._on_heard()

    def _warn(self, now: float) -> None:
        """Name those who publish what the managers have not allocated to them, now and then."""
        self._warned_at = {n: at for n, at in self._warned_at.items() if now - at < WARN_AGAIN_S}
        for owner, count in self.reading.unsigned.items():
            if owner not in self._warned_at:
                self._warned_at[owner] = now
                logger.warning(
                    "ignoring records that the managers have not allocated: owner=%s records=%d",
                    owner,
                    count,
                )


def _dead(gossip: Gossip) -> dict[NodeId, DeadMember]:
    return {
        NodeId(m.node_id): DeadMember(m.address, m.port, m.data_address)
        for m in gossip.members()
        if m.state is State.DEAD
    }


def _sightings(gossip: Gossip, scopes: frozenset[str], stand_ins: Sightings) -> Sightings:
    """Return what gossip says; of an owner with stand-ins nothing until all before it is known.

    After a start the newest records come first: half of what an owner has would cut off the rest.
    """
    members = gossip.members()
    is_live = {member.node_id: member.state <= State.SUSPECT for member in members}
    partial = _partial(gossip, stand_ins)
    return Sightings(
        live={NodeId(m.node_id): m.data_address for m in members if is_live[m.node_id]},
        dead=frozenset(NodeId(m.node_id) for m in members if not is_live[m.node_id]),
        suspects=frozenset(NodeId(m.node_id) for m in members if m.state is State.SUSPECT),
        records={
            scope: tuple(
                RawRecord(NodeId(record.owner), record.key, record.value)
                for record in gossip.records(scope)
                if (scope, record.owner) not in partial
            )
            for scope in sorted(scopes)
        },
    )


def _partial(gossip: Gossip, stand_ins: Sightings) -> frozenset[tuple[str, str]]:
    """Return the scopes and owners of stand-ins whose logs are known in part."""
    if not stand_ins.records:
        return frozenset()  # as nearly always: a view of all logs takes long
    known = {(log.scope, log.owner): log.version for log in gossip.logs()}
    remembered = {(s, str(r.owner)) for s, found in stand_ins.records.items() for r in found}
    return frozenset(
        (scope, record.owner)
        for scope in stand_ins.records
        for record in gossip.records(scope)
        if (scope, record.owner) in remembered
        and record.version > known.get((scope, record.owner), record.version)
    )
