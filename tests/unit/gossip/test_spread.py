"""Eager dissemination: batches, rounds, taking turns, and the limit on packets."""

from __future__ import annotations

import itertools
from random import Random

from gossip.broadcast import Queues, Rank
from gossip.codec import SealedCodec
from gossip.config import GossipConfig
from gossip.directory import Directory
from gossip.keyring import Keyring
from gossip.member import MemberTable
from gossip.outbox import Outbox
from gossip.spread import Spread
from gossip.stats import Counters
from gossip.timers import Timers
from gossip.wire import NODES, NodeRecord, Record, Stamp, Update
from tests.unit.gossip.pair import KEYS, address

CONFIG = GossipConfig.lan()


class _Bench:
    def __init__(self, peers: str) -> None:
        self.timers = Timers()
        self.queues = Queues()
        members = MemberTable()
        for name in peers:
            host, port = address(name)
            members.put_record(NodeRecord(name, 1, 0, host, port, host), now=0.0)
        directory = Directory(
            node_id="me", epoch=1, config=CONFIG, members=members, sign=lambda update: update
        )
        self.outbox = Outbox(
            config=CONFIG,
            codec=SealedCodec(Keyring(cluster_id="c", node_id="me", epoch=1, keys=KEYS)),
            members=members,
            directory=directory,
            queues=self.queues,
            counters=Counters(),
        )
        self.spread = Spread(
            config=CONFIG,
            rng=Random(1),
            timers=self.timers,
            members=members,
            directory=directory,
            queues=self.queues,
            outbox=self.outbox,
        )

    def put(self, name: str, value: bytes = b"", now: float = 0.0) -> None:
        update = Update(NODES, "me", Stamp(1, 0), Record(name, 1, 0, value))
        self.spread.put(NODES, Rank.OWN_RECORD, name, update, now=now)

    def run(self, until: float) -> list[tuple[float, str]]:
        """Return (when, to whom) of each packet."""
        sent: list[tuple[float, str]] = []
        while self.timers.due <= until:
            now = self.timers.due
            self.timers.fire(now)
            sent.extend((now, host) for _, (host, _) in self.outbox.drain())
        return sent


def test_update_goes_to_every_one_of_a_few_peers_in_growing_steps() -> None:
    bench = _Bench("bcdef")
    bench.put("a")
    bench.put("b", now=0.001)
    sent = bench.run(10.0)

    times = sorted({now for now, _ in sent})
    assert 0.01 <= times[0] <= 0.021
    assert [round(b - a, 3) for a, b in itertools.pairwise(times)] == [0.02, 0.04]
    assert len(sent) == 9
    assert {host for _, host in sent[:6]} == {address(name)[0] for name in "bcdef"}
    assert len(bench.queues) == 0


def test_without_peers_nothing_is_queued() -> None:
    bench = _Bench("")
    bench.put("a")

    assert bench.run(10.0) == []
    assert len(bench.queues) == 0


def test_packets_per_second_are_limited_but_all_updates_go_out() -> None:
    bench = _Bench("bcdef")
    for number in range(300):
        bench.put(f"k{number}", b"v" * 900)
    sent = bench.run(60.0)

    for second in range(1, 20):
        count = sum(second <= now < second + 1 for now, _ in sent)
        assert count <= CONFIG.packet_rate * 1.25
    assert len(sent) >= 300 * 9
    assert len(bench.queues) == 0


def test_update_that_fits_no_packet_is_left_to_anti_entropy() -> None:
    bench = _Bench("bc")
    bench.put("k" * 100, b"v" * 1300)

    assert bench.run(10.0) == []
