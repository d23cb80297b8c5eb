"""The only door to PySyncObj: its engine with the faults overridden.

PySyncObj 0.3.17 as it comes loses acknowledged writes. No fork is needed: its private methods are
overridden by their mangled names, and log, snapshots and transport are ours. This module holds the
overrides and gives names to the state that `core` needs; what to do is decided there. A test holds
a digest of all that is overridden or relied on (`tests/unit/consensus/test_pysyncobj_source.py`),
so that another version cannot slip in.

Invariants:
    pickle is never reached;
    nothing runs but what `core` calls: no thread, no timer, no socket.
"""

# ruff: noqa: N802, N803 - the names are PySyncObj's

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any, Protocol
from zlib import crc32

import pysyncobj.syncobj as pysyncobj_module
from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf
from pysyncobj.node import Node

from cluster.consensus.bridges import JournalBridge, PollerBridge, SnapshotBridge, TransportBridge
from cluster.consensus.config import RaftConfig
from cluster.consensus.errors import SafetyViolation
from cluster.consensus.members import Member, MemberChange, decode_change, is_membership
from cluster.consensus.messages import SnapshotChunk
from cluster.consensus.ports import Fate, SubmitDone
from cluster.consensus.sessions import Outcome, Verdict
from cluster.consensus.wal import Wal

_FOLLOWER = 0
"""PySyncObj's number of the state."""
_NOTHING = Outcome(Verdict.APPLIED, b"")


class _NoPickle:
    """Stands where PySyncObj imported pickle."""

    def __getattr__(self, name: str) -> object:
        raise SafetyViolation(f"PySyncObj reaches for pickle.{name}")


# PySyncObj's module looks these two names up; replacing them is the point of having one door. Its
# own clock is MONOTONIC_RAW, which drifts from the event loop's: a timer set by one and read by the
# other fires early and spins.
pysyncobj_module.pickle = _NoPickle()
pysyncobj_module.monotonicTime = time.monotonic


def engine_clock() -> float:
    """Return the engine's time, in seconds."""
    return pysyncobj_module.monotonicTime()


class Hooks(Protocol):
    """What the engine asks and tells."""

    def send_engine_message(self, node_id: str, message: dict[str, Any]) -> None:
        """Send PySyncObj's message."""
        ...

    def send_reply(self, node_id: str) -> None:
        """Answer the AppendEntries message that is being handled."""
        ...

    def next_chunk(self, node_id: str) -> SnapshotChunk | None:
        """Return the next piece of a snapshot for a follower, if it can be sent now."""
        ...

    def may_campaign(self) -> bool:
        """Decide on an election; the deadline has passed."""
        ...

    def won_election(self) -> None:
        """Note it."""
        ...

    def may_change_members(self, change: MemberChange) -> bool:
        """Decide on a change, on the leader, before it is appended."""
        ...

    def member_changed(self, change: MemberChange, *, is_undone: bool) -> None:
        """Note that a membership entry came into the log, or left it."""
        ...

    def may_append(self) -> bool:
        """Decide whether waiting entries may be appended now; asked on the leader."""
        ...

    def apply(self, index: int, content: bytes) -> Outcome:
        """Apply a committed entry."""
        ...

    def compact(self) -> None:
        """Take a snapshot if it is time."""
        ...

    def election_timeout(self) -> float:
        """Return a random one, in seconds."""
        ...


class MemberNode(Node):
    """PySyncObj's node, equal by id."""

    def __init__(self, member: Member) -> None:
        super().__init__(member.node_id)
        self.member = member
        self._hash = crc32(member.node_id.encode())

    def __hash__(self) -> int:
        # Not the string's: PySyncObj sends in the order of a set, and runs must be repeatable.
        return self._hash


class Engine(SyncObj):
    """PySyncObj's Raft. It has no properties, because PySyncObj's constructor evaluates them."""

    def __init__(self, *, config: RaftConfig, wal: Wal, hooks: Hooks) -> None:
        self._hooks = hooks
        self._wal = wal
        self._batch_bytes = config.batch_bytes
        self._submitted: deque[tuple[bytes, SubmitDone]] = deque()
        super().__init__(
            MemberNode(Member(wal.identity.node_id, "", 0)),
            [MemberNode(member) for member in wal.identity.contacts],
            _pysyncobj_conf(config),
            nodeClass=MemberNode,
            transport=TransportBridge(hooks.send_engine_message),
        )
        self._poller = PollerBridge()
        self._SyncObj__needLoadDumpFile = False
        self._SyncObj__serializer = SnapshotBridge(hooks.next_chunk)
        self._SyncObj__raftLog = JournalBridge(wal)
        self._SyncObj__raftCurrentTerm = max(wal.term, wal.entries[-1][2])
        self._SyncObj__votedForNodeId = wal.voted_for if wal.term == self.term() else None
        self._SyncObj__raftCommitIndex = wal.commit_index
        self._SyncObj__raftLastApplied = wal.first_index

    # What core looks at.

    def term(self) -> int:
        """Return the current term."""
        return self._SyncObj__raftCurrentTerm

    def is_leader(self) -> bool:
        """Tell whether this manager leads, as far as it knows."""
        return self._isLeader()

    def leader_id(self) -> str | None:
        """Return who leads, as far as this manager knows."""
        leader: MemberNode | None = self._SyncObj__raftLeader
        return None if leader is None else leader.id

    def commit_index(self) -> int:
        """Return the index of the last committed entry."""
        return self._SyncObj__raftCommitIndex

    def applied_index(self) -> int:
        """Return the index of the last applied entry."""
        return self._SyncObj__raftLastApplied

    def others(self) -> dict[str, MemberNode]:
        """Return the other voters by id."""
        return {node.id: node for node in self._SyncObj__otherNodes}

    def has_committed_in_term(self) -> bool:
        """Tell whether this leader has committed an entry of its own term."""
        no_op = self._SyncObj__noopIDx
        return no_op is not None and self.commit_index() >= no_op

    def match_index(self, node: MemberNode) -> int:
        """Return up to where a follower's log is known to equal this leader's."""
        return self._SyncObj__raftMatchIndex.get(node, 0)

    def next_index(self, node: MemberNode) -> int:
        """Return the first entry that a follower is to be sent."""
        return self._SyncObj__raftNextIndex[node]

    def responded_since(self, time_s: float) -> set[str]:
        """Return the voters that answered this leader after `time_s`."""
        times = self._SyncObj__lastResponseTime
        return {n.id for n in self._SyncObj__otherNodes if times.get(n, 0.0) > time_s}

    def next_deadline(self) -> float:
        """Return when the engine must tick: for a heartbeat or an election."""
        if self._isLeader():
            return self._SyncObj__newAppendEntriesTime
        return self._SyncObj__raftElectionDeadline

    def is_told_to_campaign(self) -> bool:
        """Tell whether the leader is handing over to this manager."""
        return self._SyncObj__transferInProgress

    # What core does.

    def tick(self) -> None:
        """Campaign, commit, apply, send and append what is due."""
        if self._isLeader():
            self._commit()
        self._onTick(0.0)

    def receive(self, node: MemberNode, message: dict[str, Any]) -> None:
        """Handle one of PySyncObj's messages, checked and trimmed before."""
        super()._SyncObj__onMessageReceived(node, message)

    def submit(self, content: bytes, done: SubmitDone) -> None:
        """Append an entry at the next tick, if this manager leads then."""
        self._submitted.append((content, done))

    def send_append_entries(self) -> None:
        """Send every follower what it lacks."""
        self._SyncObj__sendAppendEntries()

    def send_timeout_now(self, node: MemberNode) -> None:
        """Tell a follower that has everything to take over."""
        self.transferLeadership(node)

    def campaign_now(self) -> None:
        """Let the election deadline pass."""
        self._SyncObj__raftElectionDeadline = 0.0

    def step_down(self, term: int) -> None:
        """Follow: there is a newer term."""
        self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__setState(_FOLLOWER)
        self._SyncObj__raftLeader = None
        self._SyncObj__raftElectionDeadline = engine_clock() + self._hooks.election_timeout()

    def forget_leader(self) -> None:
        """Know no leader: it has not been heard for an election timeout."""
        self._SyncObj__raftLeader = None

    def set_connected(self, node_ids: Iterable[str]) -> None:
        """Set whom to send to."""
        connected = set(node_ids)
        self._SyncObj__connectedNodes = {
            node for node in self._SyncObj__otherNodes if node.id in connected
        }

    def disconnect(self, node: MemberNode) -> None:
        """Stop sending to a node until `set_connected` says otherwise."""
        self._SyncObj__connectedNodes.discard(node)

    def replace_members(self, others: Iterable[Member]) -> None:
        """Replace all other voters."""
        self._SyncObj__updateClusterConfiguration([MemberNode(member) for member in others])

    def jump_to(self, index: int) -> None:
        """Have everything up to `index` applied and committed: a snapshot was restored."""
        self._SyncObj__raftLastApplied = index
        if self._SyncObj__raftCommitIndex < index:
            self._SyncObj__raftCommitIndex = index
            self._wal.set_commit_index(index)
        waiting = self._SyncObj__commandsWaitingCommit
        for passed in [i for i in waiting if i <= index]:
            del waiting[passed]

    # What PySyncObj calls.

    def _SyncObj__connectedToAnyone(self) -> bool:
        # Only `_onTick` asks, when the election deadline has passed: the place for a pre-vote.
        return self._hooks.may_campaign()

    def _SyncObj__onBecomeLeader(self) -> None:
        super()._SyncObj__onBecomeLeader()
        self._hooks.won_election()

    def _SyncObj__sendNextNodeIdx(
        self,
        node: Node,
        reset: bool = False,  # noqa: ARG002
        nextNodeIdx: int | None = None,  # noqa: ARG002
        success: bool = False,  # noqa: ARG002
    ) -> None:
        # PySyncObj acknowledges up to its own end of log, whatever the message proved.
        self._hooks.send_reply(node.id)

    def _SyncObj__parseChangeClusterRequest(
        self, command: bytes
    ) -> tuple[str, str, MemberNode] | None:
        # PySyncObj unpickles here.
        if not is_membership(command):
            return None
        change = decode_change(command)
        return change.verb, change.member.node_id, MemberNode(change.member)

    def _SyncObj__changeCluster(self, request: tuple[str, str, MemberNode]) -> bool:
        # PySyncObj's guard against a second uncommitted change is never set.
        verb, _, node = request
        if not self._hooks.may_change_members(MemberChange(verb, node.member)):
            return False
        return super()._SyncObj__changeCluster(request)

    def _SyncObj__doChangeCluster(
        self,
        request: tuple[str, str, MemberNode],
        reverse: bool = False,
    ) -> bool:
        changed = super()._SyncObj__doChangeCluster(request, reverse)
        verb, node_id, node = request
        if changed or node_id == self._wal.identity.node_id:
            self._hooks.member_changed(MemberChange(verb, node.member), is_undone=reverse)
        return changed

    def _SyncObj__doApplyCommand(self, command: bytes) -> tuple[int, Outcome]:
        # PySyncObj unpickles here too. What this returns goes to the submitter's callback.
        index = self.applied_index() + 1
        return index, self._hooks.apply(index, command)

    def _SyncObj__tryLogCompaction(self) -> None:
        # PySyncObj forks, renames in the child, and clears the log before it adds what is left.
        self._hooks.compact()

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:  # noqa: ARG002
        raise SafetyViolation("snapshots are restored by core")

    def _SyncObj__generateRaftTimeout(self) -> float:
        return self._hooks.election_timeout()

    def _checkCommandsToApply(self) -> None:
        # A follower's PySyncObj forwards commands and forgets them when the leader changes; its
        # queue takes a lock for each.
        submitted = self._submitted
        if not self._isLeader():
            while submitted:
                submitted.popleft()[1](Fate.LOST, 0, _NOTHING)
        elif submitted and self._hooks.may_append():
            size_bytes = 0
            while submitted and size_bytes < self._batch_bytes:
                content, done = submitted.popleft()
                size_bytes += len(content)
                self._append(content, done)

    def _append(self, content: bytes, done: SubmitDone) -> None:
        change = self._SyncObj__parseChangeClusterRequest(content)
        if change is not None and not self._SyncObj__changeCluster(change):
            done(Fate.DENIED, 0, _NOTHING)
            return
        term, index = self.term(), self._wal.last_index + 1
        self._wal.append(content, index, term)
        self._SyncObj__commandsWaitingCommit[index].append((term, partial(_finish, done)))

    def _commit(self) -> None:
        """Commit what a majority has; `_onTick` would count for each entry in turn."""
        matches = self._SyncObj__raftMatchIndex
        held = [matches.get(node, 0) for node in self._SyncObj__otherNodes]
        index = majority_index([*held, self._wal.last_index])
        if index > self.commit_index() and self._wal.entry(index)[2] == self.term():
            self._SyncObj__raftCommitIndex = index
            self._wal.set_commit_index(index)

    def setCodeVersion(self, newVersion: int, callback: Any = None) -> None:  # noqa: ANN401, ARG002
        """Refuse: the state machine's commands carry their own version."""
        raise SafetyViolation("code versions are not replicated")


def majority_index(held: list[int]) -> int:
    """Return up to where most voters have the log, given up to where each has it."""
    return sorted(held)[(len(held) - 1) // 2]


def _finish(done: SubmitDone, result: tuple[int, Outcome] | None, reason: int) -> None:
    """Be PySyncObj's callback."""
    if reason == FAIL_REASON.SUCCESS and result is not None:
        done(Fate.APPLIED, *result)
    else:
        done(Fate.LOST, 0, _NOTHING)


def _pysyncobj_conf(config: RaftConfig) -> SyncObjConf:
    return SyncObjConf(
        autoTick=False,
        dynamicMembershipChange=True,
        raftMinTimeout=config.election_timeout_s_min,
        raftMaxTimeout=config.election_timeout_s_max,
        appendEntriesPeriod=config.heartbeat_s,
        leaderFallbackTimeout=config.election_timeout_s_max,  # a leader cut off steps down
        connectionTimeout=max(3.5, config.election_timeout_s_max),  # not used, but checked
        appendEntriesUseBatch=True,
        appendEntriesBatchSizeBytes=config.batch_bytes,
        commandsWaitLeader=False,
    )
