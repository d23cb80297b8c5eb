"""Rounds of ReadIndex."""

from __future__ import annotations

from cluster.consensus.reads import LeaderView, ReadRounds

OTHERS = frozenset({"n1", "n2"})


def view(
    *,
    term: int = 3,
    commit: int = 10,
    committed: bool = True,
    others: frozenset[str] = OTHERS,
) -> LeaderView:
    return LeaderView(term, commit, committed, others)


def test_one_round_serves_all_that_wait() -> None:
    reads, answers = ReadRounds(repeat_s=0.1), list[int | None]()
    for _ in range(3):
        reads.ask(answers.append)

    number, asked = reads.step(view(), now=0.0)
    reads.confirm("n2", number=number, term=3)
    again = reads.step(view(), now=0.01)

    assert asked == OTHERS
    assert answers == [10, 10, 10]
    assert again == (0, frozenset())


def test_late_reads_wait_for_the_next_round() -> None:
    reads, answers = ReadRounds(repeat_s=0.1), list[int | None]()
    reads.ask(answers.append)
    first, _ = reads.step(view(), now=0.0)
    reads.ask(answers.append)
    reads.confirm("n1", number=first, term=3)

    second, asked = reads.step(view(commit=12), now=0.01)

    assert answers == [10]
    assert asked == OTHERS
    reads.confirm("n1", number=first, term=3)
    reads.step(view(commit=13), now=0.02)
    assert answers == [10], "an old answer does not count"
    reads.confirm("n1", number=second, term=3)
    reads.step(view(commit=13), now=0.03)
    assert answers == [10, 12]


def test_silent_followers_are_asked_again() -> None:
    reads = ReadRounds(repeat_s=0.1)
    reads.ask(lambda _: None)
    number, _ = reads.step(view(others=OTHERS | {"n3", "n4"}), now=0.0)
    reads.confirm("n1", number=number, term=3)

    assert reads.step(view(others=OTHERS | {"n3", "n4"}), now=0.05)[1] == frozenset()
    assert reads.step(view(others=OTHERS | {"n3", "n4"}), now=0.11)[1] == {"n2", "n3", "n4"}


def test_leader_alone_answers_at_once() -> None:
    reads, answers = ReadRounds(repeat_s=0.1), list[int | None]()
    reads.ask(answers.append)

    reads.step(view(others=frozenset()), now=0.0)

    assert answers == [10]


def test_new_term_fails_the_round() -> None:
    reads, answers = ReadRounds(repeat_s=0.1), list[int | None]()
    reads.ask(answers.append)
    reads.step(view(), now=0.0)

    reads.step(view(term=4, committed=False), now=0.01)

    assert answers == [None]


def test_nothing_is_read_before_the_first_commit_of_the_term() -> None:
    reads, answers = ReadRounds(repeat_s=0.1), list[int | None]()
    reads.ask(answers.append)

    assert reads.step(view(committed=False, others=frozenset()), now=0.0) == (0, frozenset())
    assert answers == []
