"""Old records bring nobody up before the node itself has spoken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from gossip.hearsay import Hearsay, Rumour
from gossip.keyring import Keyring
from gossip.machine import Machine
from gossip.message import unpack_untrusted
from gossip.waiting import Held
from gossip.wire import (
    Address,
    CertificateOffer,
    Challenge,
    Message,
    NodeRecord,
    PingRequest,
    Response,
    State,
)
from tests.unit.gossip.pair import make_machine, meet, member
from tests.unit.gossip.stranger import ADDRESS, KEYS, Stranger

NOW = 1000.0
OLD_MS = 100_000
"""When the record was signed; a minute is recent."""


def _state(machine: Machine) -> State | None:
    view = member(machine, "z")
    return None if view is None else view.state


def _said(machine: Machine) -> list[tuple[Message, Address]]:
    ring = Keyring(cluster_id="c", node_id="reader", epoch=1, keys=KEYS)
    return [
        (message, to)
        for data, to in machine.datagrams_to_send()
        for message in unpack_untrusted(ring.open_untrusted(data).body)
    ]


def _challenge(machine: Machine) -> Challenge:
    (found,) = [m for m, to in _said(machine) if isinstance(m, Challenge) and to == ADDRESS]
    return found


def _told(now: float = NOW) -> tuple[Machine, Stranger, Challenge]:
    """Return a machine that was told an old record, its owner, and what it asks of that."""
    a, z = make_machine("a"), Stranger()
    z.tell(a, z.record(50, hlc=OLD_MS), now=now)
    return a, z, _challenge(a)


def test_old_record_counts_once_its_node_has_answered() -> None:
    a, z, challenge = _told()
    assert _state(a) is None
    z.tell(a, z.trust.sign_response(challenge, epoch=50), now=NOW + 0.1)

    assert _state(a) is State.ALIVE


@pytest.mark.parametrize("age_s", [-59.0, 0.0, 59.0])
def test_recent_record_counts_at_once(age_s: float) -> None:
    a, z = make_machine("a"), Stranger()
    z.tell(a, z.record(50, hlc=int((NOW - age_s) * 1000)), now=NOW)

    assert _state(a) is State.ALIVE


@pytest.mark.parametrize("age_s", [-3600.0, -61.0, 61.0])
def test_clock_that_is_wrong_costs_an_answer(age_s: float) -> None:
    a, z = make_machine("a"), Stranger()
    z.tell(a, z.record(50, hlc=int((NOW - age_s) * 1000)), now=NOW)
    assert _state(a) is None
    z.tell(a, z.trust.sign_response(_challenge(a), epoch=50), now=NOW)

    assert _state(a) is State.ALIVE


LIES: tuple[Callable[[Challenge, Stranger], Response], ...] = (
    lambda asked, z: replace(z.trust.sign_response(asked, epoch=50), signature=b"x" * 64),
    lambda asked, z: z.trust.sign_response(asked, epoch=51),
    lambda asked, z: z.trust.sign_response(replace(asked, nonce=1), epoch=50),
    lambda asked, z: z.trust.sign_response(replace(asked, sequence=1), epoch=50),
    lambda asked, _: Stranger("y").trust.sign_response(asked, epoch=50),
)


@pytest.mark.parametrize("lie", LIES)
def test_nobody_answers_for_another(lie: Callable[[Challenge, Stranger], Response]) -> None:
    a, z, challenge = _told()
    z.tell(a, lie(challenge, z), now=NOW + 0.1)

    assert _state(a) is None


def test_answer_that_was_kept_back_proves_nothing() -> None:
    a, z, challenge = _told()
    z.tell(a, z.trust.sign_response(challenge, epoch=50), now=NOW + 11)

    assert _state(a) is None


def test_who_is_unknown_hears_who_asks() -> None:
    a, z = make_machine("a"), Stranger()
    z.tell(a, z.record(50, hlc=OLD_MS), now=NOW)
    told = [m for m, to in _said(a) if to == ADDRESS]

    assert a.me in told
    assert any(isinstance(m, CertificateOffer) for m in told)


def test_whoever_is_told_again_asks_less_and_less_and_checks_nothing() -> None:
    a, z, _ = _told()
    checked = a.counters.checked
    record = z.record(50, hlc=OLD_MS)
    asked = 0
    for tick in range(1, 3001):
        z.tell(a, record, z.record(49), now=NOW + tick / 10)
        asked += sum(isinstance(m, Challenge) for m, _ in _said(a))

    assert 8 <= asked <= 15
    assert a.counters.checked == checked


def test_what_anybody_can_repeat_or_make_up_ends_no_question() -> None:
    a, z = make_machine("a"), Stranger()
    z.tell(a, z.record(50, hlc=int(NOW * 1000)), now=NOW)
    z.tell(a, z.accuse(State.LEFT, "z", 50, 0), now=NOW)
    assert _state(a) is State.LEFT
    _said(a)
    z.tell(a, z.record(51, hlc=OLD_MS), now=NOW)
    challenge = _challenge(a)
    liar = Stranger("y")
    liar.tell(a, replace(z.record(49), signature=b""), now=NOW)
    z.tell(a, z.trust.sign_response(challenge, epoch=51), now=NOW + 0.1)

    assert _state(a) is State.ALIVE


def test_life_after_life_makes_nobody_flood_the_address_that_they_name() -> None:
    a, z = make_machine("a"), Stranger()
    for number in range(3000):
        z.tell(a, z.record(50 + number, hlc=OLD_MS), now=NOW)

    assert sum(isinstance(m, Challenge) for m, _ in _said(a)) <= 8


def test_life_after_life_keeps_nobody_else_at_its_address_from_being_asked() -> None:
    a, liar, z = make_machine("a"), Stranger("y"), Stranger()
    for number in range(3000):
        liar.tell(a, liar.record(50 + number, hlc=OLD_MS), now=NOW)
    _said(a)
    z.tell(a, z.record(50, hlc=OLD_MS), now=NOW)

    assert _challenge(a).target == "z"


def test_helpers_are_asked_when_the_node_has_not_answered() -> None:
    a, b, z = make_machine("a"), make_machine("b"), Stranger()
    meet(a, b)
    for _ in range(2):
        z.tell(a, z.record(50, hlc=OLD_MS), now=NOW)
        assert not [m for m, _ in _said(a) if isinstance(m, PingRequest)]
    z.tell(a, z.record(50, hlc=OLD_MS), now=NOW + 1)
    said = _said(a)
    (request,) = [m for m, to in said if isinstance(m, PingRequest) and to == b.me.address]
    assert (request.target, (request.host, request.port)) == ("z", ADDRESS)
    challenge = Challenge(request.sequence, "z", request.sequence)
    z.tell(a, z.trust.sign_response(challenge, epoch=50), now=NOW + 1)

    assert _state(a) is State.ALIVE


def test_newer_record_is_asked_about_or_taken() -> None:
    a, z, first = _told()
    z.tell(a, z.record(51, hlc=OLD_MS), now=NOW)
    second = _challenge(a)
    z.tell(a, z.trust.sign_response(first, epoch=50), now=NOW)
    assert _state(a) is None
    z.tell(a, z.trust.sign_response(second, epoch=51), now=NOW)
    view = member(a, "z")
    assert view is not None
    assert view.epoch == 51
    Stranger("z", 52).tell(a, z.record(52, hlc=OLD_MS), now=NOW)  # it is up: that is enough

    assert [v.epoch for v in a.members() if v.node_id == "z"] == [52]


def test_one_held_dead_is_not_raised_by_what_was_kept_back() -> None:
    a, z = make_machine("a"), Stranger()
    z.tell(a, z.record(50, hlc=1000), now=1.0)
    while (now := a.next_timer()) < 100.0:
        a.handle_timer(now=now)
    assert _state(a) is State.DEAD
    a.datagrams_to_send()
    kept = z.trust.sign_node(replace(z.record(50, hlc=2000), incarnation=1))
    z.tell(a, kept, now=100.0)
    assert _state(a) is State.DEAD
    z.tell(a, z.trust.sign_response(_challenge(a), epoch=50), now=100.0)

    assert _state(a) is State.ALIVE


def _rumour(hearsay: Hearsay, number: int) -> Rumour:
    record = NodeRecord(f"n{number}", 1, 0, "10.0.0.1", 1, "10.0.0.1")
    rumour = hearsay.hold(record, Held(record, ADDRESS, is_relayed=True, since=0.0))
    hearsay.asked(rumour, number, now=0.0)
    return rumour


def test_little_waits() -> None:
    hearsay = Hearsay()
    rumours = [_rumour(hearsay, number) for number in range(5000)]

    assert hearsay.answered_by(Response(0, 1), now=0.0) is None
    assert hearsay.answered_by(Response(4999, 1), now=0.0) is rumours[-1]
