"""Which dead members' hosts live: a daemon's death is not its machine's.

Gossip declares daemons dead. Where only the daemon is gone, its node's tasks and forwarding go on
in the kernel, so the way there must stay open; where the machine is gone, connections to it must
end. A machine that lives answers at the port where gossip was, if only by refusing.

Driven by `take` with the members that are dead, and by `run`, which asks them again and again.

Invariant: until a host has been asked, it counts as living: the way to it stays as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass

from cluster.model.ids import NodeId
from cluster.task_group import TaskGroup

logger = logging.getLogger(__name__)

ASK_AGAIN_S = 5.0
"""Between two questions to a dead member's host."""
ASKED_MAX = 64
"""Hosts that are asked at one time; further ones count as gone."""

Answers = Callable[[str, int], Coroutine[None, None, bool]]
"""(address, port) -> whether the host answers there, be it with a refusal; never raises OSError."""


@dataclass(frozen=True, slots=True)
class DeadMember:
    """A member that gossip has declared dead."""

    address: str
    port: int
    """Where it spoke gossip."""
    data_address: str
    """As it said last."""


class Hosts:
    """The hosts of dead members."""

    def __init__(self, answers: Answers, on_change: Callable[[], None]) -> None:
        """on_change: called when `living` has other nodes than before."""
        self._answers = answers
        self._on_change = on_change
        self._dead: dict[NodeId, DeadMember] = {}
        self._gone: set[NodeId] = set()
        """Those that did not answer when they were asked last."""
        self._has_news = asyncio.Event()

    def take(self, dead: Mapping[NodeId, DeadMember]) -> None:
        """Take who is dead now."""
        before, self._dead = self._dead, dict(sorted(dead.items())[:ASKED_MAX])
        self._gone &= self._dead.keys()
        if self._dead != before:
            self._has_news.set()

    @property
    def living(self) -> dict[NodeId, str]:
        """The dead members whose hosts live -> data-path address."""
        return {n: m.data_address for n, m in self._dead.items() if n not in self._gone}

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self._wait()
            asked = dict(self._dead)
            async with TaskGroup() as group:
                questions = {
                    node: group.create_task(self._answers(member.address, member.port))
                    for node, member in asked.items()
                }
            gone = {node for node, question in questions.items() if not question.result()}
            for node in sorted(gone - self._gone):
                logger.info("host of a dead member does not answer: node=%s", node)
            if gone != self._gone:
                self._gone = gone & self._dead.keys()
                self._on_change()

    async def _wait(self) -> None:
        if self._dead:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ASK_AGAIN_S):
                    await self._has_news.wait()
        else:
            await self._has_news.wait()
        self._has_news.clear()
