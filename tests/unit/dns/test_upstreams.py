"""Which upstream resolvers are worth waiting for."""

from __future__ import annotations

from dataplane.dns.upstreams import DOWN_S, Turns, Upstreams

A, B = ("192.0.2.1", 53), ("192.0.2.2", 53)


def test_who_failed_comes_last_for_a_while() -> None:
    upstreams = Upstreams((A, B, A))
    assert upstreams.turns(0.0) == Turns((A, B), ())
    upstreams.failed(A, 1.0)
    assert upstreams.turns(1.0) == Turns((B,), (A,))
    assert upstreams.turns(1.0 + DOWN_S) == Turns((A, B), ())


def test_an_answer_makes_up_for_a_failure() -> None:
    upstreams = Upstreams((A, B))
    upstreams.failed(B, 1.0)
    upstreams.answered(B)
    upstreams.answered(A)
    assert upstreams.turns(1.0) == Turns((A, B), ())
