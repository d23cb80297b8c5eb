"""Exactly once, whatever is sent again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.consensus.errors import StorageFailure
from cluster.consensus.members import CommandEntry
from cluster.consensus.sessions import Outcome, Sessions, Verdict
from tests.unit.consensus.managers import Register


def table(sessions_max: int = 4) -> tuple[Sessions, Register]:
    machine = Register()
    return Sessions(machine, sessions_max=sessions_max), machine


def test_second_copy_gets_the_first_answer() -> None:
    sessions, machine = table()
    sessions.open(3)

    first = sessions.apply(4, CommandEntry(3, 1, 1, b"x"))
    again = sessions.apply(5, CommandEntry(3, 1, 1, b"x"))

    assert first == again == (Verdict.APPLIED, b"1")
    assert machine.applied == [b"x"]


def test_commands_may_arrive_in_any_order() -> None:
    sessions, machine = table()
    sessions.open(3)

    for sequence in (2, 3, 1, 2, 1, 3):
        sessions.apply(4, CommandEntry(3, sequence, 1, b"%d" % sequence))

    assert machine.applied == [b"2", b"3", b"1"]


def test_copy_of_what_its_proposer_gave_up_is_not_applied() -> None:
    sessions, machine = table()
    sessions.open(3)
    sessions.apply(4, CommandEntry(3, 2, 2, b"new"))

    assert sessions.apply(5, CommandEntry(3, 1, 1, b"late")).verdict is Verdict.STALE
    assert machine.applied == [b"new"]


def test_least_recently_used_session_goes() -> None:
    sessions, machine = table(sessions_max=2)
    sessions.open(1)
    sessions.open(2)
    sessions.apply(3, CommandEntry(1, 1, 1, b"x"))
    sessions.open(4)

    assert sessions.apply(5, CommandEntry(2, 1, 1, b"y")).verdict is Verdict.EXPIRED
    assert sessions.apply(6, CommandEntry(1, 1, 1, b"x")).answer == b"1"
    assert machine.applied == [b"x"]


def test_machine_that_raises_answers_for_itself() -> None:
    sessions, machine = table()
    sessions.open(3)

    outcome = sessions.apply(4, CommandEntry(3, 1, 1, b"boom"))

    assert outcome == (Verdict.FAILED, b"RuntimeError: poison at 4")
    assert sessions.apply(5, CommandEntry(3, 1, 1, b"boom")) == outcome
    assert sessions.apply(6, CommandEntry(3, 2, 1, b"fine")).verdict is Verdict.APPLIED
    assert machine.applied == [b"fine"]


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.tuples(st.integers(0, 5), st.integers(1, 6), st.integers(1, 6)),
        ),
        max_size=40,
    )
)
def test_restored_table_behaves_like_the_original(steps: list[tuple[int, int, int] | None]) -> None:
    sessions, machine = table(sessions_max=3)
    for index, step in enumerate(steps, start=1):
        copy, copied = table(sessions_max=3)
        copy.restore(sessions.dump()())
        if step is None:
            sessions.open(index)
            copy.open(index)
            continue
        session, sequence, lowest = step
        entry = CommandEntry(session, sequence, lowest, b"%d" % sequence)
        assert copy.apply(index, entry) == sessions.apply(index, entry)
        assert copied.applied == machine.applied
        assert copy.dump()() == sessions.dump()()


def test_dump_is_of_the_moment_that_it_was_asked_for() -> None:
    sessions, machine = table()
    sessions.open(1)
    sessions.apply(2, CommandEntry(1, 1, 1, b"one"))
    applied = list(machine.applied)
    encode = sessions.dump()
    sessions.apply(3, CommandEntry(1, 2, 2, b"two"))
    sessions.open(4)
    copy, copied = table()
    copy.restore(encode())
    assert copied.applied == applied
    assert copy.apply(3, CommandEntry(1, 1, 1, b"one")) == Outcome(Verdict.APPLIED, b"1")
    assert copy.apply(4, CommandEntry(4, 1, 1, b"x")).verdict is Verdict.EXPIRED


def test_unreadable_state_is_a_storage_failure() -> None:
    sessions, _ = table()

    with pytest.raises(StorageFailure):
        sessions.restore(b"\xc1")
