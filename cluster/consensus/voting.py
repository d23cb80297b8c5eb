"""Elections as one manager takes part in them: pre-vote, votes, and handing over.

PySyncObj asks `may_campaign` when its election deadline has passed. Here a member first asks the
others whether it would win (pre-vote, Ongaro 9.6), so one that was cut off does not depose a
working leader when it comes back; and nobody votes while it hears a leader, except where that
leader asked for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cluster.consensus.config import RaftConfig
from cluster.consensus.members import is_majority
from cluster.consensus.messages import (
    ElectionMessage,
    EngineMessage,
    Introduction,
    NewerTerm,
    PreVoteGranted,
    PreVoteRequest,
    TimeoutNow,
    VoteGranted,
    VoteRequest,
)
from cluster.consensus.raft import Engine, MemberNode, engine_clock
from cluster.consensus.roster import Roster
from cluster.consensus.wal import Wal

_NEVER = float("-inf")


@dataclass(slots=True)
class PreVote:
    """The rounds of one member that hears no leader."""

    term: int = 0
    """The term that the running round proposes; 0 if none runs."""
    repeat_at: float = _NEVER
    """When to ask again."""
    _granted: set[str] = field(default_factory=set[str])

    def start(self, term: int, *, repeat_at: float) -> None:
        """Begin a round; answers to the last one do not count."""
        self.term = term
        self.repeat_at = repeat_at
        self._granted.clear()

    def stop(self) -> None:
        """End the round."""
        self.start(0, repeat_at=_NEVER)

    def grant(self, node_id: str, term: int) -> None:
        """Take a yes."""
        if self.term and term == self.term:
            self._granted.add(node_id)

    def has_won(self, term: int, others: set[str]) -> bool:
        """Tell whether a majority of `others` and this member want `term`."""
        if term != self.term:
            return False
        return is_majority(len(self._granted & others) + 1, len(others) + 1)


@dataclass(slots=True)
class _HandOver:
    target: str
    """Empty: whoever has everything."""
    deadline: float
    is_sent: bool = False


class Voting:
    """One manager's part in elections."""

    def __init__(
        self,
        *,
        engine: Engine,
        wal: Wal,
        roster: Roster,
        config: RaftConfig,
        timeout_s: Callable[[], float],
        post: Callable[[str, EngineMessage], None],
        roster_changed: Callable[[], None],
    ) -> None:
        self.elections_won = 0
        self.prevotes_started = 0
        self.is_transfer_election = False
        """Whether the votes asked for now are at the old leader's wish."""
        self._engine = engine
        self._wal = wal
        self._roster = roster
        self._config = config
        self._timeout_s = timeout_s
        self._post = post
        self._roster_changed = roster_changed
        self._prevote = PreVote()
        self._votes: set[tuple[int, str]] = set()
        self._leader_heard_at = _NEVER
        self._hand_over: _HandOver | None = None

    def next_deadline(self) -> float:
        """Return when a follower must tick."""
        return max(self._engine.next_deadline(), self._prevote.repeat_at)

    def hear_leader(self) -> None:
        """Note that the leader of this or a newer term has spoken."""
        self._leader_heard_at = engine_clock()
        self._prevote.stop()

    def is_leader_alive(self) -> bool:
        """Tell whether there is a leader, this manager or another, that works."""
        since = engine_clock() - self._config.election_timeout_s_min
        if self._engine.is_leader():
            voters = len(self._roster.others) + 1
            return is_majority(len(self._engine.responded_since(since)) + 1, voters)
        return self._leader_heard_at > since

    def responsive_members(self) -> set[str]:
        """Return the other voters that this leader heard from within an election timeout."""
        return self._engine.responded_since(engine_clock() - self._config.election_timeout_s_max)

    def may_campaign(self) -> bool:
        """Decide on an election; the deadline has passed. If not yet, ask the others."""
        others = set(self._roster.others)
        term, now = self._engine.term() + 1, engine_clock()
        is_voter = self._roster.is_voter
        self.is_transfer_election = is_voter and self._engine.is_told_to_campaign()
        if is_voter and (
            not others or self.is_transfer_election or self._prevote.has_won(term, others)
        ):
            self._prevote.stop()
            return True
        if self._prevote.term != term or now >= self._prevote.repeat_at:
            # Who has no vote asks too: it may be told whom else it should hear.
            self._engine.forget_leader()
            self.prevotes_started += 1
            self._prevote.start(term, repeat_at=now + self._timeout_s() / 2)
            _, last_index, last_term = self._wal.entries[-1]
            for node_id in self._roster.heard:
                self._post(
                    node_id, PreVoteRequest(self._engine.term(), term, last_index, last_term)
                )
        return False

    def win(self) -> None:
        """Note that this manager leads."""
        self.elections_won += 1
        self._hand_over = None

    def on_message(self, node: MemberNode, message: ElectionMessage) -> None:
        """Handle a message about elections, except an introduction."""
        match message:
            case VoteRequest():
                self._on_vote_request(node, message)
            case VoteGranted():
                self._on_vote_granted(node, message)
            case PreVoteRequest():
                self._on_prevote_request(node, message)
            case PreVoteGranted():
                if self._roster.is_heard_as_voter(node.id):
                    self._prevote.grant(node.id, message.proposed_term)
            case NewerTerm():
                self.follow_newer_term(message.term)
            case TimeoutNow():
                self._engine.receive(node, {"type": "timeout_now", "term": message.term})
            case Introduction():
                if self._prevote.term and self._roster.introduce(message.leader):
                    self._roster_changed()

    def follow_newer_term(self, term: int) -> None:
        """Follow, if that term is newer."""
        if term > self._engine.term():
            self._engine.step_down(term)

    def hand_over(self, target: str) -> None:
        """Let `target`, or whoever has everything, lead; try for one election timeout."""
        deadline = engine_clock() + self._config.election_timeout_s_max
        self._hand_over = _HandOver(target, deadline)

    @property
    def is_handing_over(self) -> bool:
        """Whether this leader appends nothing, so that its successor can catch up."""
        return self._hand_over is not None

    def step_leader(self, nodes: dict[str, MemberNode], connected: set[str]) -> None:
        """Hand over as soon as the successor has everything."""
        wanted = self._hand_over
        if wanted is None:
            return
        if engine_clock() > wanted.deadline:
            self._hand_over = None
            return
        # One that stands still is connected and has everything, too.
        answering = self.responsive_members()
        for node_id, node in nodes.items():
            is_ready = (
                node_id in answering and self._engine.match_index(node) == self._wal.last_index
            )
            is_wanted = wanted.target in {node_id, ""}
            if is_ready and is_wanted and node_id in connected and not wanted.is_sent:
                wanted.is_sent = True
                self._engine.send_timeout_now(node)

    def step_follower(self) -> None:
        """Forget what only a leader does."""
        self._hand_over = None

    def _has_all_of_mine(self, last_term: int, last_index: int) -> bool:
        """Tell whether a log that ends there is at least as up to date as this one."""
        _, index, term = self._wal.entries[-1]
        return (last_term, last_index) >= (term, index)

    def _on_vote_request(self, node: MemberNode, request: VoteRequest) -> None:
        if request.term < self._engine.term():
            self._post(node.id, NewerTerm(self._engine.term()))
        elif request.is_transfer or not self.is_leader_alive():
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
        key = (vote.term, node.id)
        is_new = vote.term == self._engine.term() and key not in self._votes
        if is_new and self._roster.is_heard_as_voter(node.id):
            self._votes = {v for v in self._votes if v[0] == vote.term} | {key}
            self._engine.receive(node, {"type": "response_vote", "term": vote.term})

    def _on_prevote_request(self, node: MemberNode, request: PreVoteRequest) -> None:
        term = self._engine.term()
        if request.proposed_term <= term:
            self._post(node.id, NewerTerm(term))
        elif self.is_leader_alive():
            self._introduce_leader(node)
        elif self._has_all_of_mine(request.last_term, request.last_index):
            self._post(node.id, PreVoteGranted(term, request.proposed_term))

    def _introduce_leader(self, node: MemberNode) -> None:
        leader_id = self._engine.leader_id()
        heard = self._roster.heard | {self._roster.me.node_id: self._roster.me}
        if leader_id is not None and leader_id in heard:
            self._post(node.id, Introduction(self._engine.term(), heard[leader_id]))
