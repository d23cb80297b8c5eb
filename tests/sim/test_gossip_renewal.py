"""A node that renews its certificate is believed all the time, and so is what it said before."""

from __future__ import annotations

import pytest

from gossip.simulation.network import UNIX_S
from gossip.wire import State
from tests.sim.gossip_network import AUTHORITY, SEEDS, Node, SimNetwork

_FIRST_S = 60.0
"""How long the first certificates are valid."""


@pytest.mark.parametrize("seed", SEEDS)
def test_a_renewal_hides_nothing_and_newcomers_believe_what_was_said_before(seed: int) -> None:
    net = SimNetwork(6, seed=seed)
    truth = {(name, key): name.encode() for name in net.nodes for key in ("a", "b")}
    for name in net.nodes:
        first = AUTHORITY.identity(name, serial=1, not_after=UNIX_S + _FIRST_S)
        net.do(name, lambda m, i=first: m.set_identity(i, now=net.now))  # type: ignore[misc]
        net.attach(name, "net")
        for key in ("a", "b"):
            net.publish(name, "net", key, name.encode())
    assert net.run(10, lambda: all(net.seen(name, "net") == truth for name in net.nodes))
    net.run(5)
    signed = {name: net.machine(name).counters.signed for name in net.nodes}

    def check(node: Node) -> None:
        assert net.seen(node.name, "net") == truth
        assert State.LEFT not in net.states(node.name).values()

    net.on_step = check
    for name in net.nodes:
        second = AUTHORITY.identity(name, serial=2)
        net.do(name, lambda m, i=second: m.set_identity(i, now=net.now))  # type: ignore[misc]
        net.run(1)
    net.run(_FIRST_S)
    for name, before in signed.items():
        assert net.machine(name).counters.signed <= before + 8  # itself, 3 records, 2 heads
    net.on_step = None
    net.add("late", join=["n3"])
    net.attach("late", "net")

    assert net.run(5, lambda: net.seen("late", "net") == truth)
    assert net.machine("late").counters.refused_expired == 0
