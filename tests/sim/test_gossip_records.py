"""Records reach everyone who should see them, nobody else, and never come back after a delete."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import cast

import pytest

from gossip.broadcast import QUEUE_MAX
from gossip.config import GossipConfig
from gossip.events import Event, RecordsChanged, RecordView
from gossip.simulation.cluster import cluster
from gossip.simulation.objects import Packet
from gossip.wire import NODES, Digest, DigestEntry, Stage, State
from tests.sim.gossip_network import SEEDS, Node, SimNetwork, mode, size

Truth = dict[tuple[str, str], bytes]


def _cluster(
    nodes: int, *, seed: int, scope: str = "net", config: GossipConfig | None = None
) -> SimNetwork:
    net = SimNetwork(nodes, seed=seed, mode=mode(seed), config=config)
    for name in net.nodes:
        net.attach(name, scope)
    assert net.run(10, net.all_alive)
    net.run(2)
    return net


def _all_see(net: SimNetwork, scope: str, truth: Truth) -> bool:
    nodes = [node for node in net.up if scope in node.scopes]
    return all(net.seen(node.name, scope) == truth for node in nodes)


@pytest.mark.parametrize("seed", SEEDS)
def test_update_reaches_twenty_five_nodes_within_a_quarter_second(seed: int) -> None:
    net = _cluster(size(seed, 25, small=(8, 10)), seed=seed)
    times: list[float] = []
    for number in range(5):
        started, value = net.now, b"%d" % number
        net.publish("n7", "net", "key", value)
        assert net.run(5, lambda v=value: _all_see(net, "net", {("n7", "key"): v}))  # type: ignore[misc]
        times.append(net.now - started)
        net.run(1)

    assert statistics.median(times) <= 0.1, times
    assert max(times) <= 0.25, times


@pytest.mark.parametrize("seed", SEEDS)
def test_update_reaches_five_nodes_within_a_tenth_of_a_second(seed: int) -> None:
    net = _cluster(5, seed=seed)
    for number in range(size(seed, 20, small=(3, 5), full_every=50)):
        value = b"%d" % number
        net.publish("n1", "net", "key", value)
        assert net.run(0.1, lambda v=value: _all_see(net, "net", {("n1", "key"): v}))  # type: ignore[misc]
        net.run(0.5)


@pytest.mark.parametrize("seed", SEEDS)
def test_missed_update_is_repaired_within_five_seconds(seed: int) -> None:
    net = _cluster(8, seed=seed)
    net.split(["n5"])
    net.publish("n1", "net", "key", b"value")
    net.run(1)
    net.heal()

    assert net.run(5, lambda: _all_see(net, "net", {("n1", "key"): b"value"}))


@pytest.mark.parametrize("seed", SEEDS)
def test_comparison_that_is_not_answered_is_made_with_another_member_soon(seed: int) -> None:
    """A lost packet costs half a second, not a whole interval."""
    net = cluster(3, seed=seed, scope="net", settle_s=10)
    asked: list[tuple[float, str]] = []
    crossed: list[float] = []
    """When the member that does not answer had asked by itself, and so said what it knows."""

    def look(node: Node, data: bytes) -> None:
        digests = [m for m in cast("Packet", data).messages if isinstance(m, Digest)]
        is_asked = any(d.scope == "net" and d.stage is Stage.COMPARE for d in digests)
        if (node.heard_from, node.name) == ("n1", "n0") and is_asked:
            crossed.append(net.now)
        if node.heard_from == "n0" and is_asked:
            asked.append((net.now, node.name))
            if node.name == "n1":
                net.cut.add(("n1", "n0"))
                net.at(0.5, net.cut.clear)

    net.on_packet = look
    net.run(90)

    after = [
        (at - then, whom)
        for (then, who), (at, whom) in pairwise(asked)
        if who == "n1" and all(abs(at - then) > 0.01 for at in crossed)
    ]
    assert after
    assert all(whom == "n2" and wait <= 0.51 for wait, whom in after), after


@pytest.mark.parametrize("seed", SEEDS)
def test_comparison_is_repeated_ever_later_and_thrice_at_most(seed: int) -> None:
    """Who hears nobody does not ask ever more."""
    config = GossipConfig(sync_interval_max_s=12.0)
    net = cluster(4, seed=seed, config=config, scope="net", settle_s=40)
    asked: list[float] = []

    def look(node: Node, data: bytes) -> None:
        digests = [m for m in cast("Packet", data).messages if isinstance(m, Digest)]
        if node.heard_from == "n0" and any(d.scope == "net" for d in digests):
            asked.append(net.now)

    net.cut |= {(name, "n0") for name in net.nodes}
    net.on_packet = look
    net.run(15, lambda: bool(asked))
    net.run(8)  # the next round is later

    pauses = [after - before for before, after in pairwise(asked)]
    assert pauses == pytest.approx([0.5, 1.0, 2.0], abs=0.01)


@pytest.mark.parametrize("seed", SEEDS)
def test_repetitions_of_all_networks_have_one_budget(seed: int) -> None:
    net = cluster(3, seed=seed, settle_s=1)
    for number in range(60):
        for name in net.nodes:
            net.attach(name, f"s{number}")
    net.run(30)
    net.cut |= {(name, "n0") for name in net.nodes}
    before = net.machine("n0").counters.syncs_repeated
    net.run(20)

    assert net.machine("n0").counters.syncs_repeated - before <= 20 + 10 * 20


@pytest.mark.parametrize("seed", SEEDS)
def test_comparison_with_a_member_that_knows_less_is_not_repeated(seed: int) -> None:
    """It takes what it lacked, and says no more."""
    only_compares = GossipConfig(fanout=0)
    net = cluster(12, seed=seed, config=only_compares, scope="net", settle_s=5)
    for name in net.nodes:
        net.publish(name, "net", "own", name.encode())
    net.run(10)
    for number in range(10):
        net.publish("n0", "net", "key", b"%d" % number)
        net.run(1)

    assert sum(node.machine.counters.deltas_in for node in net.up) > 0
    assert sum(node.machine.counters.syncs_repeated for node in net.up) == 0


@pytest.mark.parametrize("loss", [0.0, 0.2])
@pytest.mark.parametrize("seed", SEEDS)
def test_random_life_converges_and_shows_only_what_is_current(seed: int, loss: float) -> None:
    life = _Life(seed, loss=loss)
    net = life.net
    for step in range(80):
        life.go_on(step)
    net.faults.loss = 0.0

    # A nap may last so long that the others rightly take the sleeper for dead.
    assert net.run(60, lambda: not any(node.is_paused for node in net.up), every_s=0.1)
    assert net.run(120, life.is_right, every_s=0.1)
    net.run(10)
    assert life.is_right()


class _Life:
    """Nodes that join, leave and sleep, and attach to networks, and write; and what they wrote."""

    def __init__(self, seed: int, *, loss: float) -> None:
        self.rng = Random(seed)
        self.most = self.rng.randint(2, 25)
        self.net = SimNetwork(self.most, seed=seed, mode=mode(seed), loss=loss, duplicates=0.05)
        self.scopes = [f"s{n}" for n in range(self.rng.randint(1, 5))]
        self.truth: dict[tuple[str, str], dict[str, bytes]] = {}
        self.gone: set[str] = set()
        self.positions: dict[str, dict[tuple[str, str], tuple[int, ...]]] = {}
        self.watched: dict[tuple[str, str], Sequence[RecordView]] = {}
        self.net.on_event = self._fold
        self.net.on_step = self._check
        self.net.run(2)

    def go_on(self, step: int) -> None:
        """Do something at random."""
        net, rng = self.net, self.rng
        here = [name for name in net.nodes if name not in self.gone]
        name, scope = rng.choice(here), rng.choice(self.scopes)
        held = self.truth.get((name, scope))
        match rng.randint(0, 10):
            case 0 | 1 if held is None:
                net.attach(name, scope)
                self.truth[name, scope] = {}
            case 0 if held is not None:
                net.detach(name, scope)
                del self.truth[name, scope]
                self.positions.pop(name, None)  # it forgot all of the scope
            case 2 | 3 | 4 | 5 if held is not None:
                key = f"k{rng.randint(0, 5)}"
                held[key] = b"%d" % step
                net.publish(name, scope, key, held[key])
            case 6 | 7 if held:
                key = rng.choice(list(held))
                del held[key]
                net.withdraw(name, scope, key)
            case 8 if not net.nodes[name].is_paused:
                net.pause(name)
                net.at(net.rng.expovariate(0.5), lambda: net.resume(name))
            case 9 if len(here) > 2 and not net.nodes[name].is_paused:
                self._leave(name)
            case 10 if len(here) < self.most:
                net.add(f"n{len(net.nodes)}", join=rng.sample(here, min(3, len(here))))
            case _:
                net.run(rng.expovariate(2))

    def is_right(self) -> bool:
        """Tell whether all see what was written, and nothing else."""
        return all(_all_see(self.net, scope, self._truth_in(scope)) for scope in self.scopes)

    def _truth_in(self, scope: str) -> Truth:
        return {
            (owner, key): value
            for (owner, where), records in self.truth.items()
            if where == scope
            for key, value in records.items()
        }

    def _leave(self, name: str) -> None:
        self.gone.add(name)
        for scope in self.scopes:
            self.truth.pop((name, scope), None)
        self.net.do(name, lambda machine: machine.leave(now=self.net.now))
        self.net.at(1.0, lambda: self.net.kill(name))

    def _check(self, node: Node) -> None:
        """Check what must hold after every step of every node."""
        for scope in node.scopes:  # whoever looked whenever told to knows what there is to see
            assert self.watched.get((node.name, scope), ()) == node.machine.records(scope)
        if self.net.delivered % 5 == 0:  # a sample is enough, and far faster
            self._check_monotone(node)

    def _fold(self, node: Node, event: Event) -> None:
        """Do what a watcher does: look again when told to."""
        if isinstance(event, RecordsChanged):
            records = node.machine.records(event.scope)
            peers = {node.name, *node.machine.peers(event.scope)}
            assert all(record.owner in peers for record in records)
            self.watched[node.name, event.scope] = records

    def _check_monotone(self, node: Node) -> None:
        """Check that stored (epoch, incarnation), stamps and (maximum, gc) never decrease."""
        before = self.positions.get(node.name, {})
        after = self.positions[node.name] = {
            (scope, entry.owner): _position(entry)
            for scope in (NODES, *sorted(node.scopes))
            for entry in node.machine.positions(scope)
        }
        assert all(position <= after.get(held, position) for held, position in before.items())


def _position(entry: DigestEntry) -> tuple[int, ...]:
    incarnation, state = divmod(entry.mark, 4)
    has_left = state == State.LEFT  # and its log is dropped
    stamp = (entry.stamp.epoch, entry.stamp.attachment)
    return (*stamp, incarnation, has_left, entry.maximum, entry.gc)


@pytest.mark.parametrize("seed", SEEDS)
def test_records_are_back_at_once_after_a_cable_pull(seed: int) -> None:
    """An old engine forgot them for hours (moby#53141)."""
    net = _cluster(6, seed=seed)
    pull_s = net.rng.uniform(10.0, 30.0)
    for name in net.nodes:
        net.publish(name, "net", "key", name.encode())
    net.run(2)
    truth: Truth = {(name, "key"): name.encode() for name in net.nodes}
    assert _all_see(net, "net", truth)
    net.split(["n4"])
    net.run(pull_s)
    assert ("n4", "key") not in net.seen("n0", "net")
    net.heal()
    healed = net.now

    def is_alive() -> bool:
        return all(net.states(node.name)["n4"] is State.ALIVE for node in net.up)

    assert net.run(65, is_alive, every_s=0.02)
    assert net.run(1, lambda: _all_see(net, "net", truth)), net.now - healed
    assert all(("n4", "key") in net.seen(node.name, "net") for node in net.up)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_written_during_a_partition_is_everywhere_soon_after(seed: int) -> None:
    net = _cluster(8, seed=seed)
    net.split(["n0", "n1", "n2", "n3"])
    net.run(25)
    net.publish("n1", "net", "key", b"one side")
    net.publish("n6", "net", "key", b"the other")
    net.run(2)
    net.sent.clear()
    net.heal()

    truth: Truth = {("n1", "key"): b"one side", ("n6", "key"): b"the other"}
    healed = net.now
    assert net.run(5, lambda: _all_see(net, "net", truth), every_s=0.05)
    net.run(3)
    assert sum(net.sent.values()) < 25 * 8 * (net.now - healed)  # a storm: hundreds


@pytest.mark.parametrize("seed", SEEDS)
def test_records_are_back_after_an_outage_in_which_they_were_let_go(seed: int) -> None:
    """However many datagrams, or a stream, they take."""
    count, outage_s = (3, 30, 100)[seed % 3], size(seed, 1000, small=(150, 250), full_every=25)
    config = replace(GossipConfig.lan(), tombstone_s=outage_s - 100)
    net = _cluster(3, seed=seed, config=config)
    truth: Truth = {("n1", f"k{number}"): b"v" * 200 for number in range(count)}
    for _, key in truth:
        net.publish("n1", "net", key, b"v" * 200)
    net.run(5)
    net.split(["n1"])
    net.run(outage_s)
    net.heal()

    assert net.run(70, lambda: _all_see(net, "net", truth), every_s=0.5)


@pytest.mark.parametrize("seed", SEEDS)
def test_deleted_record_never_comes_back(seed: int) -> None:
    """Whoever was away, for less or longer than a tombstone lives."""
    config = replace(GossipConfig.lan(), tombstone_s=30.0)
    net = SimNetwork(5, seed=seed, mode=mode(seed), config=config)
    outage_s, stops = net.rng.uniform(5, 120), net.rng.choice(["pause", "split"])
    for name in net.nodes:
        net.attach(name, "net")
    net.run(3)
    net.publish("n1", "net", "gone", b"1")
    net.publish("n1", "net", "stays", b"1")
    net.run(2)
    net.pause("n3") if stops == "pause" else net.split(["n3"])
    net.withdraw("n1", "net", "gone")
    net.run(outage_s)
    resurrected: list[str] = []

    def check(node: Node) -> None:
        if node.name != "n3" and ("n1", "gone") in net.seen(node.name, "net"):
            resurrected.append(node.name)

    net.on_step = check
    net.resume("n3") if stops == "pause" else net.heal()

    assert net.run(70, lambda: _all_see(net, "net", {("n1", "stays"): b"1"}), every_s=0.1)
    net.run(30)
    assert not resurrected
    assert ("n1", "gone") not in net.seen("n3", "net")


@pytest.mark.parametrize("seed", SEEDS)
def test_node_that_joins_after_a_delete_does_not_see_it(seed: int) -> None:
    net = _cluster(4, seed=seed)
    net.publish("n1", "net", "gone", b"1")
    net.withdraw("n1", "net", "gone")
    net.run(1)
    net.add("late")
    net.attach("late", "net")
    net.run(10)

    assert net.seen("late", "net") == {}


@pytest.mark.parametrize("seed", SEEDS)
def test_leave_join_and_create_in_one_tick(seed: int) -> None:
    net = _cluster(6, seed=seed)
    net.publish("n2", "net", "old", b"1")
    net.run(1)
    net.detach("n2", "net")
    net.attach("n2", "net")
    net.publish("n2", "net", "new", b"2")

    assert net.run(6, lambda: _all_see(net, "net", {("n2", "new"): b"2"}))


@pytest.mark.parametrize("seed", SEEDS)
def test_leaving_and_joining_a_hundred_times_leaves_nothing_behind(seed: int) -> None:
    net = _cluster(5, seed=seed)
    for number in range(100):
        net.detach("n2", "net")
        net.attach("n2", "net")
        net.publish("n2", "net", f"k{number}", b"x")
        net.run(0.01)

    assert net.run(10, lambda: _all_see(net, "net", {("n2", "k99"): b"x"}))
    assert len(net.machine("n0").members()) == 5


@pytest.mark.parametrize("seed", SEEDS)
def test_records_of_one_who_left_the_cluster_are_gone(seed: int) -> None:
    net = _cluster(4, seed=seed)
    net.publish("n2", "net", "key", b"x")
    net.run(1)
    net.do("n2", lambda m: m.leave(now=net.now))
    net.run(1)

    assert all(net.seen(name, "net") == {} for name in ("n0", "n1", "n3"))


@pytest.mark.parametrize("seed", SEEDS)
def test_restarted_owner_starts_with_no_records(seed: int) -> None:
    net = _cluster(4, seed=seed)
    net.publish("n2", "net", "old", b"x")
    net.run(1)
    net.kill("n2")
    net.restart("n2")
    net.attach("n2", "net")
    net.publish("n2", "net", "new", b"y")

    assert net.run(5, lambda: _all_see(net, "net", {("n2", "new"): b"y"}))


@pytest.mark.parametrize("seed", SEEDS)
def test_who_is_not_attached_holds_nothing(seed: int) -> None:
    net = _cluster(3, seed=seed)
    net.add("outside")
    net.publish("n1", "net", "key", b"x")
    net.run(5)

    assert net.seen("outside", "net") == {}
    assert not net.machine("outside").positions("net")


@pytest.mark.parametrize("seed", SEEDS)
def test_join_with_many_records_makes_no_storm(seed: int) -> None:
    """Whether streams can be opened or not."""
    streams = seed % 2 == 0
    net = SimNetwork(4, seed=seed, mode=mode(seed), streams=streams)
    for name in net.nodes:
        net.attach(name, "net")
    net.run(3)
    full, small = (400, (80, 120)) if streams else (150, (30, 45))
    count = size(seed // 2, full, small=small, full_every=25)
    for owner in ("n1", "n2"):
        for number in range(count):
            net.publish(owner, "net", f"key{number}", b"v" * 50)
    assert net.run(90, lambda: len(net.seen("n3", "net")) == 2 * count, every_s=0.1)
    net.run(30)
    net.add("late")
    net.attach("late", "net")
    net.sent.clear()

    assert net.run(30, lambda: len(net.seen("late", "net")) == 2 * count, every_s=0.1)
    net.run(2)
    assert sum(net.sent.values()) < 600  # a storm: thousands
    assert net.machine("late").counters.updates_new == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_every_packet_is_within_the_budget_when_all_queues_are_full(seed: int) -> None:
    net = _cluster(4, seed=seed)
    scopes = [f"s{n}" for n in range(5)]
    for name in net.nodes:
        for scope in scopes:
            net.attach(name, scope)
    net.run(2)
    for number in range(300):
        for scope in scopes:
            net.publish("n1", scope, f"k{number}" + "x" * (number % 90), b"v" * (number * 7 % 1000))
    net.run(5)

    assert net.largest <= net.config.packet_bytes_max
    assert net.machine("n1").stats().queued <= QUEUE_MAX


@pytest.mark.parametrize("seed", SEEDS)
def test_own_record_is_sent_despite_a_flood_of_relayed_ones(seed: int) -> None:
    net = _cluster(5, seed=seed)
    for number in range(1000):
        net.publish("n1", "net", f"k{number}", b"v" * 100)
    net.run(0.3)
    net.publish("n2", "net", "mine", b"!")

    def is_seen() -> bool:
        return all(("n2", "mine") in net.seen(node.name, "net") for node in net.up)

    assert net.run(0.6, is_seen)


@pytest.mark.parametrize("seed", SEEDS)
def test_two_owners_with_one_key_are_both_seen(seed: int) -> None:
    net = _cluster(3, seed=seed)
    net.publish("n1", "net", "key", b"1")
    net.publish("n2", "net", "key", b"2")

    truth = {("n1", "key"): b"1", ("n2", "key"): b"2"}
    assert net.run(2, lambda: _all_see(net, "net", truth))
