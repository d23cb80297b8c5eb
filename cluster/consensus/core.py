"""One manager's Raft: the engine, and everything it lacks.

Driven by `deliver` (a message came), `submit`, `ask_read`, `change_members`, `hand_over`, and
`tick`: after any of these, and when `next_deadline` has come. One thread, but for what `begin_tick`
yields; nothing else changes state.

Invariants:
    no message but AppendEntries leaves before what it speaks of is durable (`_flush`);
    a leader counts itself only for durable entries (`tick` syncs first);
    at most one membership entry is uncommitted;
    a manager that is not in its own configuration, with its own disk, never campaigns.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from random import Random
from typing import Any

from cluster.consensus.bridges import to_message
from cluster.consensus.compaction import Compaction
from cluster.consensus.config import RaftConfig
from cluster.consensus.errors import SafetyViolation, StorageFailure
from cluster.consensus.following import Following
from cluster.consensus.members import (
    Address,
    EntryKind,
    Member,
    MemberChange,
    decode_change,
    decode_command,
    encode_change,
    is_membership,
)
from cluster.consensus.messages import (
    AppendEntries,
    AppendReply,
    EngineMessage,
    NewerTerm,
    ReadProbe,
    ReadProbeReply,
    SnapshotChunk,
    SnapshotPending,
)
from cluster.consensus.ports import Background, Fate, SubmitDone, Wire
from cluster.consensus.raft import Engine, MemberNode, engine_clock
from cluster.consensus.reads import LeaderView, ReadDone, ReadRounds
from cluster.consensus.roster import Roster
from cluster.consensus.sessions import Outcome, Sessions, Verdict
from cluster.consensus.snapshots import Snapshot, SnapshotStore
from cluster.consensus.voting import Voting
from cluster.consensus.wal import Wal

_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class CoreStats:
    """What one manager's Raft looks like now, and counters since its start."""

    term: int
    commit_index: int
    applied_index: int
    log_entries: int
    log_bytes: int
    snapshot_index: int
    syncs: int
    sync_seconds: float
    ticks: int
    elections_won: int
    prevotes_started: int
    snapshots_installed: int


class RaftCore:
    """Raft for one manager; the hooks of its engine."""

    def __init__(
        self,
        *,
        config: RaftConfig,
        wal: Wal,
        snapshots: SnapshotStore,
        sessions: Sessions,
        wire: Wire,
        background: Background,
        rng: Random,
        address: Address,
    ) -> None:
        """Restore from snapshot and log.

        Raises:
            StorageFailure: they do not fit together.
        """
        self.roster = Roster(
            Member(wal.identity.node_id, *address, wal.identity.disk_id),
            contacts=wal.identity.contacts,
        )
        self._me = wal.identity.node_id
        self._config = config
        self._wal = wal
        self._snapshots = snapshots
        self._sessions = sessions
        self._wire = wire
        self._rng = rng
        self._outbox: list[tuple[str, EngineMessage]] = []
        self._nodes: dict[str, MemberNode] = {}
        """The other voters."""
        self._heard: dict[str, MemberNode] = {}
        self._reads = ReadRounds(repeat_s=config.heartbeat_s)
        self._ticks = 0
        self._tell_at = _NEVER
        """When the followers must be told of what was committed."""
        self._is_awaited = False
        """Whether a follower waits for that."""
        self._engine = Engine(config=config, wal=wal, hooks=self)
        self._voting = Voting(
            engine=self._engine,
            wal=wal,
            roster=self.roster,
            config=config,
            timeout_s=self.election_timeout,
            post=self._post,
            roster_changed=self._adopt_roster,
        )
        self._following = Following(
            engine=self._engine,
            wal=wal,
            snapshots=snapshots,
            voting=self._voting,
            restore=self._restore,
            post=self._post,
        )
        self._compaction = Compaction(
            config=config,
            wal=wal,
            snapshots=snapshots,
            sessions=sessions,
            roster=self.roster,
            background=background,
        )
        self._load()

    @property
    def is_leader(self) -> bool:
        """Whether this manager leads, as far as it knows."""
        return self._engine.is_leader()

    @property
    def leader_id(self) -> str | None:
        """Who leads, as far as this manager knows."""
        return self._engine.leader_id()

    @property
    def term(self) -> int:
        """The current term."""
        return self._engine.term()

    @property
    def applied_index(self) -> int:
        """Index of the last applied entry."""
        return self._engine.applied_index()

    @property
    def is_changing_members(self) -> bool:
        """Whether a change of members is in the log but not committed."""
        uncommitted = self._wal.entries_from(self._engine.commit_index() + 1)
        return any(is_membership(content) for content, _, _ in uncommitted)

    def stats(self) -> CoreStats:
        """Return what it looks like now."""
        stored = self._snapshots.current
        return CoreStats(
            term=self.term,
            commit_index=self._engine.commit_index(),
            applied_index=self.applied_index,
            log_entries=len(self._wal.entries),
            log_bytes=self._wal.entry_bytes,
            snapshot_index=0 if stored is None else stored.index,
            syncs=self._wal.syncs,
            sync_seconds=self._wal.sync_seconds,
            ticks=self._ticks,
            elections_won=self._voting.elections_won,
            prevotes_started=self._voting.prevotes_started,
            snapshots_installed=self._following.snapshots_installed,
        )

    def submit(self, content: bytes, done: SubmitDone) -> None:
        """Append an entry at the next tick, if this manager leads then."""
        self._engine.submit(content, done)

    def change_members(self, change: MemberChange, done: SubmitDone) -> None:
        """Append a change of members, if this manager leads and may."""
        self.submit(encode_change(change), done)

    def ask_read(self, done: ReadDone) -> None:
        """Find the index that a linearizable read must wait for, if this manager leads."""
        self._reads.ask(done)

    def hand_over(self, target: str = "") -> None:
        """Let `target`, or whoever has everything, lead; try for one election timeout."""
        self._voting.hand_over(target)

    def note_address(self, member: Member) -> None:
        """Have all managers learn where a member is now."""
        known = self.roster.members.get(member.node_id)
        if (
            self.is_leader
            and known is not None
            and known.disk_id == member.disk_id
            and known.address != member.address
        ):
            self.change_members(MemberChange("move", member), _ignore)

    def responsive_members(self) -> set[str]:
        """See `Voting.responsive_members`."""
        return self._voting.responsive_members()

    def disconnected(self, node_id: str) -> None:
        """Note that the session to a peer ended: what was under way to it may be lost."""
        self._snapshots.restart_sending(node_id)

    def next_deadline(self) -> float:
        """Return when `tick` must be called even if nothing happens, by the engine's clock."""
        if not self.is_leader:
            return self._voting.next_deadline()
        return min(self._engine.next_deadline(), self._tell_at)

    def hasten(self) -> None:
        """Tell the followers with the next tick what was committed: one of them waits for it."""
        self._is_awaited = True

    def tick(self) -> bool:
        """Do all that is due; return whether there may be more at once."""
        steps = self.begin_tick()
        while True:
            try:
                next(steps)()
            except StopIteration as end:
                return bool(end.value)

    def begin_tick(self) -> Generator[Callable[[], None], None, bool]:
        """Do what `tick` does, but leave to the caller what waits for the disk.

        Yields that, to be called in any thread; the tick goes on once it has returned, and ends
        here if it raises. Until the tick has ended, nothing may be delivered.
        """
        self._ticks += 1
        yield from self._flush()
        last_index, commit_index = self._wal.last_index, self._wal.commit_index
        connected = {node_id for node_id in self._nodes if self._wire.is_connected(node_id)}
        self._engine.set_connected(n for n in connected if not self._is_congested(n))
        if self.is_leader:
            self._voting.step_leader(self._nodes, connected)
        self._engine.tick()
        has_appended = self._wal.last_index > last_index
        if self.is_leader:
            self._step_reads()
            self._send_entries(has_appended, has_committed=self._wal.commit_index != commit_index)
        else:
            self._tell_at = _NEVER
            self._voting.step_follower()
            self._reads.fail()
        yield from self._flush()
        return self.is_leader and has_appended and not self._nodes

    def deliver(self, node_id: str, message: EngineMessage) -> bool:
        """Handle a message from a peer; return whether there is something to do in a tick.

        Replies leave with the next tick.
        """
        node = self._heard.get(node_id)
        if node is None:
            return False
        match message:
            case AppendEntries() | SnapshotChunk() | SnapshotPending():
                self._following.on_message(node, message)
            case AppendReply():
                self._on_append_reply(node, message)
                return not (message.success and self._is_settled)
            case ReadProbe() | ReadProbeReply():
                self._on_read_message(node, message)
            case _:
                self._voting.on_message(node, message)
        return True

    @property
    def _is_settled(self) -> bool:
        """Whether one more acknowledgement can change nothing: most only say that a peer is up."""
        is_committed = self._engine.commit_index() == self._wal.last_index
        return self.is_leader and is_committed and not self._voting.is_handing_over

    def _load(self) -> None:
        snapshot = self._snapshots.opened
        self._snapshots.opened = None
        wal = self._wal
        if snapshot is None:
            if wal.last_index > 0:
                raise StorageFailure("the log has no snapshot to stand on")
            self._adopt_roster()
            return
        if wal.first_index >= snapshot.index:
            raise StorageFailure(
                f"entries between the snapshot at {snapshot.index} and the log's first at"
                f" {wal.first_index} are missing"
            )
        self._restore(snapshot)
        if self.roster.is_voter and not self._nodes:
            self._engine.campaign_now()

    def _restore(self, snapshot: Snapshot) -> None:
        wal, index = self._wal, snapshot.index
        if not wal.holds(index) or wal.entry(index)[2] != snapshot.last[2]:
            if wal.commit_index >= index:
                raise StorageFailure(f"log and snapshot contradict each other at {index}")
            wal.reset([snapshot.previous, snapshot.last])
        self._sessions.restore(snapshot.state)
        self._engine.jump_to(index)
        self.roster.restore(snapshot.members, wal.entries_from(index + 1))
        self._engine.replace_members(self.roster.others.values())
        self._adopt_roster()

    def _adopt_roster(self) -> None:
        heard = self.roster.heard
        self._nodes = self._engine.others()
        self._heard = {i: self._nodes.get(i, MemberNode(m)) for i, m in heard.items()}
        self._wire.set_peers(heard)

    def _on_append_reply(self, node: MemberNode, reply: AppendReply) -> None:
        if reply.term > self.term:
            self._voting.follow_newer_term(reply.term)
        if reply.term != self.term or not self.is_leader:
            return  # of an earlier term: it may speak of entries that were replaced since
        if not self.roster.is_heard_as_voter(node.id):
            return
        end = self._wal.last_index + 1
        next_index = reply.next_index
        if reply.reset:
            # Never forward: a second message that was under way may find the log too short, at a
            # place beyond the one where it differs, and both would be sent forever.
            next_index = min(next_index, end, self._engine.next_index(node))
            next_index = max(next_index, self._engine.match_index(node) + 1)
        elif reply.success and next_index > end:
            raise SafetyViolation(f"{node.id} acknowledges {next_index - 1}, beyond {end - 1}")
        self._engine.receive(
            node,
            {
                "type": "next_node_idx",
                "next_node_idx": next_index,
                "reset": reply.reset,
                "success": reply.success,
            },
        )

    def _send_entries(self, has_appended: bool, *, has_committed: bool) -> None:
        """Send what was appended; and what was committed, with the next entries or a bit later.

        Told at once, each commit of a lone client would cost the followers a second message, and
        this leader their replies to it.
        """
        now = engine_clock()
        if has_committed:
            self._tell_at = min(self._tell_at, now + self._config.commit_notice_s)
        is_due = self._tell_at < _NEVER and (self._is_awaited or now >= self._tell_at)
        if has_appended or is_due:
            self._engine.send_append_entries()
            self._tell_at = _NEVER
        self._is_awaited = False

    def _step_reads(self) -> None:
        view = LeaderView(
            term=self.term,
            commit_index=self._engine.commit_index(),
            has_committed_in_term=self._engine.has_committed_in_term(),
            others=frozenset(self._nodes),
        )
        number, ask = self._reads.step(view, now=engine_clock())
        for node_id in sorted(ask):
            self._post(node_id, ReadProbe(view.term, number))

    def _on_read_message(self, node: MemberNode, message: ReadProbe | ReadProbeReply) -> None:
        if isinstance(message, ReadProbeReply):
            if self.roster.is_heard_as_voter(node.id):
                self._reads.confirm(node.id, number=message.round, term=message.term)
        elif message.term < self.term:
            self._post(node.id, NewerTerm(self.term))
        elif message.term == self.term and self._engine.leader_id() == node.id:
            self._post(node.id, ReadProbeReply(self.term, message.round))

    def may_campaign(self) -> bool:
        """See `raft.Hooks`."""
        return self._voting.may_campaign()

    def won_election(self) -> None:
        """See `raft.Hooks`."""
        self._voting.win()
        self.note_address(self.roster.me)

    def election_timeout(self) -> float:
        """See `raft.Hooks`."""
        config = self._config
        return self._rng.uniform(config.election_timeout_s_min, config.election_timeout_s_max)

    def may_change_members(self, change: MemberChange) -> bool:
        """See `raft.Hooks`."""
        return not self.is_changing_members and change.member.node_id != self._me

    def member_changed(self, change: MemberChange, *, is_undone: bool) -> None:
        """See `raft.Hooks`."""
        self.roster.enter(change, is_undone=is_undone)
        self._adopt_roster()

    def may_append(self) -> bool:
        """See `raft.Hooks`.

        Group commit: while entries are on their way to a majority, what comes waits and shares the
        next sync and message. Appended one by one, as requests come in over a network, each would
        cost both.
        """
        is_round_over = self._engine.commit_index() >= self._wal.last_index
        return is_round_over and not self._voting.is_handing_over

    def apply(self, index: int, content: bytes) -> Outcome:
        """See `raft.Hooks`."""
        match content[0]:
            case EntryKind.COMMAND:
                return self._sessions.apply(index, decode_command(content))
            case EntryKind.OPEN_SESSION:
                return self._sessions.open(index)
            case EntryKind.MEMBERSHIP | EntryKind.MOVE:
                self.roster.commit(decode_change(content))
                self._adopt_roster()
            case EntryKind.NO_OP:
                pass
            case other:
                raise SafetyViolation(f"entry {index} is of unknown kind {other}: older version?")
        return Outcome(Verdict.APPLIED, b"")

    def compact(self) -> None:
        """See `raft.Hooks`."""
        self._compaction.step(self.applied_index)

    def next_chunk(self, node_id: str) -> SnapshotChunk | None:
        """See `raft.Hooks`."""
        if self._wire.waiting_bytes(node_id) > self._config.snapshot_window_bytes:
            return None
        return self._snapshots.next_chunk(node_id, term=self.term)

    def send_engine_message(self, node_id: str, message: dict[str, Any]) -> None:
        """See `raft.Hooks`."""
        ours = to_message(message, term=self.term, is_transfer=self._voting.is_transfer_election)
        if message["type"] != "append_entries":
            self._post(node_id, ours)
            return
        self._wire.send(node_id, ours)
        if self._is_congested(node_id):
            self._engine.disconnect(self._nodes[node_id])

    def send_reply(self, node_id: str) -> None:
        """See `raft.Hooks`."""
        self._following.send_reply(node_id)

    def _post(self, node_id: str, message: EngineMessage) -> None:
        self._outbox.append((node_id, message))

    def _is_congested(self, node_id: str) -> bool:
        return self._wire.waiting_bytes(node_id) > self._config.congested_bytes

    def _flush(self) -> Generator[Callable[[], None]]:
        """Let AppendEntries go, make everything durable, then let the rest go."""
        self._wire.flush()
        outbox, self._outbox = self._outbox, []
        write = self._wal.begin_sync()
        if write is not None:
            yield write
        if outbox:
            for node_id, message in outbox:
                # A newer leader's message may have come after what this one acknowledges.
                if not isinstance(message, AppendReply) or message.term == self.term:
                    self._wire.send(node_id, message)
            self._wire.flush()


def _ignore(fate: Fate, index: int, outcome: Outcome) -> None:
    """Take the fate of an entry that nobody waits for."""
