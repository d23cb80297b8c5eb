"""Round robin by property: exact, and steady across changes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dataplane.balance import RoundRobin

BACKENDS = st.sets(st.integers(0, 20), min_size=1).map(lambda found: tuple(sorted(found)))


@given(BACKENDS, st.integers(1, 5))
def test_each_backend_gets_the_same_share(backends: tuple[int, ...], rounds: int) -> None:
    picker = RoundRobin(backends)
    picked = Counter(picker.pick() for _ in range(rounds * len(backends)))

    assert picked == dict.fromkeys(backends, rounds)


@given(BACKENDS, BACKENDS, st.integers(0, 20))
def test_after_a_change_the_turn_goes_on(
    before: tuple[int, ...], after: tuple[int, ...], picks: int
) -> None:
    picker = RoundRobin(before)
    last = [picker.pick() for _ in range(picks)][-1] if picks else None
    picker.replace(after)
    following = [backend for backend in after if last is not None and backend > last]

    assert picker.pick() == (following[0] if following else after[0])


def test_nobody_is_picked_from_nobody() -> None:
    assert RoundRobin[int](()).pick() is None
