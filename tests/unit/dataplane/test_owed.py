"""What is still to be forgotten of connections to endpoints that are gone."""

from __future__ import annotations

from dataclasses import replace

from dataplane.diff import Flow, ForgetGone
from dataplane.kernel.owed import OWED_MAX, Owed
from dataplane.state import wanted_state
from tests.netns.world import Replica, World

A, B, CLIENT = Replica("a", 1, 11), Replica("b", 2, 12), Replica("client", 1, 21)
FULL = World(2, (A, B, CLIENT), (A, B))
STATE = wanted_state(FULL.plan(1))
WITHOUT_B = wanted_state(replace(FULL, replicas=(A, CLIENT), backends=(A,)).plan(1))
FLOW = Flow(B.address)


def test_flows_are_forgotten_one_by_one_and_once() -> None:
    debts = Owed()
    debts.add([ForgetGone(A.name, (FLOW,)), ForgetGone(CLIENT.name, (FLOW,))], WITHOUT_B)
    debts.add([ForgetGone(A.name, (FLOW,))], WITHOUT_B)

    assert debts.take() == ForgetGone(A.name, (FLOW,))
    assert debts.take() == ForgetGone(CLIENT.name, (FLOW,))
    assert debts.take() is None


def test_what_came_back_keeps_its_connections() -> None:
    debts = Owed()
    debts.add([ForgetGone(CLIENT.name, (FLOW,))], WITHOUT_B)
    debts.add([], STATE)

    assert debts.take() is None
    assert len(debts) == 0


def test_nothing_is_forgotten_in_a_sandbox_that_is_gone() -> None:
    debts = Owed()
    debts.add([ForgetGone("unknown", (FLOW,)), ForgetGone(CLIENT.name, (FLOW,))], WITHOUT_B)

    assert debts.take() == ForgetGone(CLIENT.name, (FLOW,))


def test_the_oldest_are_dropped_and_counted() -> None:
    debts = Owed()
    flows = tuple(Flow(B.address + 256 + number) for number in range(OWED_MAX + 2))
    debts.add([ForgetGone(CLIENT.name, flows)], WITHOUT_B)

    assert (len(debts), debts.dropped) == (OWED_MAX, 2)
    assert debts.take() == ForgetGone(CLIENT.name, flows[2:3])
