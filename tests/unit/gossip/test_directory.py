"""What is visible: records of owners that are up and attached, under their current stamp."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from gossip.config import GossipConfig
from gossip.digest import Lead, Summary, compare
from gossip.directory import Directory
from gossip.member import MemberTable, Verdict
from gossip.wire import NODES, Claim, DigestEntry, NodeRecord, Record, Stamp, State, Update

CONFIG = GossipConfig.lan()
X = NodeRecord("x", 10, 0, "10.0.0.1", 7946, "10.0.0.1")
ME = replace(X, node_id="me", epoch=1)


class _View:
    """A node `me`, attached to scope net, and what it hears of `x`."""

    def __init__(self) -> None:
        self.members = MemberTable()
        self.directory = Directory(
            node_id="me", epoch=1, config=CONFIG, members=self.members, sign=lambda update: update
        )
        self.summary = Summary(me=lambda: ME, members=self.members, directory=self.directory)
        self.directory.attach("net", hlc=0)

    def meet(self, record: NodeRecord = X, now: float = 0.0) -> None:
        self.members.put_record(record, now=now)
        self.directory.member_changed("x")

    def hear(self, state: State, now: float = 0.0) -> None:
        held = self.members.known("x").record
        claim = Claim(state, "x", held.epoch, held.incarnation, "y", 1)
        self.members.put_claim(claim, now=now)
        self.directory.member_changed("x")

    def attachment(self, version: int, *, is_on: bool = True, epoch: int = 10) -> None:
        record = Record("net", version, 0, b"" if is_on else None)
        self.directory.take_update(Update(NODES, "x", Stamp(epoch, 0), record))

    def record(self, version: int, value: bytes | None, *, attachment: int = 1) -> None:
        stamp = Stamp(self.members.known("x").record.epoch, attachment)
        self.directory.take_update(Update("net", "x", stamp, Record("k", version, 0, value)))

    def seen(self) -> list[bytes]:
        return [view.value for view in self.directory.records("net") if view.owner == "x"]


@pytest.fixture
def view() -> _View:
    made = _View()
    made.meet()
    made.attachment(1)
    made.record(1, b"v")
    assert made.seen() == [b"v"]
    return made


def test_record_is_not_visible_before_its_owner_is_known_to_be_attached() -> None:
    view = _View()
    view.meet()
    view.record(1, b"v")
    assert view.seen() == []
    view.attachment(1)

    assert view.seen() == [b"v"]


def test_suspect_is_visible_and_dead_is_hidden_and_back_at_once(view: _View) -> None:
    view.hear(State.SUSPECT)
    assert view.seen() == [b"v"]
    view.hear(State.DEAD)
    assert view.seen() == []
    assert "net" in view.directory.changed
    view.meet(replace(X, incarnation=1))

    assert view.seen() == [b"v"]


def test_records_of_one_who_left_or_restarted_are_dropped(view: _View) -> None:
    view.hear(State.LEFT)
    assert not view.summary.entries("net")

    view = _View()
    view.meet()
    view.attachment(1)
    view.record(1, b"v")
    view.meet(replace(X, epoch=11))
    view.attachment(1, epoch=11)
    assert view.seen() == []
    assert not view.summary.entries("net")


def test_detached_owner_is_hidden_and_starts_anew(view: _View) -> None:
    view.attachment(2, is_on=False)
    assert view.seen() == []
    view.attachment(3)
    assert view.seen() == []
    view.record(1, b"old", attachment=1)
    assert view.seen() == []
    view.record(1, b"new", attachment=3)

    assert view.seen() == [b"new"]


def test_dead_owners_records_are_let_go_after_a_while_but_not_how_far_they_were(
    view: _View,
) -> None:
    view.hear(State.DEAD, now=0.0)
    view.directory.hollow_dead(now=CONFIG.tombstone_s - 1)
    assert view.summary.entries("net")[0].maximum == 1
    view.directory.hollow_dead(now=CONFIG.tombstone_s + 1)
    assert view.summary.entries("net")[0].maximum == 0
    view.meet(replace(X, incarnation=1))
    view.record(1, b"v")

    assert view.seen() == []  # a snapshot is needed


def test_own_tombstone_is_forgotten_after_a_while() -> None:
    directory = _View().directory
    directory.publish("net", "k", b"1", hlc=0)
    directory.publish("net", "stays", b"1", hlc=0)
    directory.withdraw("net", "k", now=10.0, hlc=0)
    directory.collect(now=10.0 + CONFIG.tombstone_s)
    log = directory.table.logs("net")["me"]
    assert (log.gc, len(log.records)) == (0, 2)
    directory.collect(now=10.1 + CONFIG.tombstone_s)

    assert (log.gc, sorted(log.records)) == (3, ["stays"])


def test_hash_kept_up_to_date_equals_one_made_anew(view: _View) -> None:
    steps: list[Callable[[], object]] = [
        lambda: view.directory.publish("net", "k", b"1", hlc=0),
        lambda: view.record(2, None),
        lambda: view.hear(State.DEAD),
        lambda: view.meet(replace(X, incarnation=1)),
        lambda: view.attachment(2, is_on=False),
        lambda: view.hear(State.LEFT),
    ]
    seen: set[bytes] = set()
    for step in steps:
        step()
        fresh = Summary(me=lambda: ME, members=view.members, directory=view.directory)
        totals = [view.summary.total(scope) for scope in (NODES, "net")]
        assert totals == [fresh.total(scope) for scope in (NODES, "net")]
        seen.add(b"".join(totals))
    assert len(seen) >= 5


@pytest.mark.parametrize(
    ("mine", "other", "lead"),
    [
        ((5, 1, 9, 0), (5, 1, 9, 0), Lead.NONE),
        ((5, 1, 9, 0), (5, 1, 8, 0), Lead.MINE),
        ((5, 1, 9, 4), (5, 1, 9, 0), Lead.MINE),
        ((5, 2, 0, 0), (5, 1, 9, 0), Lead.MINE),
        ((5, 2, 9, 0), (6, 1, 0, 0), Lead.THEIRS),
        ((5, 1, 8, 4), (5, 1, 9, 0), Lead.THEIRS),
    ],
)
def test_who_knows_more(
    mine: tuple[int, int, int, int], other: tuple[int, int, int, int], lead: Lead
) -> None:
    def entry(epoch: int, attachment: int, maximum: int, gc: int) -> DigestEntry:
        return DigestEntry("x", Stamp(epoch, attachment), maximum, gc)

    assert compare("net", entry(*mine), entry(*other)) is lead


def test_of_a_member_both_may_know_something() -> None:
    mine = DigestEntry("x", Stamp(5, 0), 9, 0, 4)
    other = DigestEntry("x", Stamp(5, 0), 8, 0, 8)

    assert compare(NODES, mine, other) == Lead.MINE | Lead.THEIRS


def test_what_an_earlier_attachment_said_begins_no_log_again(view: _View) -> None:
    said = Update("net", "x", Stamp(10, 1), Record("k", 1, 0, b"v"))
    view.attachment(2, is_on=False)
    assert view.directory.table.get("net", "x") is None

    assert view.directory.judge_update(said) is Verdict.AHEAD
    view.attachment(3)
    assert view.directory.judge_update(said) is Verdict.AHEAD
    view.meet(replace(X, epoch=11))
    assert view.directory.judge_update(said) is Verdict.AHEAD
    assert view.directory.judge_update(replace(said, stamp=Stamp(11, 1))) is Verdict.NEW
