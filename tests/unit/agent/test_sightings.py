"""Reading gossip: who is hidden, what stands in for what was not said yet."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.agent.applied import APPLIED_KEY, encode_applied, task_hash
from cluster.agent.drain import unacknowledged
from cluster.agent.sightings import Endpoint, RawRecord, Reader, Reading, Sightings, recall
from cluster.allocation.records import INGRESS_SCOPE, Phase, encode
from cluster.allocation.tokens import Verifier, new_key
from cluster.model.ids import ClusterId, NodeId
from tests.unit.agent.objects import (
    CLUSTER,
    KEY,
    NET,
    VERIFIER,
    A,
    B,
    C,
    allocation,
    ingress_record,
    record,
    signed,
)

TWO = RawRecord(B, record(2).task, signed(B, record(2)))
THREE = RawRecord(C, record(3).task, signed(C, record(3)))
REMEMBERED = Sightings(live={B: "192.0.2.2", C: ""}, records={NET: (TWO, THREE)})


def read(
    sightings: Sightings, scopes: Collection[str] = (NET,), reader: Reader | None = None
) -> Reading:
    reader = reader or Reader(A, VERIFIER)
    for heard in reader.unread(sightings, scopes):
        reader.examine(heard)
    assert reader.unread(sightings, scopes) == []
    return reader.reading(sightings, scopes)


def said(*records: RawRecord, scope: str = NET) -> Sightings:
    return Sightings({B: "", C: ""}, records={scope: records})


def test_records_count_while_their_owner_lives() -> None:
    seen = Sightings(live={A: "", B: "192.0.2.2"}, dead=frozenset({C}), records={NET: (TWO, THREE)})
    reading = read(seen)
    assert reading.endpoints == {NET: (Endpoint(B, record(2)),)}
    assert reading.live == {B: "192.0.2.2"}


def test_own_echo_and_other_scopes_are_left_out() -> None:
    own = RawRecord(A, record(1).task, signed(A, record(1)))
    seen = Sightings(live={A: ""}, records={NET: (own,), "other": (TWO,)})
    assert read(seen).endpoints == {NET: ()}


def test_junk_is_counted() -> None:
    junk = (RawRecord(B, "x", b"\xff"), RawRecord(B, APPLIED_KEY, b""))
    reading = read(said(*junk, TWO))
    assert reading.malformed == 2
    assert len(reading.endpoints[NET]) == 1


def test_what_was_not_allocated_is_counted_by_owner() -> None:
    """Another node's record, another task's token, a place of its own choice, another scope."""
    moved = allocation(B, NET, record(4))
    stolen = allocation(B, NET, record(5))
    forged = (
        RawRecord(B, THREE.key, THREE.value),
        RawRecord(B, stolen.key, encode(Phase.SERVING, stolen.body, moved.token)),
        RawRecord(B, "elsewhere", encode(Phase.SERVING, moved.body, moved.token)),
        RawRecord(B, moved.key, encode(Phase.SERVING, moved.body, b"")),
    )
    for raw in forged:
        assert read(said(raw, THREE)).unsigned == {B: 1}
    assert read(said(*forged, THREE)).endpoints == {NET: (Endpoint(C, record(3)),)}
    ingress = RawRecord(B, ingress_record(B, 2).task, signed(B, ingress_record(B, 2)))
    assert read(said(ingress, scope=INGRESS_SCOPE), [INGRESS_SCOPE]).unsigned == {}
    assert read(said(ingress)).unsigned == {B: 1}


@pytest.mark.parametrize(
    "verifier",
    [
        Verifier(CLUSTER, ()),
        Verifier(CLUSTER, (new_key(bytes(32)).public,)),
        Verifier(ClusterId("other"), VERIFIER.keys),
    ],
)
def test_only_the_clusters_own_managers_are_believed(verifier: Verifier) -> None:
    assert read(said(TWO), reader=Reader(A, verifier)).unsigned == {B: 1}


def test_an_earlier_key_is_believed_while_the_managers_say_so() -> None:
    both = Verifier(CLUSTER, (new_key(bytes(32)).public, KEY.public))
    assert read(said(TWO), reader=Reader(A, both)).unsigned == {}


def test_values_are_read_once() -> None:
    reader = Reader(A, VERIFIER)
    first = read(said(TWO, THREE), reader=reader)
    assert read(said(TWO, THREE), reader=reader) == first
    assert [h.record for h in reader.unread(said(TWO, THREE, replace(TWO, key="x")), [NET])] == [
        replace(TWO, key="x")
    ]


def test_a_phase_needs_no_proof() -> None:
    """It is the node's own to say: many tasks that drain at once cost nothing."""
    reader = Reader(A, VERIFIER)
    read(said(TWO), reader=reader)
    reader.verifier = Verifier(CLUSTER, ())
    draining = replace(TWO, value=signed(B, record(2, Phase.DRAINING)))
    reading = read(said(draining), reader=reader)
    assert reading.endpoints[NET] == (Endpoint(B, record(2, Phase.DRAINING)),)
    other = replace(TWO, value=signed(B, record(4, Phase.DRAINING)))
    assert read(said(other), reader=reader).unsigned == {B: 1}
    assert read(said(TWO), reader=reader).unsigned == {B: 1}


def test_the_value_before_stands_in_until_the_next_is_read() -> None:
    reader = Reader(A, VERIFIER)
    first = read(said(TWO), reader=reader)
    changed = said(replace(TWO, value=signed(B, record(2, Phase.DRAINING))), THREE)
    assert reader.reading(changed, [NET]) == first
    assert len(reader.unread(changed, [NET])) == 2


def test_what_is_no_longer_said_is_forgotten() -> None:
    reader = Reader(A, VERIFIER)
    read(said(TWO), reader=reader)
    reader.reading(said(), [NET])
    assert reader.unread(said(TWO), [NET]) != []


def test_who_says_much_makes_nobody_wait() -> None:
    flood = tuple(RawRecord(B, f"k{n}", b"junk") for n in range(100))
    assert THREE in [h.record for h in Reader(A, VERIFIER).unread(said(*flood, THREE), [NET])[:2]]


@given(st.data())
def test_no_byte_of_a_record_can_be_changed_but_its_phase(data: st.DataObject) -> None:
    value = bytearray(TWO.value)
    place = data.draw(st.integers(0, len(value) - 1))
    value[place] ^= data.draw(st.integers(1, 255))
    reading = read(said(RawRecord(B, TWO.key, bytes(value))))
    if reading.endpoints[NET]:
        assert place == 2
        assert [replace(e.record, phase=Phase.SERVING) for e in reading.endpoints[NET]] == [
            record(2)
        ]
    else:
        assert reading.malformed + sum(reading.unsigned.values()) == 1


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
    fresh = RawRecord(B, "fresh", signed(B, record(4)))
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
    assert unacknowledged(task, {NET}, reading(b=[], c=[task])) == {(NET, B)}
    assert unacknowledged(task, {NET}, reading(b=[task, "x"], c=[task])) == frozenset()
    assert unacknowledged(task, {NET}, reading(dead=[])) == frozenset()
    owing = {(NET, B)}  # it was suspected before it had obeyed
    assert unacknowledged(task, {NET}, reading(c=[task]), owing) == owing
    assert unacknowledged(task, {NET}, reading(b=[task], c=[task]), owing) == frozenset()
    assert unacknowledged(task, {NET, "unheard"}, reading()) == frozenset()


def test_applied_rows_are_read() -> None:
    row = RawRecord(B, APPLIED_KEY, encode_applied(["x"]))
    seen = read(said(row))
    assert seen.applied == {NET: {B: frozenset({task_hash("x")})}}
