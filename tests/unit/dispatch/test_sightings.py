"""Sightings: one manager's list, and many joined."""

from __future__ import annotations

from cluster.dispatch.requests import ReportedSighting
from cluster.dispatch.sightings import GONE_KEPT_S, REPORTS_KEPT_S, Seen, Sightings
from cluster.model.ids import NodeId

A, B = NodeId("a"), NodeId("b")
M1, M2 = NodeId("m1"), NodeId("m2")


def test_a_lost_session_is_reported_with_the_last_word_heard() -> None:
    sightings = Sightings()
    sightings.saw(A, 10.0)
    assert sightings.report(11.0) == (ReportedSighting(A, 1.0, is_connected=True),)
    sightings.lost(A, 12.0)
    assert sightings.report(13.0) == (ReportedSighting(A, 3.0, is_connected=False),)
    assert sightings.joined(13.0, [A]) == {A: Seen(10.0, is_connected=False)}
    assert sightings.report(10.0 + GONE_KEPT_S) == ()


def test_the_leader_joins_what_managers_report() -> None:
    leader = Sightings()
    leader.saw(A, 100.0)
    leader.lost(A, 101.0)
    leader.receive(M1, [ReportedSighting(A, 0.5, is_connected=True)], 102.0)
    leader.receive(M2, [ReportedSighting(B, 3.0, is_connected=False)], 102.0)
    assert leader.joined(102.0, [A, B]) == {
        A: Seen(101.5, is_connected=True),
        B: Seen(99.0, is_connected=False),
    }
    assert leader.joined(102.0, [B]) == {B: Seen(99.0, is_connected=False)}


def test_a_report_replaces_the_managers_last_one() -> None:
    leader = Sightings()
    leader.receive(M1, [ReportedSighting(A, 0.0, is_connected=True)], 1.0)
    leader.receive(M1, [], 2.0)
    assert leader.joined(2.0, [A]) == {}


def test_a_silent_managers_report_ages_and_is_dropped() -> None:
    leader = Sightings()
    leader.receive(M1, [ReportedSighting(A, 0.0, is_connected=True)], 1.0)
    assert leader.joined(31.0, [A]) == {A: Seen(1.0, is_connected=True)}
    assert leader.joined(1.0 + REPORTS_KEPT_S, [A]) == {}


def test_the_ring_that_a_node_holds_is_the_one_it_named_last() -> None:
    leader = Sightings()
    assert leader.saw(A, 10.0, b"one")
    assert not leader.saw(A, 11.0, b"one")
    leader.saw(A, 12.0)
    leader.lost(A, 13.0)
    assert leader.joined(13.0, [A]) == {A: Seen(12.0, is_connected=False, ring=b"one")}
    assert leader.report(13.0)[0].ring == b"one"
    # It went to another manager before it was missed here.
    leader.receive(M1, [ReportedSighting(A, 2.0, is_connected=True, ring=b"two")], 13.0)
    assert leader.joined(13.0, [A]) == {A: Seen(12.0, is_connected=True, ring=b"two")}
    leader.receive(M2, [ReportedSighting(A, 3.0, is_connected=False, ring=b"three")], 13.0)
    assert leader.joined(13.0, [A])[A].ring == b"two"


def test_a_report_never_makes_a_node_look_older() -> None:
    leader = Sightings()
    leader.saw(A, 50.0)
    leader.receive(M1, [ReportedSighting(A, 30.0, is_connected=False)], 51.0)
    assert leader.joined(51.0, [A]) == {A: Seen(50.0, is_connected=True)}
