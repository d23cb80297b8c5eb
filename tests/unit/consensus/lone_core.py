"""One core of three members, with a clock, a disk and a wire that a test controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TypeVar

import pysyncobj.syncobj
import pytest

from cluster.consensus import wal as wal_module
from cluster.consensus.config import RaftConfig
from cluster.consensus.core import RaftCore
from cluster.consensus.members import NO_OP, Entry, Member
from cluster.consensus.messages import (
    AppendEntries,
    AppendReply,
    EngineMessage,
    PreVoteGranted,
    PreVoteRequest,
    VoteGranted,
    VoteRequest,
)
from cluster.consensus.ports import Fate
from cluster.consensus.sessions import Outcome, Sessions
from cluster.consensus.snapshots import Snapshot, SnapshotStore
from cluster.consensus.wal import FOUNDER_LOG, Identity, Wal
from tests.sim.raft_disk import SimDirectory

KEY = bytes(32)
MEMBERS = tuple(Member(f"n{i}", f"host{i}", 2377, f"disk{i}") for i in range(3))
_M = TypeVar("_M", bound=EngineMessage)
_T = TypeVar("_T")


class Echo:
    """A state machine that keeps its commands and answers with them."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.encodings = 0

    def apply(self, index: int, command: bytes) -> bytes:  # noqa: ARG002
        self.commands.append(command)
        return command

    def dump(self) -> Callable[[], bytes]:
        commands = tuple(self.commands)

        def encode() -> bytes:
            self.encodings += 1
            return b",".join(commands)

        return encode

    def restore(self, data: bytes) -> None:
        self.commands = data.split(b",") if data else []


class LoneCore:
    """`n0`, whose peers are whoever writes the test. Entries 1 and 2 are in its snapshot."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *,
        config: RaftConfig | None = None,
        members: Sequence[Member] = MEMBERS,
    ) -> None:
        self.now = 100.0
        monkeypatch.setattr(pysyncobj.syncobj, "monotonicTime", lambda: self.now)
        self.disk = SimDirectory(Random(0))
        self.config = config or RaftConfig()
        self.sent: list[tuple[str, EngineMessage]] = []
        self.unsynced_sends: list[EngineMessage] = []
        """What was sent while something was not durable."""
        self.peers: dict[str, Member] = {}
        self.jobs: list[Callable[[], None]] = []
        previous, last = FOUNDER_LOG
        state = Sessions(Echo(), sessions_max=8).dump()()
        store = self._store()
        store.publish(store.write(Snapshot(last, previous, tuple(members), state)))
        wal_module.found(
            self.disk,
            identity=Identity("n0", "c", "disk0", 0, ()),
            entries=FOUNDER_LOG,
            data_key=KEY,
        )
        self.boot()

    def boot(self) -> None:
        """Begin a life, from what is on disk."""
        self.machine = Echo()
        self.wal = Wal(self.disk, data_key=KEY)
        self.core = RaftCore(
            config=self.config,
            wal=self.wal,
            snapshots=self._store(),
            sessions=Sessions(self.machine, sessions_max=8),
            wire=self,
            background=self.in_background,
            rng=Random(1),
            address=("host0", 2377),
        )

    # Wire.

    def set_peers(self, peers: Mapping[str, Member]) -> None:
        self.peers = dict(peers)

    def send(self, node_id: str, message: EngineMessage) -> None:
        if self.wal.has_unsynced:
            self.unsynced_sends.append(message)
        self.sent.append((node_id, message))

    def flush(self) -> None:
        pass

    def is_connected(self, node_id: str) -> bool:
        return node_id in self.peers

    def waiting_bytes(self, node_id: str) -> int:  # noqa: ARG002
        return 0

    def in_background(self, job: Callable[[], _T], done: Callable[[_T], None]) -> None:
        self.jobs.append(lambda: done(job()))

    # What tests do.

    def deliver(self, node_id: str, *messages: EngineMessage) -> None:
        """Deliver, and tick."""
        for message in messages:
            self.core.deliver(node_id, message)
        self.tick()

    def tick(self) -> None:
        """Tick until there is nothing more to do at once."""
        while self.core.tick():
            pass

    def take(self, kind: type[_M], node_id: str | None = None) -> list[_M]:
        """Return the messages of a kind sent since the last call, and forget all others."""
        sent, self.sent = self.sent, []
        return [m for to, m in sent if isinstance(m, kind) and node_id in {None, to}]

    def lead(self) -> int:
        """Win an election with `n1`'s vote; return the term."""
        self.now += 10
        self.tick()
        request = self.take(PreVoteRequest)[0]
        self.deliver("n1", PreVoteGranted(request.term, request.proposed_term))
        term = self.take(VoteRequest)[0].term
        self.deliver("n1", VoteGranted(term))
        assert self.core.is_leader
        return term

    def acknowledge(self, *node_ids: str) -> None:
        """Have followers acknowledge the whole log."""
        for node_id in node_ids:
            self.core.deliver(
                node_id,
                AppendReply(self.core.term, self.wal.last_index + 1, reset=False, success=True),
            )
        self.tick()

    def append(
        self, term: int, previous: tuple[int, int], *entries: Entry, commit: int = 0
    ) -> None:
        """Deliver entries from `n1`, the leader of `term`; previous: (index, term)."""
        self.deliver("n1", AppendEntries(term, commit, *previous, entries))

    def submit(self, content: bytes) -> list[tuple[Fate, int, Outcome]]:
        """Submit an entry and tick; the list fills when its fate is known."""
        fates: list[tuple[Fate, int, Outcome]] = []

        def done(fate: Fate, index: int, outcome: Outcome) -> None:
            fates.append((fate, index, outcome))

        self.core.submit(content, done)
        self.tick()
        return fates

    def _store(self) -> SnapshotStore:
        return SnapshotStore(self.disk, data_key=KEY, chunk_bytes=self.config.chunk_bytes)


def no_ops(first: int, count: int, term: int) -> tuple[Entry, ...]:
    """Return entries that mean nothing, from index `first`."""
    return tuple((NO_OP, index, term) for index in range(first, first + count))
