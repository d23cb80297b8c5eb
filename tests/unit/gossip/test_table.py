"""Logs merge to what their owner wrote, in whatever order and however often parts arrive."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossip.member import Verdict
from gossip.proof import head_of, is_proven
from gossip.table import Table
from gossip.wire import (
    LOG_BYTES_MAX,
    NODES,
    RECORDS_PER_LOG_MAX,
    SCOPES_PER_OWNER_MAX,
    Delta,
    InvalidError,
    Record,
    Stamp,
    Update,
)

STAMP = Stamp(5, 1)

writes = st.lists(
    st.tuples(st.sampled_from("abcd"), st.none() | st.binary(max_size=2)), min_size=1, max_size=12
)


def _owner(steps: list[tuple[str, bytes | None]]) -> tuple[Table, list[Update]]:
    table, updates = Table(), list[Update]()
    for key, value in steps:
        record = table.append("net", "o", STAMP, key, value, hlc=0)
        updates.append(Update("net", "o", STAMP, record))
    return table, updates


def _delta(table: Table, start: int) -> Delta:
    log = table.logs("net")["o"]
    head = head_of(log.records.values(), maximum=log.maximum, gc=log.gc, hlc=1)
    return Delta("net", "o", log.stamp, start, log.maximum, log.gc, tuple(log.after(start)), head)


def _take(table: Table, delta: Delta) -> Verdict:
    """Merge what the head proves, as the ledger does."""
    records = table.outcome(delta)
    assert delta.head is not None
    if records is None or not is_proven(records, delta.head):
        return Verdict.AHEAD
    return table.put_proven(delta, records)


def _live(table: Table) -> dict[str, bytes]:
    log = table.get("net", "o")
    records = {} if log is None else log.records
    return {r.key: r.value for r in records.values() if r.value is not None}


@given(writes, st.randoms(use_true_random=False))
def test_updates_merge_to_the_same_in_any_order(
    steps: list[tuple[str, bytes | None]], rng: Random
) -> None:
    owner, updates = _owner(steps)
    told = [*updates, *rng.sample(updates, len(updates) // 2)]
    rng.shuffle(told)
    table = Table()
    for update in told:
        table.put(update)

    assert _live(table) == _live(owner)
    assert table.logs("net")["o"].maximum == len(updates)
    assert not table.logs("net")["o"].ahead


@settings(max_examples=200)
@given(writes, st.data())
def test_updates_and_deltas_merge_to_what_the_owner_wrote(
    steps: list[tuple[str, bytes | None]], data: st.DataObject
) -> None:
    """The owner forgets tombstones meanwhile, and parts get lost; positions never decrease."""
    owner, table = Table(), Table()
    last = (0, 0)
    for key, value in steps:
        record = owner.append("net", "o", STAMP, key, value, hlc=0)
        log = owner.logs("net")["o"]
        if data.draw(st.booleans()):
            log.collect(data.draw(st.integers(0, log.maximum)))
        if data.draw(st.booleans()):
            table.put(Update("net", "o", STAMP, record))
        if data.draw(st.booleans()):
            held = table.get("net", "o")
            known = 0 if held is None else held.maximum
            _take(table, _delta(owner, known if known >= log.gc else 0))
        held = table.get("net", "o")
        if held is not None:
            assert held.position >= last
            last = held.position
    log, held = owner.logs("net")["o"], table.get("net", "o")
    known = 0 if held is None else held.maximum
    final = _delta(owner, known if known >= log.gc else 0)
    _take(table, final)
    _take(table, final)

    assert _live(table) == _live(owner)
    assert table.logs("net")["o"].position == log.position


@settings(max_examples=300)
@given(writes, st.data())
def test_a_head_proves_what_it_speaks_of_though_newer_records_are_here(
    steps: list[tuple[str, bytes | None]], data: st.DataObject
) -> None:
    """Heads come late or never; what they speak of can be told again, by the owner and others."""
    owner, table = Table(), Table()
    heads: list[tuple[Delta, set[Record]]] = []
    updates: list[Update] = []
    for key, value in steps:
        record = owner.append("net", "o", STAMP, key, value, hlc=0)
        updates.append(Update("net", "o", STAMP, record))
        log = owner.logs("net")["o"]
        if data.draw(st.booleans()):
            table.put(updates[-1])
        if data.draw(st.booleans()):
            log.collect(data.draw(st.integers(0, log.maximum)))
        if data.draw(st.booleans()):
            found = log.records.values()
            head = head_of(found, maximum=log.maximum, gc=log.gc, hlc=len(heads) + 1)
            log.set_head(head)
            end = log.maximum
            heads.append((Delta("net", "o", STAMP, end, end, log.gc, (), head), set(found)))
        if heads:
            assert set(log.at_head() or []) == heads[-1][1]
            _take_a_head(table, *data.draw(st.sampled_from(heads)))
    for update in data.draw(st.permutations(updates)):
        table.put(update)
    final = _delta(owner, owner.logs("net")["o"].maximum)
    _take(table, final)

    assert _live(table) == _live(owner)


def _take_a_head(table: Table, delta: Delta, snapshot: set[Record]) -> None:
    log = table.get("net", "o")
    assert delta.head is not None
    if log is None or (log.head is not None and log.head.hlc >= delta.head.hlc):
        return
    position, live = log.position, _live(table)
    if _take(table, delta) in {Verdict.NEW, Verdict.KNOWN}:
        assert set(log.at_head() or []) == snapshot
        assert log.head == delta.head
        assert log.position >= position
        assert _live(table) == live or delta.gc > position[1]


def test_delete_before_create_wins() -> None:
    _, (create, delete) = _owner([("a", b"1"), ("a", None)])
    table = Table()
    table.put(delete)

    assert table.put(create) is Verdict.KNOWN
    assert _live(table) == {}


def test_deleted_record_does_not_come_back_after_its_tombstone_is_gone() -> None:
    owner, (create, _) = _owner([("a", b"1"), ("a", None)])
    table = Table()
    _take(table, _delta(owner, 0))
    owner.logs("net")["o"].collect(2)
    _take(table, _delta(owner, 2))

    assert table.logs("net")["o"].records == {}
    assert table.put(create) is Verdict.STALE


def test_delta_that_does_not_join_on_is_refused() -> None:
    owner, updates = _owner([("a", b"1"), ("b", b"2"), ("c", b"3")])
    table = Table()
    table.put(updates[0])

    assert _take(table, _delta(owner, 2)) is Verdict.AHEAD
    assert table.logs("net")["o"].maximum == 1


def test_delta_of_an_owner_that_forgot_more_than_is_known_is_refused() -> None:
    owner, updates = _owner([("a", b"1"), ("a", None), ("b", b"2")])
    table = Table()
    table.put(updates[0])
    owner.logs("net")["o"].collect(2)

    assert _take(table, _delta(owner, 1)) is Verdict.AHEAD
    assert _take(table, _delta(owner, 0)) is Verdict.NEW
    assert _live(table) == {"b": b"2"}


def test_newer_stamp_replaces_the_log_and_an_older_one_is_ignored() -> None:
    _, updates = _owner([("a", b"1")])
    newer = Update("net", "o", Stamp(5, 2), Record("b", 1, 0, b"2"))
    table = Table()
    table.put(updates[0])
    table.put(newer)

    assert table.put(updates[0]) is Verdict.STALE
    assert _live(table) == {"b": b"2"}


def test_hollow_log_is_filled_only_by_what_reaches_as_far() -> None:
    owner, updates = _owner([("a", b"1"), ("b", b"2"), ("a", None)])
    early, _ = _owner([("a", b"1")])
    table = Table()
    _take(table, _delta(owner, 0))
    table.hollow("net", "o")

    assert table.logs("net")["o"].position == (0, 0)
    assert table.put(updates[0]) is Verdict.AHEAD
    assert _take(table, _delta(early, 0)) is Verdict.STALE
    assert _take(table, _delta(owner, 0)) is Verdict.NEW
    assert _live(table) == {"b": b"2"}


def test_log_is_limited_for_owner_and_receiver() -> None:
    owner = Table()
    for number in range(RECORDS_PER_LOG_MAX):
        owner.append("net", "o", STAMP, f"k{number}", b"", hlc=0)
    with pytest.raises(InvalidError):
        owner.append("net", "o", STAMP, "more", b"", hlc=0)
    owner.append("net", "o", STAMP, "k0", None, hlc=0)
    table = Table()
    _take(table, _delta(owner, 0))
    extra = Update("net", "o", STAMP, Record("more", RECORDS_PER_LOG_MAX + 2, 0, b""))

    assert table.put(extra) is Verdict.AHEAD
    assert len(table.logs("net")["o"].records) == RECORDS_PER_LOG_MAX


def test_a_judged_record_is_news_until_it_is_known_that_it_was_written() -> None:
    _, (first, second) = _owner([("a", b"1"), ("a", b"2")])
    table = Table()
    assert table.judge(second) is Verdict.NEW
    table.put(second)

    assert table.judge(second) is Verdict.KNOWN
    assert table.judge(first) is Verdict.NEW  # so whoever says it must have signed it
    table.put(first)
    assert table.judge(first) is Verdict.KNOWN
    assert _live(table) == {"a": b"2"}


def test_an_owner_attaches_to_few_scopes() -> None:
    table = Table()
    stamp = Stamp(5, 0)
    verdicts = [
        table.put(Update(NODES, "o", stamp, Record(f"net{number}", number + 1, 0, b"")))
        for number in range(SCOPES_PER_OWNER_MAX + 1)
    ]

    assert verdicts[-1] is Verdict.AHEAD
    assert len(table.logs(NODES)["o"].records) == SCOPES_PER_OWNER_MAX


def test_a_log_has_few_bytes_however_it_comes() -> None:
    count = LOG_BYTES_MAX // 1000
    records = [Record(f"k{n}", n + 1, 0, b"v" * 1024) for n in range(count)]
    head = head_of(records, maximum=count, gc=0, hlc=1)
    table = Table()

    assert _take(table, Delta("net", "o", STAMP, 0, count, 0, tuple(records), head)) is (
        Verdict.AHEAD
    )
    for record in records:
        table.put(Update("net", "o", STAMP, record))
    assert table.logs("net")["o"].size_bytes <= LOG_BYTES_MAX


def test_a_head_alone_tells_that_nothing_is_missing() -> None:
    owner, updates = _owner([("a", b"1"), ("a", b"2"), ("b", b"3")])
    table = Table()
    for update in updates[1:]:
        table.put(update)
    assert table.logs("net")["o"].maximum == 0
    alone = _delta(owner, 3)

    assert alone.records == ()
    assert _take(table, alone) is Verdict.KNOWN
    assert table.logs("net")["o"].maximum == 3
    assert table.logs("net")["o"].proof == alone.head
