"""The order of what is said of members."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.keyring import sender_tag
from gossip.member import MemberTable, Verdict
from gossip.wire import MEMBERS_MAX, Claim, NodeRecord, State

X = NodeRecord("x", 10, 2, "10.0.0.1", 7946, "10.0.0.1")


def _claim(state: State, epoch: int = 10, incarnation: int = 2) -> Claim:
    return Claim(state, "x", epoch, incarnation, "y", 1)


def _table(*said: NodeRecord | Claim) -> MemberTable:
    table = MemberTable()
    for item in said:
        if isinstance(item, Claim):
            table.put_claim(item, now=0.0)
        else:
            table.put_record(item, now=0.0)
    return table


@pytest.mark.parametrize(
    ("said", "verdict", "state"),
    [
        (_claim(State.SUSPECT), Verdict.NEW, State.SUSPECT),
        (_claim(State.DEAD), Verdict.NEW, State.DEAD),
        (_claim(State.LEFT), Verdict.NEW, State.LEFT),
        (_claim(State.DEAD, incarnation=1), Verdict.STALE, State.ALIVE),
        (_claim(State.DEAD, epoch=9), Verdict.STALE, State.ALIVE),
        (_claim(State.DEAD, incarnation=3), Verdict.AHEAD, State.ALIVE),
        (_claim(State.LEFT, epoch=11), Verdict.AHEAD, State.ALIVE),
        (_claim(State.LEFT, incarnation=0), Verdict.NEW, State.LEFT),
        (X, Verdict.KNOWN, State.ALIVE),
        (replace(X, incarnation=1), Verdict.STALE, State.ALIVE),
        (replace(X, incarnation=3), Verdict.NEW, State.ALIVE),
    ],
)
def test_order(said: NodeRecord | Claim, verdict: Verdict, state: State) -> None:
    table = _table(X)
    if isinstance(said, Claim):
        assert table.put_claim(said, now=1.0) is verdict
    else:
        assert table.put_record(said, now=1.0) is verdict

    assert table.known("x").state is state


def test_refutation_and_restart_bring_a_member_back_but_not_one_that_left() -> None:
    for brings_back, record in (
        (True, replace(X, incarnation=3)),
        (True, replace(X, epoch=11, incarnation=0)),
    ):
        table = _table(X, _claim(State.DEAD), record)
        assert table.known("x").is_live is brings_back
    assert _table(X, _claim(State.LEFT), replace(X, incarnation=3)).known("x").state is State.LEFT
    assert _table(X, _claim(State.LEFT), replace(X, epoch=11)).known("x").is_live


def test_one_that_was_expelled_stays_out_of_this_life_and_takes_a_claim_that_shows_it() -> None:
    table = _table(X)
    table.expel("x", now=3.0)
    assert (table.live(), table.known("x").since) == ([], 3.0)
    assert table.put_record(replace(X, incarnation=9), now=4.0) is Verdict.NEW
    assert table.known("x").state is State.LEFT
    assert table.judge(_claim(State.DEAD, incarnation=9)) is Verdict.STALE
    assert table.put_claim(_claim(State.LEFT), now=5.0) is Verdict.NEW
    assert table.put_claim(_claim(State.LEFT), now=6.0) is Verdict.KNOWN


def test_claim_about_a_stranger_changes_nothing() -> None:
    table = _table(_claim(State.DEAD))

    assert len(table) == 0
    assert table.judge(_claim(State.DEAD)) is Verdict.AHEAD


def _record(epoch: int, incarnation: int, port: int) -> NodeRecord:
    return replace(X, epoch=epoch, incarnation=incarnation, port=port)


records = st.builds(
    _record,
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(1, 2),
)
claims = st.builds(
    _claim,
    st.sampled_from([State.SUSPECT, State.DEAD]),
    st.integers(1, 3),
    st.integers(0, 2),
)


@given(st.lists(records, min_size=1, max_size=4))
def test_records_merge_to_the_same_in_any_order(said: list[NodeRecord]) -> None:
    outcomes = {_table(*order, *order[:2]).known("x").record for order in permutations(said)}

    assert len(outcomes) == 1


@given(st.lists(records | claims, max_size=12))
def test_epoch_and_incarnation_never_decrease(said: list[NodeRecord | Claim]) -> None:
    table = MemberTable()
    last = (0, 0)
    for item in said:
        if isinstance(item, Claim):
            table.put_claim(item, now=0.0)
        else:
            table.put_record(item, now=0.0)
        held = table.get("x")
        if held is not None:
            assert (held.record.epoch, held.record.incarnation) >= last
            last = (held.record.epoch, held.record.incarnation)


def test_only_those_long_gone_are_forgotten() -> None:
    table = _table(X, replace(X, node_id="y"))
    table.put_claim(_claim(State.DEAD), now=5.0)

    assert table.forget_before(5.0) == []
    assert table.forget_before(6.0) == ["x"]
    assert table.by_tag(sender_tag("x")) is None
    assert table.live() == ["y"]


def test_number_of_members_is_limited() -> None:
    table = _table(*(replace(X, node_id=f"n{n}") for n in range(MEMBERS_MAX + 5)))

    assert len(table) == MEMBERS_MAX
