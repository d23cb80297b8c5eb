"""Entries of the log, and who votes by them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.consensus.config import COMMAND_BYTES_MAX, RaftConfig
from cluster.consensus.members import (
    NO_OP,
    OPEN_SESSION,
    CommandEntry,
    Member,
    MemberChange,
    decode_change,
    decode_command,
    effective_members,
    encode_change,
    encode_command,
    is_forwardable,
    is_membership,
)
from cluster.consensus.roster import Roster

A, B, C = (Member(name, f"host-{name}", 2377, f"disk-{name}") for name in "abc")
NUMBERS = st.integers(0, 2**64 - 1)


@given(st.builds(CommandEntry, NUMBERS, NUMBERS, NUMBERS, st.binary(max_size=100)))
def test_command_round_trip(command: CommandEntry) -> None:
    entry = encode_command(command)

    assert decode_command(entry) == command
    assert is_forwardable(entry)
    assert not is_membership(entry)


@pytest.mark.parametrize("verb", ["add", "rem", "move"])
def test_change_round_trip(verb: str) -> None:
    entry = encode_change(MemberChange(verb, A))

    assert decode_change(entry) == MemberChange(verb, A)
    assert is_membership(entry) is (verb != "move"), "a move does not change who votes"


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"\x00short",
        NO_OP,
        OPEN_SESSION + b"x",
        encode_change(MemberChange("add", A)),
        encode_change(MemberChange("move", A)),
        encode_command(CommandEntry(1, 1, 1, bytes(COMMAND_BYTES_MAX + 1))),
    ],
)
def test_only_commands_and_sessions_are_forwarded(entry: bytes) -> None:
    assert not is_forwardable(entry)


def test_effective_members_follow_the_log() -> None:
    later = [
        (encode_change(MemberChange("add", B)), 5, 1),
        (NO_OP, 6, 1),
        (encode_change(MemberChange("rem", A)), 7, 1),
    ]

    assert effective_members({"a": A}, later) == {"b": B}


def test_roster_hears_contacts_until_it_votes() -> None:
    roster = Roster(C, contacts=[A])
    assert roster.heard == {"a": A}
    roster.restore([B], [])
    assert roster.heard == {"a": A, "b": B}

    roster.enter(MemberChange("add", C), is_undone=False)

    assert roster.is_voter
    assert roster.heard == roster.others == {"b": B}


def test_undone_removal_keeps_the_address() -> None:
    roster = Roster(A, contacts=[])
    roster.restore([A, B], [])
    roster.enter(MemberChange("rem", B), is_undone=False)
    assert (roster.others, roster.heard) == ({}, {"b": B})

    roster.enter(MemberChange("rem", B), is_undone=True)

    assert roster.others == {"b": B}


def test_committed_removal_ends_hearing() -> None:
    roster = Roster(A, contacts=[])
    roster.restore([A, B], [])
    roster.enter(MemberChange("rem", B), is_undone=False)

    roster.commit(MemberChange("rem", B))

    assert roster.was_removed("b")
    assert roster.heard == {}
    roster.commit(MemberChange("add", B))
    assert not roster.was_removed("b")


def test_introduced_leader_is_heard_until_the_log_knows_better() -> None:
    roster = Roster(A, contacts=[])
    roster.restore([A, B], [])
    renewed = Member("b", "host-b", 2377, "another disk")
    assert not roster.introduce(B)
    assert roster.introduce(renewed)
    assert not roster.introduce(renewed)
    assert roster.heard == {"b": renewed}
    assert not roster.is_heard_as_voter("b")
    roster.enter(MemberChange("rem", B), is_undone=False)
    assert roster.heard == {"b": renewed}

    roster.enter(MemberChange("add", renewed), is_undone=False)

    assert roster.is_heard_as_voter("b")
    assert roster.introduce(C)
    assert not roster.is_heard_as_voter("c"), "it is heard, but has no vote"


@pytest.mark.parametrize(
    "settings",
    [
        {"election_timeout_s_min": 0.3},
        {"election_timeout_s_min": 2.0},
        {"snapshot_entries": 0},
        {"trailing_entries": -1},
    ],
)
def test_senseless_configuration_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        RaftConfig(**settings)  # type: ignore[arg-type]
