"""Whose records are taken, one by one and as whole logs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.config import GossipConfig
from gossip.keyring import Keyring
from gossip.machine import Machine
from gossip.message import unpack_untrusted
from gossip.proof import head_mark, head_of, rank
from gossip.wire import NODES, Delta, Digest, DigestEntry, Head, Record, Stage, Stamp, Update
from tests.unit.gossip.pair import KEYS, exchange, make_machine, meet, records
from tests.unit.gossip.stranger import ADDRESS, Stranger

STAMP = Stamp(50, 1)


class _Owner(Stranger):
    """A stranger with a log in scope net."""

    def attached(self, machine: Machine) -> _Owner:
        """Make itself known, and attached to net."""
        machine.attach("net", now=0.0)
        attachment = Update(NODES, "z", Stamp(50, 0), Record("net", 1, 0, b""))
        self.tell(machine, self.record(50), self.trust.sign_update(attachment))
        return self

    def write(self, key: str, version: int, value: bytes | None = b"v", *, hlc: int = 0) -> Update:
        update = Update("net", "z", STAMP, Record(key, version, hlc, value))
        return self.trust.sign_update(update)

    def delta(self, *updates: Update, start: int = 0, gc: int = 0, end: int | None = None) -> Delta:
        found = tuple(update.record for update in updates)
        last = max((r.version for r in found), default=0) if end is None else end
        head = self.head(found, last, gc)
        return Delta("net", "z", STAMP, start, last, gc, found, head)

    def head(self, found: tuple[Record, ...], maximum: int, gc: int, *, hlc: int = 1) -> Head:
        head = head_of(found, maximum=maximum, gc=gc, hlc=hlc)
        return self.trust.sign_head("net", "z", STAMP, head)


@pytest.fixture
def a() -> Machine:
    return make_machine("a")


@pytest.fixture
def z(a: Machine) -> _Owner:
    return _Owner().attached(a)


def _seen(machine: Machine) -> dict[str, bytes]:
    return {key: value for (_, key), value in records(machine, "net").items()}


def _position(machine: Machine) -> tuple[int, int]:
    entries = [e for e in machine.positions("net") if e.owner == "z"]
    return (entries[0].maximum, entries[0].gc) if entries else (0, 0)


FORGERIES: tuple[Callable[[Update], Update], ...] = (
    lambda u: replace(u, record=replace(u.record, signature=b"")),
    lambda u: replace(u, record=replace(u.record, value=b"x")),
    lambda u: replace(u, record=replace(u.record, key="other")),
    lambda u: replace(u, record=replace(u.record, version=2)),
    lambda u: replace(u, stamp=Stamp(50, 2)),
    lambda u: replace(u, stamp=Stamp(51, 1)),
    lambda u: replace(u, scope="net2"),
)


@pytest.mark.parametrize("forge", FORGERIES)
def test_record_that_its_owner_did_not_sign_changes_nothing(
    a: Machine, z: _Owner, forge: Callable[[Update], Update]
) -> None:
    a.attach("net2", now=0.0)
    forged = forge(z.write("k", 1))
    z.tell(a, forged, replace(z.delta(forged), scope=forged.scope, stamp=forged.stamp, head=None))

    assert _seen(a) == {}
    assert _position(a) == (0, 0)
    assert a.counters.refused_forged == 2


def test_a_known_record_costs_no_check(a: Machine, z: _Owner) -> None:
    update = z.write("k", 1)
    z.tell(a, update)
    checked = a.counters.checked
    for _ in range(10):
        z.tell(a, update, z.write("k", 1, b"other"))

    assert a.counters.checked == checked
    assert _seen(a) == {"k": b"v"}


def test_a_thousand_records_cost_one_check(a: Machine, z: _Owner) -> None:
    checked = a.counters.checked
    updates = [z.write(f"k{n}", n + 1) for n in range(1000)]
    z.tell(a, z.delta(*updates))

    assert len(_seen(a)) == 1000
    assert a.counters.checked == checked + 1
    assert _position(a) == (1000, 0)
    z.tell(a, z.delta(*updates))
    assert a.counters.checked == checked + 1


def test_what_a_head_does_not_prove_counts_record_by_record(a: Machine, z: _Owner) -> None:
    first, second, third = z.write("k", 1), z.write("l", 2), z.write("m", 3)
    whole = z.delta(first, second, third)
    z.tell(a, replace(whole, records=(first.record, third.record)))

    assert _seen(a) == {"k": b"v", "m": b"v"}
    assert _position(a) == (1, 0)  # the second may not pass for known
    z.tell(a, second)
    assert _position(a) == (3, 0)


def test_records_cannot_be_left_out_of_a_snapshot(a: Machine, z: _Owner) -> None:
    first, second = z.write("k", 1), z.write("l", 2)
    z.tell(a, z.delta(first, second))
    for forged in (
        Delta("net", "z", STAMP, 0, 9, 0, ()),
        replace(z.delta(first), end=9),
        replace(z.delta(first), end=9, head=replace(z.delta(first).head or _NONE, maximum=9)),
        replace(z.delta(first, second), gc=2),
        Delta("net", "z", STAMP, 2, 9, 9, (), replace(z.head((), 9, 9), signature=b"x" * 64)),
    ):
        z.tell(a, forged)

    assert _seen(a) == {"k": b"v", "l": b"v"}
    assert _position(a) == (2, 0)


_NONE = Head(0, 0, 0, b"", 0)


def test_a_head_of_another_is_forged(a: Machine, z: _Owner) -> None:
    y = Stranger("y")
    update = z.write("k", 1)
    delta = z.delta(update)
    assert delta.head is not None
    head = y.trust.sign_head("net", "z", STAMP, delta.head)
    y.tell(a, y.record(50), Delta("net", "z", STAMP, 0, 1, 1, (), replace(head, gc=1)))
    y.tell(a, replace(delta, records=(replace(update.record, signature=b""),), head=head))

    assert _seen(a) == {}
    assert _position(a) == (0, 0)
    assert a.counters.refused_forged >= 2


def test_a_head_alone_closes_gaps(a: Machine, z: _Owner) -> None:
    updates = z.write("k", 2), z.write("l", 4)  # the first and the third were replaced
    z.tell(a, *updates)
    assert _position(a) == (0, 0)
    head = z.head(tuple(u.record for u in updates), 4, 0)
    z.tell(a, Delta("net", "z", STAMP, 4, 4, 0, (), head))

    assert _position(a) == (4, 0)


def test_excess_is_refused(a: Machine, z: _Owner) -> None:
    many = [z.write(f"k{n}", n + 1, b"v" * 1024) for n in range(2200)]
    z.tell(a, z.delta(*many))
    assert _seen(a) == {}

    assert a.counters.refused_quota == 1


def test_an_old_head_takes_nothing_back(a: Machine, z: _Owner) -> None:
    first = z.write("k", 1)
    old = z.delta(first)
    gone = z.write("k", 2, None)
    z.tell(a, first, gone)
    assert _seen(a) == {}
    z.tell(a, old, replace(old, start=1, records=()))

    assert _seen(a) == {}
    assert _position(a) == (2, 0)


def test_what_a_head_has_proven_no_single_record_changes(a: Machine, z: _Owner) -> None:
    z.tell(a, z.delta(z.write("k", 2), z.write("l", 4)))
    z.tell(a, z.write("k", 2, b"other"), z.write("k", 3, b"other"), z.write("m", 1))

    assert _seen(a) == {"k": b"v", "l": b"v"}
    z.tell(a, z.write("k", 5, b"new"))
    assert _seen(a) == {"k": b"new", "l": b"v"}


def _two_logs(z: _Owner) -> tuple[Delta, Delta]:
    """Return two logs of one version, the second with the later head."""
    first, second = z.delta(z.write("k", 1, b"1")), z.delta(z.write("k", 1, b"2"))
    return first, replace(second, head=z.head(second.records, 1, 0, hlc=2))


def _asked(machine: Machine) -> list[Digest]:
    ring = Keyring(cluster_id="c", node_id="reader", epoch=1, keys=KEYS)
    said = [
        message
        for data, to in machine.datagrams_to_send()
        for message in unpack_untrusted(ring.open_untrusted(data).body)
        if to == ADDRESS
    ]
    return [m for m in said if isinstance(m, Digest) and m.stage is Stage.PULL]


def test_of_two_logs_of_one_version_the_one_with_the_later_head_is_right(
    a: Machine, z: _Owner
) -> None:
    first, second = _two_logs(z)
    z.tell(a, first)
    a.datagrams_to_send()
    z.tell(a, replace(second, start=1, records=()))
    (asked,) = _asked(a)
    assert asked.entries == (DigestEntry("z", STAMP, 0, 0),)
    assert _seen(a) == {"k": b"1"}
    z.tell(a, second)
    assert _seen(a) == {"k": b"2"}
    z.tell(a, first, replace(first, start=1, records=()))

    assert _seen(a) == {"k": b"2"}
    assert _asked(a) == []


_HLCS = st.integers(0, 2**64 - 1) | st.integers(2**48 - 2, 2**48 + 1)
_HEADS = st.builds(Head, st.just(1), st.just(0), st.just(1), st.binary(min_size=32), _HLCS)


@given(_HEADS, _HEADS)
def test_what_digests_tell_of_two_heads_agrees_with_which_is_taken(one: Head, other: Head) -> None:
    """Else one node would tell of its log for ever, and the other never take it."""
    earlier, later = sorted((one, other), key=rank)

    assert head_mark(earlier) <= head_mark(later)


def test_a_log_that_contradicts_itself_is_asked_for_now_and_then(a: Machine, z: _Owner) -> None:
    first, second = _two_logs(z)
    z.tell(a, first)
    for _ in range(20):
        z.tell(a, replace(second, start=1, records=()))

    assert len(_asked(a)) == 3


def test_a_head_that_comes_before_its_records_asks_for_nothing(a: Machine, z: _Owner) -> None:
    z.tell(a, z.delta(z.write("k", 1)))
    whole = z.delta(z.write("k", 1), z.write("l", 2), z.write("m", 3))
    z.tell(a, replace(whole, start=3, records=()))
    z.tell(a, z.write("o", 4), replace(whole, start=1, records=whole.records[1:]))

    assert _asked(a) == []


def test_heads_are_signed_at_most_once_a_second_and_never_at_rest() -> None:
    a = make_machine("a")
    a.attach("net", now=0.0)
    for tick in range(100):
        a.publish("net", "k", b"%d" % tick, now=tick / 50)
        a.handle_timer(now=tick / 50)
    a.handle_timer(now=3.0)
    signed = a.counters.signed
    assert signed <= 1 + 1 + 100 + 1 + 4  # itself, attachment, records, heads of both
    for tick in range(60):
        a.handle_timer(now=4.0 + tick)

    assert a.counters.signed == signed


def test_peers_get_the_proof_with_the_record() -> None:
    a, b = make_machine("a"), make_machine("b")
    for machine in (a, b):
        machine.attach("net", now=0.0)
    meet(a, b)
    for machine in (a, b, a, b):
        machine.handle_timer(now=2.0)
        exchange(a, b, now=2.0)
    a.publish("net", "k", b"v", now=3.0)
    a.handle_timer(now=3.0)
    a.handle_timer(now=3.03)
    exchange(a, b, now=3.03)
    (mine,) = (e for e in a.positions("net") if e.owner == "a")
    (theirs,) = (e for e in b.positions("net") if e.owner == "a")

    assert mine == theirs
    assert mine.proved > 0


def test_a_log_that_is_never_at_rest_is_told_as_its_head_proves_it_and_what_is_newer() -> None:
    """More than datagrams hold, with deletions that are forgotten, to one that knows nothing."""
    config = replace(GossipConfig.lan(), tombstone_s=1.0)
    a, b = make_machine("a", config=config), make_machine("b", config=config)
    for machine in (a, b):
        machine.attach("net", now=0.0)
    for number in range(400):
        a.publish("net", f"k{number % 300}", b"%d" % number, now=0.0)
    for number in range(50):
        a.withdraw("net", f"k{number}", now=0.0)
    a.handle_timer(now=40.0)
    a.handle_timer(now=42.0)
    a.publish("net", "k100", b"newer", now=42.0)
    a.withdraw("net", "k101", now=42.0)
    meet(a, b, now=42.0)
    b.handle_timer(now=43.0)
    exchange(a, b, now=43.0)
    checked = b.counters.checked
    (push,) = a.streams_to_send()
    for frame in push.frames:
        assert b.receive_frame(frame, a.me.address, peer="a", now=43.0)

    (mine,) = (e for e in a.positions("net") if e.owner == "a")
    assert mine.gc > 0
    assert mine in b.positions("net")
    assert records(b, "net") == records(a, "net")
    assert b.counters.checked - checked <= 3  # the head, and each of what is newer
