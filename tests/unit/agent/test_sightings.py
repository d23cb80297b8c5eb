"""Reading gossip: who is hidden, what stands in for what was not said yet."""

from __future__ import annotations

from cluster.agent.drain import unacknowledged
from cluster.agent.records import (
    APPLIED_KEY,
    Phase,
    encode,
    encode_applied,
    task_hash,
)
from cluster.agent.sightings import Endpoint, RawRecord, Reading, Sightings, read, recall
from cluster.model.ids import NodeId
from tests.unit.agent.objects import NET, A, B, C, record

TWO = RawRecord(B, record(2).task, encode(record(2)))
THREE = RawRecord(C, record(3).task, encode(record(3)))
REMEMBERED = Sightings(live={B: "192.0.2.2", C: ""}, records={NET: (TWO, THREE)})


def test_records_count_while_their_owner_lives() -> None:
    seen = Sightings(live={A: "", B: "192.0.2.2"}, dead=frozenset({C}), records={NET: (TWO, THREE)})
    reading, _ = read(seen, A, {NET}, {})
    assert reading.endpoints == {NET: (Endpoint(B, record(2)),)}
    assert reading.live == {B: "192.0.2.2"}


def test_own_echo_and_other_scopes_are_left_out() -> None:
    own = RawRecord(A, record(1).task, encode(record(1)))
    seen = Sightings(live={A: ""}, records={NET: (own,), "other": (TWO,)})
    assert read(seen, A, {NET}, {})[0].endpoints == {NET: ()}


def test_junk_is_counted() -> None:
    junk = (RawRecord(B, "x", b"\xff"), RawRecord(B, APPLIED_KEY, b""))
    reading, _ = read(Sightings({B: ""}, records={NET: (*junk, TWO)}), A, {NET}, {})
    assert reading.malformed == 2
    assert len(reading.endpoints[NET]) == 1


def test_values_are_decoded_once() -> None:
    seen = Sightings({B: ""}, records={NET: (TWO,)})
    _, known = read(seen, A, {NET}, {})
    known = {value: record(9) for value in known}
    assert read(seen, A, {NET}, known)[0].endpoints[NET][0].record == record(9)
    assert read(Sightings(), A, {NET}, known)[1] == {}


def test_unknown_members_are_recalled_for_a_while() -> None:
    now = Sightings(live={A: ""})
    assert recall(now, REMEMBERED, unknown_live=True, silent_live=True) == Sightings(
        {A: "", B: "192.0.2.2", C: ""}, records={NET: (TWO, THREE)}
    )
    late = recall(now, REMEMBERED, unknown_live=False, silent_live=False)
    assert (late.live, late.records) == ({A: ""}, {NET: ()})


def test_the_dead_are_not_recalled() -> None:
    now = Sightings(live={A: ""}, dead=frozenset({B}))
    seen = recall(now, REMEMBERED, unknown_live=True, silent_live=True)
    assert B not in seen.live
    assert seen.records == {NET: (THREE,)}


def test_what_is_said_replaces_what_is_remembered() -> None:
    fresh = RawRecord(B, "fresh", encode(record(4)))
    now = Sightings(live={B: "192.0.2.22", C: ""}, records={NET: (fresh,)})
    seen = recall(now, REMEMBERED, unknown_live=True, silent_live=True)
    assert seen.records == {NET: (fresh, THREE)}
    assert seen.live[B] == "192.0.2.22"
    assert recall(now, REMEMBERED, unknown_live=True, silent_live=False).records == {NET: (fresh,)}


def reading(**applied: list[str]) -> Reading:
    rows = {NodeId(node): frozenset(map(task_hash, tasks)) for node, tasks in applied.items()}
    return Reading(live={B: "", C: ""}, applied={NET: rows})


def test_drain_is_acknowledged_by_all_who_are_attached() -> None:
    task = record(1, Phase.DRAINING).task
    assert unacknowledged(task, {NET}, reading(b=[], c=[task])) == {B}
    assert unacknowledged(task, {NET}, reading(b=[task, "x"], c=[task])) == frozenset()
    assert unacknowledged(task, {NET}, reading(dead=[])) == frozenset()
    assert unacknowledged(task, {NET, "unheard"}, reading()) == frozenset()


def test_applied_rows_are_read() -> None:
    row = RawRecord(B, APPLIED_KEY, encode_applied(["x"]))
    seen, _ = read(Sightings({B: ""}, records={NET: (row,)}), A, {NET}, {})
    assert seen.applied == {NET: {B: frozenset({task_hash("x")})}}
