"""One manager's Raft: the engine, and everything it lacks.

Driven by `deliver` (a message came), `submit`, `ask_read`, `change_members`, `hand_over`, and
`tick`: after any of these, and when `next_deadline` has come. One thread; nothing else changes
state.

Invariants:
    no message but AppendEntries leaves before what it speaks of is durable (`_flush`);
    a leader counts itself only for durable entries (`tick` syncs first);
    at most one membership entry is uncommitted;
    a manager that is not in its own configuration, with its own disk, never campaigns.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from cluster.consensus.appending import Mismatch, trim
from cluster.consensus.bridges import to_message
from cluster.consensus.config import RaftConfig
from cluster.consensus.elections import PreVote, Transfer, is_majority
from cluster.consensus.errors import SafetyViolation, StorageFailure
from cluster.consensus.members import (
    Address,
    EntryKind,
    Member,
    MemberChange,
    decode_change,
    decode_command,
    effective_members,
    encode_change,
    is_membership,
)
from cluster.consensus.messages import (
    AppendEntries,
    AppendReply,
    EngineMessage,
    Introduction,
    NewerTerm,
    PreVoteGranted,
    PreVoteRequest,
    ReadProbe,
    ReadProbeReply,
    SnapshotChunk,
    SnapshotPending,
    TimeoutNow,
    VoteGranted,
    VoteRequest,
)
from cluster.consensus.ports import Background, Fate, SubmitDone, Wire
from cluster.consensus.raft import Engine, MemberNode, engine_clock
from cluster.consensus.reads import LeaderView, ReadDone, ReadRounds
from cluster.consensus.sessions import Outcome, Sessions, Verdict
from cluster.consensus.snapshots import Snapshot, SnapshotStore, StoredSnapshot
from cluster.consensus.wal import Wal

_NEVER = float("-inf")


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
        self._me = wal.identity.node_id
        self._own_address = Member(self._me, *address, wal.identity.disk_id)
        self._config = config
        self._wal = wal
        self._snapshots = snapshots
        self._sessions = sessions
        self._wire = wire
        self._background = background
        self._rng = rng
        self._outbox: list[tuple[str, EngineMessage]] = []
        self._reply: AppendReply | None = None
        self._nodes: dict[str, MemberNode] = {}
        """The other voters."""
        self._peers: dict[str, MemberNode] = {}
        """Whom to hear: the other voters, those whose removal is not committed (it may be taken
        back), and those whom a voter introduced. Any of them may be who leads."""
        self._introduced: dict[str, Member] = {}
        self._members: dict[str, Member] = {}
        self._applied_members: dict[str, Member] = {}
        self._members_version = 0
        self._removed: set[str] = set()
        self._prevote = PreVote()
        self._votes: set[tuple[int, str]] = set()
        self._is_transfer_election = False
        self._transfer: Transfer | None = None
        self._reads = ReadRounds(repeat_s=config.heartbeat_s)
        self._leader_heard_at = _NEVER
        self._is_writing_snapshot = False
        self._ticks = self._elections_won = self._prevotes_started = self._installed = 0
        self._engine = Engine(config=config, wal=wal, hooks=self)
        self._load()

    # What others may know.

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
    def members(self) -> dict[str, Member]:
        """Who votes, by the log as it stands here; empty for a joiner."""
        return self._members

    @property
    def is_voter(self) -> bool:
        """Whether this manager has a vote, by the log as it stands here.

        Not if the member of its name has another disk: that is an earlier life of this manager,
        which was removed, and of which the log as far as it has come may still speak.
        """
        me = self._members.get(self._me)
        return me is not None and me.disk_id == self._own_address.disk_id

    @property
    def applied_members(self) -> dict[str, Member]:
        """Who votes, by what was applied."""
        return self._applied_members

    @property
    def members_version(self) -> int:
        """Grows whenever `members` changes."""
        return self._members_version

    @property
    def removed(self) -> set[str]:
        """Who was removed for good since this manager started."""
        return self._removed

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
            elections_won=self._elections_won,
            prevotes_started=self._prevotes_started,
            snapshots_installed=self._installed,
        )

    # What others may ask.

    def submit(self, content: bytes, done: SubmitDone) -> None:
        """Append an entry at the next tick, if this manager leads then."""
        self._engine.submit(content, done)

    def ask_read(self, done: ReadDone) -> None:
        """Find the index that a linearizable read must wait for, if this manager leads."""
        self._reads.ask(done)

    def hand_over(self, target: str = "") -> None:
        """Let `target`, or the most up-to-date follower, lead; try for one election timeout."""
        deadline = engine_clock() + self._config.election_timeout_s_max
        self._transfer = Transfer(target, deadline)

    def responsive_members(self) -> set[str]:
        """Return the other voters that this leader heard from within an election timeout."""
        return self._engine.responded_since(engine_clock() - self._config.election_timeout_s_max)

    def next_deadline(self) -> float:
        """Return when `tick` must be called even if nothing happens, by the engine's clock."""
        if self.is_leader:
            return self._engine.next_deadline()
        repeat_at = self._prevote.repeat_at if self._prevote.is_running else _NEVER
        return max(self._engine.next_deadline(), repeat_at)

    def tick(self) -> bool:
        """Do all that is due; return whether there may be more at once."""
        self._ticks += 1
        self._flush()
        before = self._wal.last_index, self._wal.commit_index
        self._engine.set_connected(
            n for n in self._nodes if self._wire.is_connected(n) and not self._is_congested(n)
        )
        self._engine.tick()
        if self.is_leader:
            self._step_transfer()
            if (self._wal.last_index, self._wal.commit_index) != before:
                self._engine.send_append_entries()
            self._step_reads()
        else:
            self._transfer = None
            self._reads.fail()
        self._flush()
        return self.is_leader and self._wal.last_index > before[0]

    def disconnected(self, node_id: str) -> None:
        """Note that the session to a peer ended: what was under way to it may be lost."""
        self._snapshots.restart_sending(node_id)

    def deliver(self, node_id: str, message: EngineMessage) -> None:
        """Handle a message from a peer; replies leave with the next tick."""
        node = self._peers.get(node_id)
        if node is None:
            return
        match message:
            case AppendEntries() | SnapshotChunk() | SnapshotPending():
                self._on_leader_message(node, message)
            case AppendReply():
                self._on_append_reply(node, message)
            case VoteRequest():
                self._on_vote_request(node, message)
            case VoteGranted():
                self._on_vote_granted(node, message)
            case PreVoteRequest():
                self._on_prevote_request(node, message)
            case ReadProbe() | ReadProbeReply():
                self._on_read_message(node, message)
            case _:
                self._on_notice(node, message)

    # Restoring.

    def _load(self) -> None:
        snapshot = self._snapshots.opened
        self._snapshots.opened = None
        wal = self._wal
        if snapshot is None:
            if wal.last_index > 0:
                raise StorageFailure("the log has no snapshot to stand on")
            self._adopt_peers({m.node_id: m for m in wal.identity.contacts})
            return
        if wal.first_index >= snapshot.index:
            raise StorageFailure(
                f"entries between the snapshot at {snapshot.index} and the log's first at"
                f" {wal.first_index} are missing"
            )
        self._restore(snapshot)
        if self.is_voter and len(self._members) == 1:
            self._engine.campaign_now()

    def _restore(self, snapshot: Snapshot) -> None:
        wal, index = self._wal, snapshot.index
        if not wal.holds(index) or wal.entry(index)[2] != snapshot.last[2]:
            if wal.commit_index >= index:
                raise StorageFailure(f"log and snapshot contradict each other at {index}")
            wal.reset([snapshot.previous, snapshot.last])
        self._sessions.restore(snapshot.state)
        self._engine.jump_to(index)
        self._introduced = {}
        self._applied_members = {member.node_id: member for member in snapshot.members}
        self._members = effective_members(self._applied_members, wal.entries_from(index + 1))
        self._engine.replace_members(m for i, m in self._members.items() if i != self._me)
        self._adopt_peers(self._members)

    def _adopt_peers(self, members: dict[str, Member]) -> None:
        self._members_version += 1
        self._nodes = self._engine.others()
        known = self._introduced | self._applied_members | members
        if not self.is_voter:
            known = {m.node_id: m for m in self._wal.identity.contacts} | known
        peers = {node_id: member for node_id, member in known.items() if node_id != self._me}
        self._peers = {i: self._nodes.get(i, MemberNode(m)) for i, m in peers.items()}
        self._wire.set_peers(peers)

    # Leader's messages.

    def _on_leader_message(
        self, node: MemberNode, message: AppendEntries | SnapshotChunk | SnapshotPending
    ) -> None:
        term = self._engine.term()
        if message.term < term:
            self._post(node.id, NewerTerm(term))
            return
        if message.term == term and self.is_leader:
            raise SafetyViolation(f"{node.id} and {self._me} lead in term {term}")
        self._leader_heard_at = engine_clock()
        self._prevote.stop()
        if isinstance(message, AppendEntries):
            self._on_append_entries(node, message)
        else:
            self._on_snapshot(node, message)

    def _on_append_entries(self, node: MemberNode, message: AppendEntries) -> None:
        part = trim(message, self._wal)
        received: dict[str, Any] = {"type": "append_entries", "term": message.term}
        if isinstance(part, Mismatch):
            self._reply = AppendReply(message.term, part.retry_from, reset=True, success=False)
            # A place beyond the log: the engine notes the leader, appends and commits nothing.
            received |= {
                "commit_index": 0,
                "entries": (),
                "prevLogIdx": self._wal.last_index + 1,
                "prevLogTerm": 0,
            }
        else:
            self._reply = AppendReply(
                message.term, part.verified_index + 1, reset=False, success=True
            )
            received |= {
                "commit_index": part.commit_index,
                "entries": part.entries,
                "prevLogIdx": part.previous_index,
                "prevLogTerm": part.previous_term,
            }
        self._engine.receive(node, received)

    def _on_snapshot(self, node: MemberNode, message: SnapshotChunk | SnapshotPending) -> None:
        # The engine only notes the leader. A chunk says nothing of this log, so its commit index
        # must not move; PySyncObj would commit what was never compared.
        self._engine.receive(
            node,
            {
                "type": "append_entries",
                "term": message.term,
                "commit_index": 0,
                "serialized": None,
            },
        )
        reply = AppendReply(message.term, self._wal.last_index + 1, reset=False, success=False)
        if isinstance(message, SnapshotChunk):
            covered = message.index <= self._engine.commit_index()
            snapshot = None if covered else self._snapshots.receive_untrusted(message)
            if snapshot is not None:
                self._restore(snapshot)
                self._installed += 1
            if covered or snapshot is not None:
                # Not further than the snapshot: what follows in this log was not compared.
                reply = AppendReply(message.term, message.index + 1, reset=False, success=True)
        self._post(node.id, reply)

    def _on_append_reply(self, node: MemberNode, reply: AppendReply) -> None:
        if reply.term > self.term:
            self._follow_newer_term(reply.term)
        if reply.term != self.term or not self.is_leader or node.id not in self._nodes:
            return  # of an earlier term: it may speak of entries that were replaced since
        end = self._wal.last_index + 1
        next_index = reply.next_index
        if reply.reset:
            next_index = max(min(next_index, end), self._engine.match_index(node) + 1)
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

    # Elections.

    def _is_leader_alive(self) -> bool:
        since = engine_clock() - self._config.election_timeout_s_min
        if self.is_leader:
            return is_majority(len(self._engine.responded_since(since)) + 1, len(self._members))
        return self._leader_heard_at > since

    def _has_all_of_mine(self, last_term: int, last_index: int) -> bool:
        """Tell whether a log that ends there is at least as up to date as this one."""
        _, index, term = self._wal.entries[-1]
        return (last_term, last_index) >= (term, index)

    def _on_vote_request(self, node: MemberNode, request: VoteRequest) -> None:
        if request.term < self.term:
            self._post(node.id, NewerTerm(self.term))
        elif request.is_transfer or not self._is_leader_alive():
            self._engine.receive(
                node,
                {
                    "type": "request_vote",
                    "term": request.term,
                    "last_log_index": request.last_index,
                    "last_log_term": request.last_term,
                },
            )

    def _on_vote_granted(self, node: MemberNode, vote: VoteGranted) -> None:
        if node.id not in self._nodes or (vote.term, node.id) in self._votes:
            return
        if vote.term == self.term:
            self._votes = {v for v in self._votes if v[0] == vote.term} | {(vote.term, node.id)}
            self._engine.receive(node, {"type": "response_vote", "term": vote.term})

    def _on_prevote_request(self, node: MemberNode, request: PreVoteRequest) -> None:
        if request.proposed_term <= self.term:
            self._post(node.id, NewerTerm(self.term))
        elif self._is_leader_alive():
            self._post(node.id, Introduction(self.term, tuple(self._members.values())))
        elif self._has_all_of_mine(request.last_term, request.last_index):
            self._post(node.id, PreVoteGranted(self.term, request.proposed_term))

    def _on_notice(
        self, node: MemberNode, message: PreVoteGranted | NewerTerm | TimeoutNow | Introduction
    ) -> None:
        match message:
            case PreVoteGranted():
                self._prevote.grant(node.id, message.proposed_term)
            case NewerTerm():
                self._follow_newer_term(message.term)
            case TimeoutNow():
                self._engine.receive(node, {"type": "timeout_now", "term": message.term})
            case Introduction():
                self._on_introduction(message)

    def _on_introduction(self, message: Introduction) -> None:
        # A manager that was away may not know of a newer one, which may lead by now. A peer
        # vouches for it; only to be heard, not to vote.
        introduced = {member.node_id: member for member in message.members}
        if self._prevote.is_running and introduced != self._introduced:
            self._introduced = introduced
            self._adopt_peers(self._members)

    def _follow_newer_term(self, term: int) -> None:
        if term > self.term:
            self._engine.step_down(term)

    def may_campaign(self) -> bool:
        """See `raft.Hooks`."""
        others = set(self._nodes)
        term, now = self.term + 1, engine_clock()
        self._is_transfer_election = self.is_voter and self._engine.is_told_to_campaign()
        if self.is_voter and (
            not others or self._is_transfer_election or self._prevote.has_won(term, others)
        ):
            self._prevote.stop()
            return True
        if self._prevote.term != term or now >= self._prevote.repeat_at:
            self._engine.forget_leader()
            self._prevotes_started += 1
            self._prevote.start(term, repeat_at=now + self.election_timeout() / 2)
            _, last_index, last_term = self._wal.entries[-1]
            for node_id in self._peers:
                self._post(node_id, PreVoteRequest(self.term, term, last_index, last_term))
        return False

    def won_election(self) -> None:
        """See `raft.Hooks`."""
        self._elections_won += 1
        self._transfer = None
        self.note_address(self._own_address)

    def election_timeout(self) -> float:
        """See `raft.Hooks`."""
        return self._rng.uniform(
            self._config.election_timeout_s_min, self._config.election_timeout_s_max
        )

    def _step_transfer(self) -> None:
        transfer = self._transfer
        if transfer is None:
            return
        if engine_clock() > transfer.deadline:
            self._transfer = None
            return
        ready = [n for n in self._nodes.values() if self._is_up_to_date(n)]
        wanted = [n for n in ready if transfer.target in {n.id, ""}]
        if wanted and not transfer.is_sent:
            transfer.is_sent = True
            self._engine.send_timeout_now(wanted[0])

    def _is_up_to_date(self, node: MemberNode) -> bool:
        connected = self._wire.is_connected(node.id)
        return connected and self._engine.match_index(node) == self._wal.last_index

    # Reads.

    def _step_reads(self) -> None:
        view = LeaderView(
            term=self.term,
            commit_index=self._engine.commit_index(),
            has_committed_in_term=self._engine.has_committed_in_term(),
            others=frozenset(self._nodes),
        )
        number, ask = self._reads.step(view, now=engine_clock())
        for node_id in ask:
            self._post(node_id, ReadProbe(view.term, number))

    def _on_read_message(self, node: MemberNode, message: ReadProbe | ReadProbeReply) -> None:
        if isinstance(message, ReadProbeReply):
            self._reads.confirm(node.id, number=message.round, term=message.term)
        elif message.term < self.term:
            self._post(node.id, NewerTerm(self.term))
        elif message.term == self.term and self._engine.leader_id() == node.id:
            self._post(node.id, ReadProbeReply(self.term, message.round))

    # Members.

    def change_members(self, change: MemberChange, done: SubmitDone) -> None:
        """Append a change of members, if this manager leads and may."""
        self.submit(encode_change(change), done)

    def note_address(self, member: Member) -> None:
        """Have all managers learn where a member is now."""
        known = self._members.get(member.node_id)
        if self.is_leader and known is not None and known.address != member.address:
            self.change_members(MemberChange("move", member), _ignore)

    def may_change_members(self, change: MemberChange) -> bool:
        """See `raft.Hooks`."""
        return not self.is_changing_members and change.member.node_id != self._me

    def member_changed(self, change: MemberChange, *, is_undone: bool) -> None:
        """See `raft.Hooks`."""
        if is_undone:
            change = MemberChange("add" if change.verb == "rem" else "rem", change.member)
        change.apply(self._members)
        self._adopt_peers(self._members)

    def _apply_change(self, change: MemberChange) -> None:
        change.apply(self._applied_members)
        node_id = change.member.node_id
        if change.verb == "rem":
            self._removed.add(node_id)
            self._introduced.pop(node_id, None)
        else:
            self._removed.discard(node_id)
        if change.verb == "move":
            change.apply(self._members)
        self._adopt_peers(self._members)

    def apply(self, index: int, content: bytes) -> Outcome:
        """See `raft.Hooks`."""
        match content[0]:
            case EntryKind.COMMAND:
                return self._sessions.apply(index, decode_command(content))
            case EntryKind.OPEN_SESSION:
                return self._sessions.open(index)
            case EntryKind.MEMBERSHIP | EntryKind.MOVE:
                self._apply_change(decode_change(content))
            case EntryKind.NO_OP:
                pass
            case other:
                raise SafetyViolation(f"entry {index} is of unknown kind {other}: older version?")
        return Outcome(Verdict.APPLIED, b"")

    # Snapshots.

    def compact(self) -> None:
        """See `raft.Hooks`."""
        stored, index = self._snapshots.current, self.applied_index
        if stored is None or self._is_writing_snapshot or index == stored.index:
            return
        config = self._config
        if (
            index - stored.index < config.snapshot_entries
            and self._wal.entry_bytes < config.snapshot_log_bytes
        ):
            return
        snapshot = Snapshot(
            last=self._wal.entry(index),
            previous=self._wal.entry(index - 1),
            members=tuple(self._applied_members.values()),
            state=self._sessions.dump(),
        )
        self._is_writing_snapshot = True
        self._background(lambda: self._snapshots.write(snapshot), self._snapshot_written)

    def _snapshot_written(self, stored: StoredSnapshot) -> None:
        self._is_writing_snapshot = False
        if not self._snapshots.publish(stored):
            return
        config, wal = self._config, self._wal
        keep = stored.index - 1  # the engine's log begins with the entry before the snapshot's last
        kept_bytes = 0
        while keep > max(wal.first_index, stored.index - config.trailing_entries):
            kept_bytes += len(wal.entry(keep)[0])
            if kept_bytes > config.trailing_bytes:
                break
            keep -= 1
        wal.drop_before(keep)

    def next_chunk(self, node_id: str) -> SnapshotChunk | None:
        """See `raft.Hooks`."""
        if self._wire.waiting_bytes(node_id) > self._config.snapshot_window_bytes:
            return None
        return self._snapshots.next_chunk(node_id, term=self.term)

    # Sending.

    def may_append(self) -> bool:
        """See `raft.Hooks`."""
        return self._transfer is None

    def send_engine_message(self, node_id: str, message: dict[str, Any]) -> None:
        """See `raft.Hooks`."""
        ours = to_message(message, term=self.term, is_transfer=self._is_transfer_election)
        if message["type"] != "append_entries":
            self._post(node_id, ours)
            return
        self._wire.send(node_id, ours)
        if self._is_congested(node_id):
            self._engine.disconnect(self._nodes[node_id])

    def send_reply(self, node_id: str) -> None:
        """See `raft.Hooks`."""
        if self._reply is None:
            raise SafetyViolation("a reply to nothing")
        self._post(node_id, self._reply)
        self._reply = None

    def _post(self, node_id: str, message: EngineMessage) -> None:
        self._outbox.append((node_id, message))

    def _is_congested(self, node_id: str) -> bool:
        return self._wire.waiting_bytes(node_id) > self._config.congested_bytes

    def _flush(self) -> None:
        """Let AppendEntries go, make everything durable, then let the rest go."""
        self._wire.flush()
        self._wal.sync()
        if self._outbox:
            outbox, self._outbox = self._outbox, []
            for node_id, message in outbox:
                self._wire.send(node_id, message)
            self._wire.flush()


def _ignore(fate: Fate, index: int, outcome: Outcome) -> None:
    """Take the fate of an entry that nobody waits for."""
