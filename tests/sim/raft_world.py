"""Managers in virtual time: the real core, log and codecs over links and disks in memory.

One seed decides everything. `World.run` makes trouble, then heals all of it and waits; what must
hold is checked after every tick (`Checker`), and at the end.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TypeVar

from cluster.consensus.config import RaftConfig
from cluster.consensus.core import RaftCore
from cluster.consensus.errors import StorageFailure
from cluster.consensus.founding import Bootstrap, Founding, Join, found, load
from cluster.consensus.members import (
    OPEN_SESSION,
    CommandEntry,
    Entry,
    Member,
    MemberChange,
    effective_members,
    encode_command,
)
from cluster.consensus.messages import (
    Answer,
    AppendEntries,
    AppendReply,
    EngineMessage,
    Hello,
    Refused,
    Request,
    SnapshotChunk,
    SnapshotPending,
    Welcome,
    decode_untrusted,
    encode,
)
from cluster.consensus.ports import Fate, SubmitDone
from cluster.consensus.sessions import Outcome, Sessions
from cluster.consensus.snapshots import SnapshotStore
from cluster.consensus.wal import Wal
from tests.sim.raft_disk import PowerCut, SimDirectory

KEY = bytes(32)
CLUSTER = "c"
CONFIG = RaftConfig(
    election_timeout_s_min=0.4,
    election_timeout_s_max=1.4,
    heartbeat_s=0.1,
    snapshot_entries=25,
    trailing_entries=6,
    chunk_bytes=150,
    snapshot_window_bytes=700,
    congested_bytes=3000,
    batch_bytes=400,
    sessions_max=64,
)
_T = TypeVar("_T")


class Violation(Exception):
    """Something that must never happen did."""


@dataclass(slots=True)
class Ledger:
    """A state machine that keeps every command it applied."""

    commands: list[bytes] = field(default_factory=list[bytes])

    def apply(self, index: int, command: bytes) -> bytes:  # noqa: ARG002
        """Keep it; the answer is its place."""
        self.commands.append(command)
        return b"%d" % len(self.commands)

    def dump(self) -> Callable[[], bytes]:
        """Return what gives all."""
        return partial(b" ".join, tuple(self.commands))

    def restore(self, data: bytes) -> None:
        """Become `dump`'s."""
        self.commands = data.split()


class SimNode:
    """One life of one manager; also its wire."""

    def __init__(self, world: World, node_id: str, founding: Founding | None) -> None:
        self.world = world
        self.node_id = node_id
        self.ledger = Ledger()
        self.peers: dict[str, Member] = {}
        self.epochs: dict[str, int] = {}
        """Open sessions to peers."""
        self.in_flight: Counter[str] = Counter()
        self.is_paused = False
        self.held: list[Callable[[], object]] = []
        self.is_kicked = False
        self.alarm = 0
        sessions = Sessions(self.ledger, sessions_max=CONFIG.sessions_max)
        disk = world.disks[node_id]
        if founding is not None:
            found(
                founding,
                directory=disk,
                node_id=node_id,
                cluster_id=CLUSTER,
                disk_id=f"disk{world.next_number()}",
                address=(node_id, 2377),
                sessions=sessions,
                data_key=KEY,
            )
        self.wal: Wal = load(disk, node_id=node_id, cluster_id=CLUSTER, data_key=KEY)
        self.disk_id = self.wal.identity.disk_id
        self.core = RaftCore(
            config=CONFIG,
            wal=self.wal,
            snapshots=SnapshotStore(disk, data_key=KEY, chunk_bytes=CONFIG.chunk_bytes),
            sessions=sessions,
            wire=self,
            background=self.in_background,
            rng=Random(world.rng.random()),
            address=(node_id, 2377),
        )
        self.checked_index = self.core.applied_index
        self.checked_commit = self.wal.commit_index
        self.checked_members = set(self.core.roster.members)

    def holds_durably(self, entry: Entry) -> bool:
        """Tell whether a power loss now would leave an entry here."""
        _, index, _ = entry
        wal, stats = self.wal, self.core.stats()
        if index <= max(stats.snapshot_index, wal.first_index):
            return True
        return wal.holds(index) and wal.entry(index) == entry and index < wal.unsynced_from

    @property
    def is_running(self) -> bool:
        """Whether this life is not over."""
        return self.world.nodes.get(self.node_id) is self

    # Wire.

    def set_peers(self, peers: Mapping[str, Member]) -> None:
        """See `ports.Wire`."""
        self.peers = dict(peers)
        for node_id in [n for n in self.epochs if n not in peers]:
            del self.epochs[node_id]
        for node_id in peers:
            self.world.later(self.world.rng.uniform(0.01, 0.1), self.world.connect, self, node_id)

    def send(self, node_id: str, message: EngineMessage) -> None:
        """See `ports.Wire`."""
        self.world.checker.check_message(self, message)
        if node_id in self.epochs:
            self.world.transmit(self, node_id, encode(message))

    def flush(self) -> None:
        """See `ports.Wire`."""

    def is_connected(self, node_id: str) -> bool:
        """See `ports.Wire`."""
        return node_id in self.epochs

    def waiting_bytes(self, node_id: str) -> int:
        """See `ports.Wire`."""
        return self.in_flight[node_id]

    # Driver.

    def kick(self) -> None:
        """Tick soon."""
        if not self.is_kicked:
            self.is_kicked = True
            self.world.later(self.world.rng.choice((0.0, 0.001, 0.004)), self.tick)

    def enter(self, call: Callable[[], object]) -> None:
        """Do something in this life, unless it is over; later, while it is paused."""
        if not self.is_running:
            return
        if self.is_paused:
            self.held.append(call)
            return
        try:
            call()
        except PowerCut:
            self.world.crash(self.node_id)
        except StorageFailure:
            if self.world.disks[self.node_id].fail_after is None:
                raise
            self.world.crash(self.node_id)

    def tick(self) -> None:
        """See `driver.Driver`."""
        self.enter(self._tick)

    def resume(self) -> None:
        """Continue after a pause: what came meanwhile comes now."""
        self.is_paused = False
        held, self.held = self.held, []
        for call in held:
            self.enter(call)
        self.kick()

    def in_background(self, job: Callable[[], _T], done: Callable[[_T], None]) -> None:
        """See `ports.Background`."""

        def run() -> None:
            result = job()
            self.world.later(
                self.world.rng.uniform(0, 0.05), self.enter, lambda: self._finish(done, result)
            )

        self.world.later(self.world.rng.uniform(0, 0.05), self.enter, run)

    def _finish(self, done: Callable[[_T], None], result: _T) -> None:
        done(result)
        self.kick()

    def _tick(self) -> None:
        self.is_kicked = False
        has_more = self.core.tick()
        self.world.checker.check(self)
        self.alarm += 1
        if has_more:
            self.kick()
            return
        late = self.world.rng.choice((0.0005, 0.001, 0.01))
        wait = self.core.next_deadline() - self.world.now + late
        if wait < 1e6:
            self.world.later(max(late, wait), self._on_alarm, self.alarm)

    def _on_alarm(self, alarm: int) -> None:
        if alarm == self.alarm:
            self.kick()


class Checker:
    """What must hold in every run."""

    def __init__(self) -> None:
        self.leaders: dict[int, str] = {}
        self.applied: dict[int, tuple[Entry, str, int]] = {}
        """By index: the entry, who applied it first, and in which term, so not committed later."""
        self.complete: set[tuple[str, int]] = set()
        self.last_lives: dict[str, SimNode] = {}
        """The newest life of each manager, whether over or not."""

    def check(self, node: SimNode) -> None:
        """Check one manager after a tick."""
        core, wal = node.core, node.wal
        self.last_lives[node.node_id] = node
        if core.is_leader:
            self._check_leader(node)
            self._check_quorum(node)
        node.checked_commit = wal.commit_index
        node.checked_members = set(core.roster.members)
        applied = core.applied_index
        for index in range(max(node.checked_index + 1, wal.first_index + 1), applied + 1):
            entry = wal.entry(index)
            known, who, _ = self.applied.setdefault(index, (entry, node.node_id, core.term))
            if known != entry:
                raise Violation(f"{node.node_id} applies {entry}, {who} applied {known}")
        node.checked_index = applied
        expected = effective_members(core.roster.applied, wal.entries_from(applied + 1))
        if core.roster.members != expected:
            raise Violation(f"{node.node_id} has members {core.roster.members}, not {expected}")

    def check_message(self, node: SimNode, message: EngineMessage) -> None:
        """Check a message before it leaves."""
        wal = node.wal
        if isinstance(message, AppendEntries | SnapshotChunk | SnapshotPending):
            return
        if wal.has_unsynced:
            raise Violation(f"{node.node_id} sends {message} before a sync")
        if isinstance(message, AppendReply) and message.success and message.next_index > 1:
            leader = self.last_lives.get(self.leaders.get(message.term, ""))
            last = message.next_index - 1
            if leader is None or leader.core.term != message.term or last <= wal.first_index:
                return
            if leader.wal.holds(last) and leader.wal.entry(last) != wal.entry(last):
                raise Violation(f"{node.node_id} acknowledges {last}, but has another entry there")

    def check_held(self, node: SimNode, index: int) -> None:
        """Check that an entry would survive a power loss of every manager at this moment."""
        if index <= node.wal.first_index:
            return
        entry = node.wal.entry(index)
        holders = {i for i, life in self.last_lives.items() if life.holds_durably(entry)}
        if not any(
            2 * len(holders & members) > len(members)
            for members in (set(node.core.roster.members), node.checked_members)
        ):
            raise Violation(f"{node.node_id} commits {entry}, which only {holders} hold")

    def _check_quorum(self, node: SimNode) -> None:
        wal = node.wal
        for index in range(max(node.checked_commit, wal.first_index) + 1, wal.commit_index + 1):
            self.check_held(node, index)

    def _check_leader(self, node: SimNode) -> None:
        term = node.core.term
        other = self.leaders.setdefault(term, node.node_id)
        if other != node.node_id:
            raise Violation(f"{other} and {node.node_id} lead in term {term}")
        if (node.node_id, term) in self.complete:
            return
        self.complete.add((node.node_id, term))
        for index, (entry, who, committed_by) in self.applied.items():
            if index <= node.wal.first_index + 1 or committed_by >= term:
                continue  # the leader of an older term, which learns late that it has won
            if not node.wal.holds(index) or node.wal.entry(index) != entry:
                raise Violation(f"leader {node.node_id} lacks {entry}, applied by {who}")


@dataclass(slots=True)
class Client:
    """Proposes one command after another, each until it is acknowledged."""

    world: World
    name: str
    session: int = 0
    sequence: int = 0
    is_done: bool = True
    attempt: int = 0

    def step(self) -> None:
        """Begin the next command."""
        if self.world.is_quiet:
            return
        self.sequence += 1
        self.is_done = False
        self.attempt_command()

    def attempt_command(self) -> None:
        """Send the command, or the opening of a session, to who seems to lead."""
        if self.is_done:
            return
        world = self.world
        self.attempt += 1
        attempt = self.attempt
        leaders = [n for n in world.nodes.values() if n.core.is_leader and not n.is_paused]
        if leaders:
            node = world.rng.choice(leaders)
            done: SubmitDone
            if self.session:
                command = f"{self.name}.{self.sequence}".encode()
                entry = encode_command(
                    CommandEntry(self.session, self.sequence, self.sequence, command)
                )
                done = partial(self.on_outcome, node, self.sequence)
            else:
                entry, done = OPEN_SESSION, self.on_session
            node.enter(lambda: node.core.submit(entry, done))
            node.kick()
        world.later(world.rng.uniform(0.3, 1.5), self.on_timeout, attempt)

    def on_timeout(self, attempt: int) -> None:
        """Try again."""
        if attempt == self.attempt:
            self.attempt_command()

    def on_session(self, fate: Fate, index: int, outcome: Outcome) -> None:
        """Have a session."""
        del outcome
        if fate is Fate.APPLIED and not self.session:
            self.session = index
            self.attempt_command()

    def on_outcome(
        self, node: SimNode, sequence: int, fate: Fate, index: int, outcome: Outcome
    ) -> None:
        """Take the acknowledgement."""
        if fate is not Fate.APPLIED or self.is_done or sequence != self.sequence:
            return
        if outcome.verdict != 0:
            raise Violation(f"{self.name}.{self.sequence}: {outcome}")
        self.is_done = True
        self.world.checker.check_held(node, index)
        self.world.acknowledge(self, index)
        self.world.later(self.world.rng.uniform(0, 0.1), self.step)


class World:
    """Managers `n0` to `n<size - 1>`, of which the first three or five begin as members."""

    def __init__(
        self, seed: int, *, size: int = 5, voters: int = 3, power_loss: bool = True
    ) -> None:
        self.rng = Random(seed)
        self.now = 0.0
        self.power_loss = power_loss
        self.is_quiet = False
        self.nodes: dict[str, SimNode] = {}
        self.disks: dict[str, SimDirectory] = {}
        self.checker = Checker()
        self.counts: Counter[str] = Counter()
        self.acknowledged: dict[bytes, int] = {}
        self.removed: set[str] = set()
        self.names = [f"n{i}" for i in range(size)]
        self._voters = voters
        self._blocked: set[tuple[str, str]] = set()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._arrivals: dict[tuple[str, str], float] = {}
        self._clients = [Client(self, f"c{i}") for i in range(3)]

    def next_number(self) -> int:
        """Return a number that was not returned before."""
        self._number += 1
        return self._number

    def later(self, delay_s: float, call: Callable[..., None], *arguments: object) -> None:
        """Call something at a later time."""
        heapq.heappush(
            self._queue, (self.now + delay_s, self.next_number(), lambda: call(*arguments))
        )

    # Lives.

    def boot(self, node_id: str, founding: Founding | None = None) -> None:
        """Start a manager; it may not survive even that."""
        if node_id in self.nodes:
            return
        if founding is not None:
            self.disks[node_id] = SimDirectory(self.rng)
        try:
            node = SimNode(self, node_id, founding)
        except PowerCut:
            self.disks[node_id].restart(power_loss=self.power_loss)
            self.later(0.1, self.boot, node_id)
            return
        self.nodes[node_id] = node
        node.kick()
        for other in self.nodes.values():
            self.later(self.rng.uniform(0.01, 0.1), self.connect, other, node_id)
            self.later(self.rng.uniform(0.01, 0.1), self.connect, node, other.node_id)

    def crash(self, node_id: str) -> None:
        """End a life; another begins later."""
        self.nodes.pop(node_id)
        self.counts["crashes"] += 1
        for other in self.nodes.values():
            self.disconnect(other, node_id)
        self.disks[node_id].restart(power_loss=self.power_loss and self.rng.random() < 0.7)
        if node_id not in self.removed:
            self.later(self.rng.uniform(0.05, 2.5), self.boot, node_id)

    # Links.

    def connect(self, node: SimNode, node_id: str) -> None:
        """Open a session from `node` to another, if both want it and it is possible."""
        peer = self.nodes.get(node_id)
        if not node.is_running or peer is None or node_id in node.epochs:
            return
        there, back = node.peers.get(node_id), peer.peers.get(node.node_id)
        possible = (
            there is not None
            and back is not None
            and there.disk_id in {"", peer.disk_id}
            and back.disk_id in {"", node.disk_id}
            and (node.node_id, node_id) not in self._blocked
            and not peer.is_paused
        )
        if possible:
            node.epochs[node_id] = self.next_number()
            node.in_flight[node_id] = 0
            node.kick()
        elif there is not None:
            self.later(self.rng.uniform(0.2, 0.6), self.connect, node, node_id)

    def disconnect(self, node: SimNode, node_id: str) -> None:
        """Break a session; what is under way is lost, and the sender learns of it sometime."""
        if node.epochs.pop(node_id, None) is not None:
            node.enter(lambda: node.core.disconnected(node_id))
            node.kick()
            self.later(self.rng.choice((0.05, 0.3, 1.0)), self.connect, node, node_id)

    def transmit(self, node: SimNode, node_id: str, frame: bytes) -> None:
        """Carry a frame, in order within its session."""
        epoch = node.epochs[node_id]
        delay_s = self.rng.choice((0.0005, 0.001, 0.005, 0.02, 0.08))
        pair = (node.node_id, node_id)
        at = max(self.now + delay_s, self._arrivals.get(pair, 0.0) + 1e-6)
        self._arrivals[pair] = at
        node.in_flight[node_id] += len(frame)
        self.later(at - self.now, self._arrive, node, node_id, epoch, frame)

    def _arrive(self, node: SimNode, node_id: str, epoch: int, frame: bytes) -> None:
        peer = self.nodes.get(node_id)
        if not node.is_running or node.epochs.get(node_id) != epoch or peer is None:
            return
        node.in_flight[node_id] -= len(frame)
        back = peer.peers.get(node.node_id)
        if back is None or back.disk_id not in {"", node.disk_id}:
            self.disconnect(node, node_id)
            return
        message = decode_untrusted(frame[4:])
        if isinstance(message, Hello | Welcome | Refused | Request | Answer):
            raise TypeError(message)
        self.counts[type(message).__name__] += 1
        sender = node.node_id
        peer.enter(lambda: peer.core.deliver(sender, message))
        peer.kick()

    # Trouble.

    def make_trouble(self) -> None:
        """Do one bad thing, and another later."""
        if self.is_quiet:
            return
        kinds = (
            (0.25, self._cut_link),
            (0.20, self._isolate),
            (0.10, self._pause),
            (0.15, self._kill),
            (0.12, self._arm_power_cut),
            (0.03, self._fill_disk),
            (0.10, self._change_members),
            (0.05, self._hand_over),
        )
        chosen = self.rng.choices([k for _, k in kinds], [w for w, _ in kinds])[0]
        if self.nodes:
            chosen()
        self.later(self.rng.uniform(0.05, 1.0), self.make_trouble)

    def _someone(self) -> SimNode:
        leaders = [n for n in self.nodes.values() if n.core.is_leader]
        if leaders and self.rng.random() < 0.5:
            return self.rng.choice(leaders)
        return self.rng.choice(list(self.nodes.values()))

    def _cut_link(self) -> None:
        node = self._someone()
        if node.epochs:
            self.disconnect(node, self.rng.choice(list(node.epochs)))

    def _isolate(self) -> None:
        chosen = {self._someone().node_id}
        if self.rng.random() < 0.3:
            chosen |= set(self.rng.sample(self.names, 2))
        only_out = self.rng.random() < 0.2
        pairs = {
            (a, b)
            for a in self.names
            for b in self.names
            if (a in chosen) != (b in chosen) and (a in chosen or not only_out)
        }
        self._blocked |= pairs
        for a, b in sorted(pairs):
            if a in self.nodes:
                self.disconnect(self.nodes[a], b)
        self.later(self.rng.uniform(0.3, 3.0), self._unblock, pairs)

    def _unblock(self, pairs: set[tuple[str, str]]) -> None:
        self._blocked -= pairs

    def _pause(self) -> None:
        node = self._someone()
        if not node.is_paused:
            node.is_paused = True
            self.later(self.rng.uniform(0.2, 2.5), node.resume)

    def _kill(self) -> None:
        self.crash(self._someone().node_id)

    def _arm_power_cut(self) -> None:
        self.disks[self._someone().node_id].cut_after = self.rng.randint(0, 12)

    def _fill_disk(self) -> None:
        self.disks[self._someone().node_id].fail_after = self.rng.randint(0, 3)

    def _hand_over(self) -> None:
        node = self._someone()
        if node.core.is_leader:
            self.counts["hand-overs"] += 1
            node.enter(node.core.hand_over)
            node.kick()

    def _change_members(self) -> None:
        leaders = [n for n in self.nodes.values() if n.core.is_leader and not n.is_paused]
        if not leaders:
            return
        leader = self.rng.choice(leaders)
        members = leader.core.roster.members
        outside = [n for n in self.names if n not in members]
        if outside and self.rng.random() < 0.6:
            self.add(leader, self.rng.choice(outside))
        elif len(members) > 2:
            node_id = self.rng.choice(sorted(members.keys() - {leader.node_id}))
            change = MemberChange("rem", members[node_id])
            leader.enter(
                lambda: leader.core.change_members(
                    change, lambda fate, _, __: self._on_removed(node_id, fate)
                )
            )
            leader.kick()

    def add(self, leader: SimNode, node_id: str) -> None:
        """Start a joiner, and have it added."""
        joiner = self.nodes.get(node_id)
        if joiner is not None and joiner.core.roster.members:
            return  # a member that does not know yet that it was removed
        if joiner is None:
            if node_id in self.disks and node_id not in self.removed:
                return
            self.removed.discard(node_id)
            addresses = {i: m.address for i, m in leader.core.roster.members.items()}
            self.boot(node_id, Join(addresses))
            joiner = self.nodes.get(node_id)
        if joiner is None:
            return
        member = Member(node_id, node_id, 2377, joiner.disk_id)
        leader.enter(
            lambda: leader.core.change_members(
                MemberChange("add", member), lambda fate, _, __: self._count(f"add {fate.value}")
            )
        )
        leader.kick()

    def _on_removed(self, node_id: str, fate: Fate) -> None:
        """Wipe the removed manager's machine; with a new disk it may join again."""
        self._count(f"remove {fate.value}")
        if fate is Fate.APPLIED:
            self.removed.add(node_id)
            if node_id in self.nodes:
                self.later(0.0, self._retire, node_id)

    def _retire(self, node_id: str) -> None:
        if node_id in self.nodes and node_id in self.removed:
            self.crash(node_id)

    def _count(self, name: str) -> None:
        self.counts[name] += 1

    # A run.

    def acknowledge(self, client: Client, index: int) -> None:
        """Note what may never be lost."""
        self.acknowledged[f"{client.name}.{client.sequence}".encode()] = index

    def ask_read(self) -> None:
        """Ask for a linearizable read; it must see all that was acknowledged before."""
        if self.is_quiet:
            return
        self.later(self.rng.uniform(0.1, 0.5), self.ask_read)
        leaders = [n for n in self.nodes.values() if n.core.is_leader]
        if not leaders:
            return
        node = self.rng.choice(leaders)
        before = max(self.acknowledged.values(), default=0)

        def done(index: int | None) -> None:
            self.counts["reads" if index is not None else "reads refused"] += 1
            if index is not None and index < before:
                raise Violation(f"{node.node_id} reads at {index}, {before} was acknowledged")

        node.enter(lambda: node.core.ask_read(done))
        node.kick()

    def start(self) -> None:
        """Bring up a cluster, and clients that use it."""
        self.boot(self.names[0], Bootstrap())
        self._play(1.0, lambda: self.nodes["n0"].core.is_leader)
        for node_id in self.names[1 : self._voters]:
            self.add(self.nodes["n0"], node_id)
            self._play(self.now + 5.0, lambda i=node_id: self._is_voter(i))  # type: ignore[misc]
        for client in self._clients:
            self.later(self.rng.uniform(0, 0.2), client.step)
        self.later(0.1, self.ask_read)

    def play(self, seconds: float) -> None:
        """Let time pass."""
        self._play(self.now + seconds, lambda: False)

    def settle(self, heal_s: float = 25.0) -> None:
        """Heal everything, and check that all is as it should be, and soon."""
        self._heal()
        if not self._play(self.now + heal_s, self._is_settled):
            raise Violation(f"not settled {heal_s} s after all faults ended: {self._describe()}")
        self._check_end()

    def run(self, trouble_s: float) -> None:
        """Start, make trouble for some time, and settle."""
        self.start()
        self.later(0.3, self.make_trouble)
        self.play(trouble_s)
        self.settle()

    def _play(self, until_s: float, is_done: Callable[[], bool]) -> bool:
        while self._queue and self._queue[0][0] <= until_s:
            at, _, call = heapq.heappop(self._queue)
            self.now = max(self.now, at)
            call()
            if is_done():
                return True
        self.now = max(self.now, until_s)
        return is_done()

    def _is_voter(self, node_id: str) -> bool:
        node = self.nodes.get(node_id)
        return node is not None and node_id in node.core.roster.applied

    def _heal(self) -> None:
        self.is_quiet = True
        self._blocked.clear()
        for disk in self.disks.values():
            disk.cut_after = disk.cut_after_create = disk.fail_after = None
        for node in list(self.nodes.values()):
            if node.is_paused:
                node.resume()
        for node_id in self.disks:
            if node_id not in self.removed:
                self.later(0.1, self.boot, node_id)

    def leader(self) -> SimNode | None:
        """Return who leads in the newest term."""
        leaders = [n for n in self.nodes.values() if n.core.is_leader]
        return max(leaders, key=lambda n: n.core.term, default=None)

    def _is_settled(self) -> bool:
        leader = self.leader()
        if leader is None or not all(client.is_done for client in self._clients):
            return False
        end = leader.wal.last_index
        return leader.core.applied_index == end and all(
            node_id in self.nodes and self.nodes[node_id].core.applied_index == end
            for node_id in leader.core.roster.members
        )

    def _describe(self) -> str:
        lines = [f"{self.counts} clients {[c.is_done for c in self._clients]}"]
        for node in self.nodes.values():
            core = node.core
            lines.append(
                f"{node.node_id} leader={core.leader_id} {core.stats()}"
                f" members={sorted(core.roster.members)} sessions={sorted(node.epochs)}"
            )
        return "\n".join(lines)

    def _check_end(self) -> None:
        leader = self.leader()
        if leader is None:
            raise Violation("no leader at the end")
        final = leader.ledger.commands
        if len(set(final)) != len(final):
            raise Violation("a command was applied twice")
        lost = self.acknowledged.keys() - set(final)
        if lost:
            raise Violation(f"{len(lost)} acknowledged commands are lost, {min(lost)!r} first")
        for node_id in leader.core.roster.members:
            if self.nodes[node_id].ledger.commands != final:
                raise Violation(f"{node_id} has another state than {leader.node_id}")
