"""One test per fault of PySyncObj that the core undoes: each fails if its cure is taken out."""

from __future__ import annotations

import pytest

from cluster.consensus.config import RaftConfig
from cluster.consensus.errors import SafetyViolation
from cluster.consensus.members import NO_OP, OPEN_SESSION, Member, MemberChange, encode_change
from cluster.consensus.messages import (
    AppendEntries,
    AppendReply,
    Introduction,
    NewerTerm,
    PreVoteGranted,
    PreVoteRequest,
    ReadProbe,
    ReadProbeReply,
    SnapshotChunk,
    TimeoutNow,
    VoteGranted,
    VoteRequest,
)
from cluster.consensus.ports import Fate
from cluster.consensus.raft import majority_index
from cluster.consensus.sessions import Outcome, Sessions
from cluster.consensus.snapshots import Snapshot, encode_image
from tests.unit.consensus.lone_core import MEMBERS, Echo, LoneCore, no_ops

N3 = Member("n3", "host3", 2377, "disk3")


@pytest.fixture
def lone(monkeypatch: pytest.MonkeyPatch) -> LoneCore:
    return LoneCore(monkeypatch)


def snapshot_at(index: int, term: int, *, commands: tuple[bytes, ...] = ()) -> bytes:
    """Return the image of a snapshot that ends at an entry."""
    machine = Echo()
    machine.commands = list(commands)
    state = Sessions(machine, sessions_max=8).dump()()
    return encode_image(Snapshot((NO_OP, index, term), (NO_OP, index - 1, term), MEMBERS, state))


def chunk(
    image: bytes, index: int, term: int, *, start: int = 0, end: int | None = None
) -> SnapshotChunk:
    return SnapshotChunk(term, index, term, start, len(image), image[start:end])


def test_second_membership_change_waits_until_the_first_is_committed(lone: LoneCore) -> None:
    lone.lead()
    lone.acknowledge("n1", "n2")

    first = lone.submit(encode_change(MemberChange("add", N3)))
    second = lone.submit(encode_change(MemberChange("rem", MEMBERS[2])))

    assert (first, second) == ([], [])
    assert not lone.core.may_change_members(MemberChange("rem", MEMBERS[2]))
    assert set(lone.core.roster.members) == {"n0", "n1", "n2", "n3"}
    lone.acknowledge("n1", "n2", "n3")
    assert [fate for fate, _, _ in first] == [Fate.APPLIED]
    lone.acknowledge("n1", "n3")
    assert [fate for fate, _, _ in second] == [Fate.APPLIED]
    assert set(lone.core.roster.applied) == {"n0", "n1", "n3"}


def test_membership_change_waits_for_the_terms_first_commit(lone: LoneCore) -> None:
    lone.lead()

    fates = lone.submit(encode_change(MemberChange("add", N3)))

    assert "n3" not in lone.core.roster.members
    lone.acknowledge("n1", "n2")
    lone.acknowledge("n1", "n2", "n3")
    assert [fate for fate, _, _ in fates] == [Fate.APPLIED]


def test_leader_does_not_remove_itself(lone: LoneCore) -> None:
    lone.lead()
    lone.acknowledge("n1", "n2")

    fates = lone.submit(encode_change(MemberChange("rem", MEMBERS[0])))

    assert [fate for fate, _, _ in fates] == [Fate.DENIED]


def test_acknowledgement_of_an_older_term_is_ignored(lone: LoneCore) -> None:
    term = lone.lead()
    end = lone.wal.last_index + 1

    lone.deliver("n1", AppendReply(term - 1, end, reset=False, success=True))

    assert lone.wal.commit_index == 2
    lone.deliver("n1", AppendReply(term, end, reset=False, success=True))
    assert lone.wal.commit_index == end - 1


def test_acknowledgement_beyond_the_log_is_a_violation(lone: LoneCore) -> None:
    term = lone.lead()

    with pytest.raises(SafetyViolation):
        lone.deliver("n1", AppendReply(term, 99, reset=False, success=True))


def test_reset_never_goes_below_what_a_follower_acknowledged(lone: LoneCore) -> None:
    term = lone.lead()
    lone.acknowledge("n1")
    lone.take(AppendEntries)

    lone.deliver("n1", AppendReply(term, 1, reset=True, success=False))
    lone.submit(NO_OP)

    assert [m.previous_index for m in lone.take(AppendEntries, "n1") if m.entries] == [3]


def test_two_mismatches_under_way_do_not_keep_the_logs_apart(lone: LoneCore) -> None:
    lone.append(1, (2, 0), *no_ops(3, 2, 1))
    term = lone.lead()
    lone.take(AppendEntries)

    lone.deliver(
        "n1",
        AppendReply(term, 3, reset=True, success=False),
        AppendReply(term, 5, reset=True, success=False),
    )
    lone.now += 1
    lone.tick()

    assert {m.previous_index for m in lone.take(AppendEntries, "n1")} == {2}


def test_stale_append_leaves_matching_entries_alone(lone: LoneCore) -> None:
    lone.append(5, (2, 0), *no_ops(3, 4, 5))
    lone.take(AppendReply)

    lone.append(5, (2, 0), *no_ops(3, 2, 5), commit=6)

    assert lone.wal.last_index == 6
    assert lone.take(AppendReply) == [AppendReply(5, 5, reset=False, success=True)]
    assert lone.wal.commit_index == 4, "only what the message proves"


def test_heartbeat_acknowledges_only_its_previous_entry(lone: LoneCore) -> None:
    lone.append(5, (2, 0), *no_ops(3, 4, 5))
    lone.take(AppendReply)

    lone.append(6, (3, 5), commit=6)

    assert lone.wal.last_index == 6
    assert lone.take(AppendReply) == [AppendReply(6, 4, reset=False, success=True)]
    assert lone.wal.commit_index == 3


def test_conflicting_entries_are_replaced(lone: LoneCore) -> None:
    lone.append(5, (2, 0), *no_ops(3, 4, 5))

    lone.append(7, (4, 5), (OPEN_SESSION, 5, 7), commit=3)

    assert lone.wal.entries_from(4) == [(NO_OP, 4, 5), (OPEN_SESSION, 5, 7)]


def test_mismatch_returns_the_first_index_of_the_term(lone: LoneCore) -> None:
    lone.append(5, (2, 0), *no_ops(3, 2, 4), *no_ops(5, 40, 5))
    lone.take(AppendReply)

    lone.append(7, (44, 6))

    assert lone.take(AppendReply) == [AppendReply(7, 5, reset=True, success=False)]
    assert lone.wal.last_index == 44


def test_leader_that_contradicts_a_committed_entry_is_a_violation(lone: LoneCore) -> None:
    lone.append(5, (2, 0), *no_ops(3, 4, 5), commit=6)

    with pytest.raises(SafetyViolation):
        lone.append(7, (3, 5), (NO_OP, 4, 7))


def test_two_leaders_in_a_term_are_a_violation(lone: LoneCore) -> None:
    term = lone.lead()

    with pytest.raises(SafetyViolation):
        lone.append(term, (2, 0))


def test_leader_of_an_older_term_is_told(lone: LoneCore) -> None:
    lone.append(5, (2, 0))
    lone.take(AppendReply)

    lone.append(4, (2, 0), *no_ops(3, 1, 4))

    assert lone.take(NewerTerm) == [NewerTerm(5)]
    assert lone.wal.last_index == 2


def test_acknowledgement_overtaken_by_a_newer_term_does_not_leave(lone: LoneCore) -> None:
    lone.core.deliver("n1", AppendEntries(5, 0, 2, 0, no_ops(3, 4, 5)))
    lone.core.deliver("n2", AppendEntries(6, 0, 2, 0, no_ops(3, 1, 6)))
    lone.tick()

    assert lone.take(AppendReply) == [AppendReply(6, 4, reset=False, success=True)]


def test_snapshot_chunk_does_not_move_the_commit_index(lone: LoneCore) -> None:
    lone.append(5, (2, 0), *no_ops(3, 4, 5))
    image = snapshot_at(20, 5)

    lone.deliver("n1", chunk(image, 20, 5, end=10))

    assert lone.wal.commit_index == 2
    assert lone.wal.last_index == 6


def test_snapshot_is_installed_and_acknowledged_no_further(lone: LoneCore) -> None:
    lone.append(5, (2, 0), *no_ops(3, 20, 5))
    lone.take(AppendReply)
    image = snapshot_at(10, 5, commands=(b"a", b"b"))

    lone.deliver("n1", chunk(image, 10, 5, end=30), chunk(image, 10, 5, start=30))

    assert lone.machine.commands == [b"a", b"b"]
    assert lone.wal.last_index == 22, "what follows the snapshot and matches is kept"
    assert lone.core.applied_index == lone.wal.commit_index == 10
    assert lone.take(AppendReply)[-1] == AppendReply(5, 11, reset=False, success=True)


def test_snapshot_replaces_a_log_that_differs(lone: LoneCore) -> None:
    lone.append(5, (2, 0), *no_ops(3, 20, 5))
    image = snapshot_at(10, 6)

    lone.deliver("n1", chunk(image, 10, 6))

    assert lone.wal.entries == [(NO_OP, 9, 6), (NO_OP, 10, 6)]


def test_stale_snapshot_is_not_installed(lone: LoneCore) -> None:
    lone.append(5, (2, 0), *no_ops(3, 20, 5), commit=20)
    lone.take(AppendReply)
    image = snapshot_at(10, 5, commands=(b"old",))

    lone.deliver("n1", chunk(image, 10, 5))

    assert lone.machine.commands == []
    assert lone.core.applied_index == 20
    assert lone.take(AppendReply) == [AppendReply(5, 11, reset=False, success=True)]


def test_snapshot_with_a_gap_is_not_installed(lone: LoneCore) -> None:
    image = snapshot_at(10, 5)

    lone.deliver("n1", chunk(image, 10, 5, end=20), chunk(image, 10, 5, start=30))
    lone.deliver("n1", chunk(image, 10, 5, start=20, end=30), chunk(image, 10, 5, start=30))

    assert lone.core.applied_index == 2


def test_damaged_snapshot_is_not_installed(lone: LoneCore) -> None:
    image = bytearray(snapshot_at(10, 5))
    image[-1] ^= 1

    lone.deliver("n1", chunk(bytes(image), 10, 5))

    assert lone.core.applied_index == 2


def test_duplicate_vote_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    five = (*MEMBERS, N3, Member("n4", "host4", 2377, "disk4"))
    lone = LoneCore(monkeypatch, members=five)
    lone.now += 10
    lone.tick()
    proposed = lone.take(PreVoteRequest)[0].proposed_term
    lone.deliver("n1", PreVoteGranted(0, proposed))
    lone.deliver("n1", PreVoteGranted(0, proposed))
    assert not lone.take(VoteRequest), "a duplicate pre-vote counts once, too"
    lone.deliver("n2", PreVoteGranted(0, proposed))
    assert len(lone.take(VoteRequest)) == 4

    lone.deliver("n1", VoteGranted(proposed), VoteGranted(proposed))

    assert not lone.core.is_leader
    lone.deliver("n2", VoteGranted(proposed))
    assert lone.core.is_leader


def test_votes_once_per_term_even_after_a_restart(lone: LoneCore) -> None:
    lone.deliver("n1", VoteRequest(5, 2, 0, is_transfer=False))
    assert lone.take(VoteGranted) == [VoteGranted(5)]
    lone.disk.restart(power_loss=True)
    lone.boot()

    lone.deliver("n2", VoteRequest(5, 9, 4, is_transfer=False))

    assert not lone.take(VoteGranted)


def test_nothing_leaves_before_it_is_durable(lone: LoneCore) -> None:
    lone.append(5, (2, 0), *no_ops(3, 4, 5))
    lone.deliver("n2", VoteRequest(6, 9, 5, is_transfer=True))
    lone.append(6, (6, 5), *no_ops(7, 1, 6))

    assert len(lone.take(AppendReply)) == 2
    assert lone.unsynced_sends == []


def test_leader_counts_itself_only_for_durable_entries(lone: LoneCore) -> None:
    lone.lead()
    lone.acknowledge("n1", "n2")
    counted: list[bool] = []

    def done(fate: Fate, index: int, outcome: Outcome) -> None:  # noqa: ARG001
        counted.append(lone.wal.has_unsynced)

    lone.core.submit(NO_OP, done)
    lone.core.tick()
    assert not lone.wal.has_unsynced

    lone.acknowledge("n1")

    assert counted == [False]
    assert all(isinstance(m, AppendEntries) for m in lone.unsynced_sends)


def test_entries_go_to_followers_before_the_leaders_own_sync(lone: LoneCore) -> None:
    lone.lead()
    lone.acknowledge("n1", "n2")
    lone.unsynced_sends.clear()

    lone.submit(NO_OP)

    assert [len(m.entries) for m in lone.unsynced_sends if isinstance(m, AppendEntries)] == [1, 1]


def led(lone: LoneCore) -> LoneCore:
    """Have `n0` lead, with nothing under way and nothing to tell."""
    lone.lead()
    lone.acknowledge("n1", "n2")
    lone.now += lone.config.commit_notice_s
    lone.tick()
    lone.take(AppendEntries)
    return lone


def test_followers_are_told_of_a_commit_with_the_next_entries(lone: LoneCore) -> None:
    led(lone).submit(NO_OP)
    lone.acknowledge("n1")
    committed = lone.wal.commit_index
    assert [m.commit_index for m in lone.take(AppendEntries, "n1")] == [committed - 1]

    lone.submit(NO_OP)

    assert [m.commit_index for m in lone.take(AppendEntries, "n1")] == [committed]
    lone.now += lone.config.commit_notice_s
    lone.tick()
    assert lone.take(AppendEntries) == []


def test_followers_are_told_of_a_commit_soon_when_no_entries_come(lone: LoneCore) -> None:
    led(lone).submit(NO_OP)
    lone.acknowledge("n1")
    lone.take(AppendEntries)
    committed = lone.wal.commit_index

    lone.now = lone.core.next_deadline()
    lone.tick()

    assert [m.commit_index for m in lone.take(AppendEntries)] == [committed, committed]


def test_followers_are_told_of_a_commit_at_once_when_one_waits(lone: LoneCore) -> None:
    led(lone).submit(NO_OP)
    lone.take(AppendEntries)

    lone.core.hasten()
    lone.acknowledge("n1")

    assert {m.commit_index for m in lone.take(AppendEntries)} == {lone.wal.commit_index}


def test_only_news_are_worth_a_tick(lone: LoneCore) -> None:
    led(lone)
    end = lone.wal.last_index + 1
    settled = AppendReply(lone.core.term, end, reset=False, success=True)
    assert not lone.core.deliver("n1", settled)
    assert lone.core.deliver("n1", AppendReply(lone.core.term, end, reset=True, success=False))

    lone.submit(NO_OP)

    assert lone.core.deliver("n1", AppendReply(lone.core.term, end + 1, reset=False, success=True))


def test_entries_beyond_a_batch_wait_for_the_next_round(monkeypatch: pytest.MonkeyPatch) -> None:
    lone = led(LoneCore(monkeypatch, config=RaftConfig(batch_bytes=3)))
    fates: list[Fate] = []
    for _ in range(5):
        lone.core.submit(NO_OP, lambda fate, _, __: fates.append(fate))
    lone.tick()
    assert len(lone.take(AppendEntries, "n1")[0].entries) == 3

    lone.acknowledge("n1", "n2")
    assert len(lone.take(AppendEntries, "n1")[0].entries) == 2
    lone.acknowledge("n1", "n2")

    assert fates == [Fate.APPLIED] * 5


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ([7], 7),
        ([7, 3], 3),
        ([7, 3, 5], 5),
        ([7, 7, 0], 7),
        ([9, 1, 2, 3], 2),
        ([1, 2, 3, 4, 5], 3),
    ],
)
def test_majority_index(held: list[int], expected: int) -> None:
    assert majority_index(held) == expected


def test_member_with_another_disk_never_campaigns(monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = Member("n0", "host0", 2377, "disk of an earlier life")
    lone = LoneCore(monkeypatch, members=(earlier,))

    for _ in range(10):
        lone.now += 10
        lone.tick()

    assert lone.core.term == 0
    assert not lone.core.is_leader


def test_member_that_was_cut_off_does_not_raise_the_term(lone: LoneCore) -> None:
    lone.append(5, (2, 0))
    for _ in range(20):
        lone.now += 1.5
        lone.tick()

    assert lone.core.term == 5
    assert {m.proposed_term for m in lone.take(PreVoteRequest)} == {6}


def test_nobody_votes_while_a_leader_is_heard(lone: LoneCore) -> None:
    lone.append(5, (2, 0))

    lone.deliver("n2", PreVoteRequest(5, 6, 9, 5), VoteRequest(6, 9, 5, is_transfer=False))

    assert lone.core.term == 5
    assert lone.take(Introduction) == [Introduction(5, MEMBERS[1])]
    lone.deliver("n2", VoteRequest(6, 9, 5, is_transfer=True))
    assert lone.take(VoteGranted) == [VoteGranted(6)]


def test_introduced_leader_is_heard(lone: LoneCore) -> None:
    lone.append(5, (2, 0))
    lone.now += 10
    lone.tick()
    lone.deliver("n3", AppendEntries(6, 0, 2, 0, no_ops(3, 1, 6)))
    assert lone.core.leader_id != "n3", "it is a stranger"

    lone.deliver("n2", Introduction(6, N3))
    lone.deliver("n3", AppendEntries(6, 0, 2, 0, no_ops(3, 1, 6)))

    assert "n3" in lone.peers
    assert lone.core.leader_id == "n3"
    assert "n3" not in lone.core.roster.members, "it is heard, but has no vote"


def test_introduced_leader_with_a_new_disk_is_heard_but_does_not_vote(lone: LoneCore) -> None:
    renewed = Member("n2", "host2", 2377, "a new disk")
    lone.now += 10
    lone.tick()
    proposed = lone.take(PreVoteRequest)[0].proposed_term
    lone.deliver("n1", Introduction(0, renewed))
    assert lone.peers["n2"] == renewed

    lone.deliver("n2", PreVoteGranted(0, proposed))
    assert not lone.take(VoteRequest), "the vote of the old disk is not this one's to give"
    lone.deliver("n2", AppendEntries(6, 0, 2, 0, no_ops(3, 1, 6)))

    assert lone.core.leader_id == "n2"


def test_member_whose_removal_is_not_committed_is_heard(lone: LoneCore) -> None:
    remove = encode_change(MemberChange("rem", MEMBERS[2]))
    lone.append(5, (2, 0), (remove, 3, 5))
    assert set(lone.core.roster.members) == {"n0", "n1"}

    lone.deliver("n2", AppendEntries(6, 0, 2, 0, no_ops(3, 1, 6)))

    assert lone.core.leader_id == "n2"
    assert set(lone.core.roster.members) == {"n0", "n1", "n2"}


def test_isolated_leader_steps_down_and_reads_nothing(lone: LoneCore) -> None:
    lone.lead()
    lone.acknowledge("n1", "n2")
    answers: list[int | None] = []
    lone.core.ask_read(answers.append)
    lone.tick()
    assert lone.take(ReadProbe)
    assert answers == []

    lone.now += lone.config.election_timeout_s_max + 0.01
    lone.tick()

    assert [lone.core.is_leader, answers] == [False, [None]]


def test_read_needs_a_majority_that_answers_this_round(lone: LoneCore) -> None:
    term = lone.lead()
    early: list[int | None] = []
    lone.core.ask_read(early.append)
    lone.tick()
    assert not lone.take(ReadProbe), "not before the term's first commit"
    lone.acknowledge("n1", "n2")
    number = lone.take(ReadProbe)[0].round

    lone.deliver("n1", ReadProbeReply(term, number - 1), ReadProbeReply(term - 1, number))
    assert not early
    lone.deliver("n1", ReadProbeReply(term, number))

    assert early == [lone.wal.commit_index]


def test_leader_hands_over_only_to_who_has_everything(lone: LoneCore) -> None:
    lone.lead()
    lone.acknowledge("n1", "n2")
    lone.submit(NO_OP)
    lone.take(TimeoutNow)
    lone.core.hand_over("n2")
    late = lone.submit(NO_OP)

    lone.acknowledge("n1")
    assert not lone.take(TimeoutNow)
    lone.acknowledge("n2")

    assert lone.take(TimeoutNow, "n2") == [TimeoutNow(lone.core.term)]
    assert late == [], "what comes meanwhile waits"
    lone.now += 0.9
    lone.acknowledge("n1", "n2")
    lone.now += 0.9
    lone.acknowledge("n1", "n2")
    lone.acknowledge("n1", "n2")
    assert [fate for fate, _, _ in late] == [Fate.APPLIED], "the successor did not take over"


def test_candidate_asked_to_take_over_does_not_ask_first(lone: LoneCore) -> None:
    lone.append(5, (2, 0))

    lone.deliver("n1", TimeoutNow(5))

    assert [m.is_transfer for m in lone.take(VoteRequest)] == [True, True]


def test_log_is_compacted_and_the_rest_survives_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    config = RaftConfig(snapshot_entries=10, trailing_entries=4)
    lone = LoneCore(monkeypatch, config=config)
    lone.append(5, (2, 0), *no_ops(3, 20, 5), commit=20)
    lone.tick()
    assert len(lone.jobs) == 1, "one snapshot at a time"
    assert lone.machine.encodings == 0, "that is for the background"

    lone.jobs.pop()()

    assert lone.core.stats().snapshot_index == 20
    assert lone.wal.first_index == 16
    lone.disk.restart(power_loss=True)
    lone.boot()
    assert lone.core.applied_index == 20
    assert lone.wal.last_index == 22


def test_finished_snapshot_does_not_replace_a_newer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    lone = LoneCore(monkeypatch, config=RaftConfig(snapshot_entries=10))
    lone.append(5, (2, 0), *no_ops(3, 20, 5), commit=20)
    image = snapshot_at(50, 5)
    lone.deliver("n1", chunk(image, 50, 5))

    lone.jobs.pop()()

    assert lone.core.stats().snapshot_index == 50
    assert lone.core.applied_index == 50


def test_large_entries_are_not_kept_behind_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    config = RaftConfig(snapshot_log_bytes=1000, trailing_bytes=300)
    lone = LoneCore(monkeypatch, config=config)
    large = NO_OP + bytes(99)
    lone.append(5, (2, 0), *((large, index, 5) for index in range(3, 15)), commit=14)

    lone.jobs.pop()()

    assert lone.wal.first_index == 10


def test_members_address_change_is_replicated(lone: LoneCore) -> None:
    lone.lead()
    lone.acknowledge("n1", "n2")

    lone.core.note_address(Member("n2", "elsewhere", 1234, "disk2"))
    lone.tick()
    lone.acknowledge("n1", "n2")

    assert lone.core.roster.members["n2"].address == ("elsewhere", 1234)
    assert lone.peers["n2"].address == ("elsewhere", 1234)
