"""Who votes and who is heard."""

from __future__ import annotations

from cluster.consensus.members import Member
from cluster.consensus.roster import Roster

ME = Member("n4", "10.0.0.4", 2377, "disk4")
LEADER = Member("n0", "10.0.0.1", 2377, "disk0")
CONTACT = Member("n0", "10.0.0.1", 2377, "")


def _roster(*members: Member) -> Roster:
    roster = Roster(ME, contacts=())
    roster.restore([ME, *members], ())
    return roster


def test_whoever_knows_no_disk_of_a_voter_says_nothing_new_of_it() -> None:
    """It was heard under the name from then on, and its acknowledgements counted no more."""
    roster = _roster(LEADER)

    assert not roster.introduce(CONTACT)
    assert roster.heard["n0"] == LEADER
    assert roster.is_heard_as_voter("n0")


def test_leader_that_is_unknown_is_heard_but_has_no_vote() -> None:
    roster = _roster()

    assert roster.introduce(CONTACT)
    assert not roster.introduce(CONTACT)
    assert roster.heard["n0"] == CONTACT
    assert not roster.is_heard_as_voter("n0")


def test_leader_with_a_newer_disk_is_heard_but_has_no_vote() -> None:
    roster = _roster(LEADER)
    renewed = Member("n0", "10.0.0.1", 2377, "disk1")

    assert roster.introduce(renewed)
    assert roster.heard["n0"] == renewed
    assert not roster.is_heard_as_voter("n0")
