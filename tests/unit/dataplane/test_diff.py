"""Operations lead from any state to any other, and never point at what is not there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import assert_never

from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane import diff
from dataplane.plan import NodePlan, Peer, Protocol, RemoteEndpoint, VirtualService
from dataplane.state import (
    Base,
    IngressRules,
    NodeState,
    Port,
    Segment,
    Uplink,
    wanted_state,
)
from tests.netns.world import NETWORK, VIP, Replica, World

REPLICAS = tuple(Replica(f"r{number}", 1 + number % 3, 10 + number) for number in range(6))


@st.composite
def worlds(draw: st.DrawFn) -> NodeState:
    """Return what node 1 must hold in some world, or without a cluster."""
    if draw(st.integers(0, 9)) == 0:
        return wanted_state(NodePlan())
    replicas = draw(st.sets(st.sampled_from(REPLICAS)))
    backends = (
        draw(st.sets(st.sampled_from(sorted(replicas, key=str)))) if replicas else set[Replica]()
    )
    world = World(
        draw(st.integers(1, 3)),
        tuple(sorted(replicas, key=str)),
        tuple(sorted(backends, key=str)),
        vxlan_port=draw(st.sampled_from((4789, 4790))),
    )
    return wanted_state(world.plan(1))


@dataclass
class Held:
    """What a driver would hold: enough of one to check the order of operations."""

    base: Base | None = None
    peers: dict[int, Peer] = field(default_factory=dict[int, Peer])
    segments: dict[str, Segment | None] = field(default_factory=dict[str, "Segment | None"])
    remotes: dict[str, set[RemoteEndpoint]] = field(default_factory=dict[str, set[RemoteEndpoint]])
    sandboxes: dict[str, dict[int, Port | Uplink]] = field(
        default_factory=dict[str, dict[int, "Port | Uplink"]]
    )
    services: dict[str, tuple[VirtualService, ...]] = field(
        default_factory=dict[str, tuple[VirtualService, ...]]
    )
    rules: IngressRules | None = None

    def perform(self, operation: diff.Operation) -> None:
        match operation:
            case diff.MakeBase() | diff.RemoveBase() | diff.AddPeers() | diff.DropPeers():
                self._on_node(operation)
            case diff.SetRules():
                assert self.base == operation.after.base
                assert set(operation.after.peers) <= set(self.peers.values())
                assert operation.before in (None, self.rules)
                self.rules = operation.after
            case diff.ForgetFlows() | diff.ForgetGone():
                assert operation.flows
                assert operation.sandbox is None or operation.sandbox in self.sandboxes
            case diff.MakeNetwork() | diff.SetSegment() | diff.RemoveNetwork():
                self._on_network(operation)
            case diff.AddRemotes() | diff.DropRemotes():
                self._on_remotes(operation)
            case _:
                self._on_sandbox(operation)

    def _on_node(
        self, operation: diff.MakeBase | diff.RemoveBase | diff.AddPeers | diff.DropPeers
    ) -> None:
        match operation:
            case diff.MakeBase():
                self.base, self.peers = operation.base, {}
            case diff.RemoveBase():
                self.base, self.peers, self.rules = None, {}, None
            case diff.AddPeers():
                assert self.base == operation.base
                self.peers |= {peer.index: peer for peer in operation.peers}
            case diff.DropPeers():
                for peer in operation.peers:
                    self.peers.pop(peer.index, None)
            case _:
                assert_never(operation)

    def _on_network(
        self, operation: diff.MakeNetwork | diff.SetSegment | diff.RemoveNetwork
    ) -> None:
        name = operation.network
        match operation:
            case diff.MakeNetwork():
                assert name not in self.segments
                self.segments[name], self.remotes[name] = None, set()
            case diff.SetSegment():
                used = [s for n, s in self.segments.items() if n != name and s is not None]
                assert operation.segment.vni not in {segment.vni for segment in used}
                self.segments[name], self.remotes[name] = operation.segment, set()
            case diff.RemoveNetwork():
                del self.segments[name], self.remotes[name]
            case _:
                assert_never(operation)

    def _on_remotes(self, operation: diff.AddRemotes | diff.DropRemotes) -> None:
        known = self.remotes[operation.network]
        match operation:
            case diff.AddRemotes():
                assert self.segments[operation.network] is not None
                new = {remote.address for remote in operation.remotes}
                kept = {remote for remote in known if remote.address not in new}
                self.remotes[operation.network] = kept | set(operation.remotes)
            case diff.DropRemotes():
                kept = {remote for remote in known if remote.address not in operation.addresses}
                self.remotes[operation.network] = kept
            case _:
                assert_never(operation)

    def _on_sandbox(
        self,
        operation: diff.MakeSandbox
        | diff.Plug
        | diff.Unplug
        | diff.RemoveSandboxes
        | diff.SetServices,
    ) -> None:
        match operation:
            case diff.MakeSandbox():
                self.sandboxes[operation.sandbox], self.services[operation.sandbox] = {}, ()
            case diff.Plug():
                interface = operation.interface
                if isinstance(interface, Port):
                    assert interface.network in self.segments
                else:
                    assert self.base is not None
                self.sandboxes[operation.sandbox][operation.number] = interface
            case diff.Unplug():
                del self.sandboxes[operation.sandbox][operation.number]
            case diff.RemoveSandboxes():
                for name in operation.sandboxes:
                    del self.sandboxes[name], self.services[name]
            case diff.SetServices():
                assert operation.before == self.services[operation.sandbox]
                self.services[operation.sandbox] = operation.after
            case _:
                assert_never(operation)


def perform(held: Held, found: NodeState, wanted: NodeState) -> None:
    for operation in diff.operations(found, wanted):
        held.perform(operation)


def check(held: Held, wanted: NodeState) -> None:
    assert held.base == wanted.base
    assert set(held.peers.values()) == wanted.peers
    assert held.segments == {name: n.segment for name, n in wanted.networks.items()}
    assert held.remotes == {name: set(n.remotes) for name, n in wanted.networks.items()}
    assert held.sandboxes == {name: dict(s.interfaces) for name, s in wanted.sandboxes.items()}
    assert held.services == {name: s.services for name, s in wanted.sandboxes.items()}
    assert held.rules == wanted.rules


@given(st.lists(worlds(), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_operations_lead_through_any_sequence_of_states(states: list[NodeState]) -> None:
    held, found = Held(), NodeState()
    for wanted in states:
        perform(held, found, wanted)
        check(held, wanted)
        found = wanted


@given(worlds())
def test_equal_states_need_no_operation(state: NodeState) -> None:
    assert diff.operations(state, state) == ()


def test_network_that_takes_over_a_vni_waits_until_it_is_free() -> None:
    plan = World(1, REPLICAS[:1], ()).plan(1)
    renamed = replace(
        plan,
        networks=tuple(replace(network, id="green") for network in plan.networks),
        sandboxes=tuple(
            replace(
                sandbox,
                interfaces=tuple(replace(i, network="green") for i in sandbox.interfaces),
            )
            for sandbox in plan.sandboxes
        ),
    )
    held = Held()
    perform(held, NodeState(), wanted_state(plan))
    perform(held, wanted_state(plan), wanted_state(renamed))

    check(held, wanted_state(renamed))


def flows(
    kind: type[diff.ForgetFlows | diff.ForgetGone], before: World, after: World
) -> set[tuple[str | None, diff.Flow]]:
    todo = diff.operations(wanted_state(before.plan(1)), wanted_state(after.plan(1)))
    return {
        (operation.sandbox, flow)
        for operation in todo
        if isinstance(operation, kind)
        for flow in operation.flows
    }


WEB = REPLICAS[:2]
CLIENT = REPLICAS[3]
FULL = World(3, (*WEB, CLIENT), WEB)


def test_draining_backend_loses_its_datagram_flows_only() -> None:
    drained = WEB[1]

    drains = replace(FULL, backends=WEB[:1])
    assert not flows(diff.ForgetGone, FULL, drains)
    assert flows(diff.ForgetFlows, FULL, drains) == {
        (None, diff.Flow(drained.gateway_address, None, Protocol.UDP, 9001)),
        (WEB[0].name, diff.Flow(drained.address, VIP, Protocol.UDP)),
        (CLIENT.name, diff.Flow(drained.address, VIP, Protocol.UDP)),
    }


def test_endpoint_that_is_gone_loses_all_its_flows() -> None:
    drained = replace(FULL, backends=WEB[:1])

    gone = replace(drained, replicas=(WEB[0], CLIENT))
    assert not flows(diff.ForgetFlows, drained, gone)
    assert flows(diff.ForgetGone, drained, gone) == {
        (WEB[0].name, diff.Flow(WEB[1].address)),
        (CLIENT.name, diff.Flow(WEB[1].address)),
    }


def test_backend_on_a_node_that_is_gone_loses_all_its_flows() -> None:
    gone = replace(FULL, nodes=1, replicas=(WEB[0], CLIENT), backends=WEB[:1])

    flow = diff.Flow(WEB[1].gateway_address, None, Protocol.TCP, 9000)
    assert (None, flow) in flows(diff.ForgetFlows, FULL, gone)


def test_endpoints_are_those_of_all_nodes() -> None:
    without = wanted_state(replace(FULL, replicas=(WEB[0], CLIENT), backends=WEB[:1]).plan(1))
    full = wanted_state(FULL.plan(1))

    for replica in WEB:
        assert (NETWORK, replica.address) in diff.endpoints(full)
    assert (NETWORK, WEB[1].address) not in diff.endpoints(without)


def test_nothing_was_balanced_where_there_was_no_service_or_no_sandbox() -> None:
    """What is read back may have been flushed by somebody."""
    plan = FULL.plan(1)
    networks = tuple(replace(network, services=()) for network in plan.networks)
    nothing, empty = NodeState(), wanted_state(replace(plan, networks=networks))
    full = wanted_state(plan)

    assert is_new(nothing, full) == {True}
    assert is_new(empty, full) == {True}
    assert is_new(replace(empty, is_observed=True), full) == {False}
    assert is_new(wanted_state(replace(FULL, backends=()).plan(1)), full) == {False}


def is_new(found: NodeState, wanted: NodeState) -> set[bool]:
    todo = diff.operations(found, wanted)
    return {operation.is_new for operation in todo if isinstance(operation, diff.SetServices)}


def test_own_index_among_the_peers_is_no_peer() -> None:
    plan = World(2, (), ()).plan(1)
    own = Peer(1, IPv4Address("198.18.0.1"))

    assert wanted_state(replace(plan, peers=(*plan.peers, own))) == wanted_state(plan)
