"""The planner: one golden plan, then what must hold for any."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.agent.planner import View, plan
from cluster.agent.sightings import Endpoint, Reading
from cluster.allocation.records import INGRESS_SCOPE, Phase
from cluster.model.assignment import ClusterInfo
from cluster.model.ids import ClusterId, NodeId, ServiceId, TaskId
from cluster.model.service import EndpointMode, PublishMode
from dataplane.plan import (
    IngressBackend,
    Interface,
    Name,
    Network,
    NodePlan,
    Peer,
    Pointer,
    Protocol,
    PublishedPort,
    RemoteEndpoint,
    Sandbox,
    Underlay,
    VirtualService,
)
from tests.unit.agent.objects import (
    NET,
    VIP,
    A,
    B,
    C,
    allocated,
    assignment,
    endpoint,
    info,
    ingress_record,
    network,
    published,
    record,
    service,
    task,
)

LIVE = {B: "", C: "192.0.2.33"}
ONE = task(1, aliases=("Shop",))
OWN_ADDRESS = IPv4Address("10.0.1.11")


def ip(text: str) -> IPv4Address:
    return IPv4Address(text)


def view(*endpoints: Endpoint, live: dict[NodeId, str] | None = None) -> View:
    return View(
        node=A,
        assignment=assignment(ONE, services=(service(EndpointMode.VIP, published()),)),
        info=info(),
        sandboxes=frozenset({ONE.id}),
        phases={ONE.id: Phase.SERVING},
        reading=Reading(
            live=LIVE if live is None else live,
            endpoints={
                NET: endpoints,
                INGRESS_SCOPE: (Endpoint(B, ingress_record(B, 2)),),
            },
        ),
    )


def planned(seen: View) -> NodePlan:
    made = plan(seen)
    assert made is not None
    return made.plan


def overlay(seen: View) -> Network:
    return planned(seen).networks[0]


def names(seen: View) -> dict[str, list[str]]:
    return {name.name: [str(a) for a in name.addresses] for name in overlay(seen).names}


def test_golden() -> None:
    two = f"web.2.{task(2).id}"
    one = f"web.1.{ONE.id}"
    vip = ip(VIP)
    made = planned(view(endpoint(B, 2), endpoint(C, 3, Phase.DRAINING)))
    assert made == NodePlan(
        underlay=Underlay(1, ip("192.0.2.1"), 4789),
        peers=(Peer(2, ip("192.0.2.2")), Peer(3, ip("192.0.2.33"))),
        networks=(
            Network(
                id=NET,
                name="my-net1",
                vni=5001,
                subnet=IPv4Network("10.0.1.0/24"),
                gateway=ip("10.0.1.1"),
                remotes=(
                    RemoteEndpoint(ip("10.0.1.12"), "02:42:0a:00:01:0c", ip("192.0.2.2")),
                    RemoteEndpoint(ip("10.0.1.13"), "02:42:0a:00:01:0d", ip("192.0.2.33")),
                ),
                services=(VirtualService(vip, (OWN_ADDRESS, ip("10.0.1.12"))),),
                names=(
                    Name("shop", (vip,)),
                    Name("task00000000", (OWN_ADDRESS, ip("10.0.1.12"))),
                    Name("tasks.shop", (OWN_ADDRESS,)),
                    Name("tasks.web", (OWN_ADDRESS, ip("10.0.1.12"))),
                    Name("web", (vip,)),
                    Name(one, (OWN_ADDRESS,)),
                    Name(two, (ip("10.0.1.12"),)),
                ),
                pointers=(
                    Pointer(vip, "web.my-net1"),
                    Pointer(OWN_ADDRESS, f"{one}.my-net1"),
                    Pointer(ip("10.0.1.12"), f"{two}.my-net1"),
                ),
            ),
        ),
        sandboxes=(
            Sandbox(
                ONE.id,
                (Interface(NET, OWN_ADDRESS, "02:42:0a:00:01:0b"),),
                ip("100.64.1.11"),
            ),
        ),
        ports=(
            PublishedPort(
                Protocol.TCP,
                8080,
                (
                    IngressBackend(1, ip("100.64.1.11"), 80),
                    IngressBackend(2, ip("100.64.2.12"), 80),
                ),
            ),
        ),
    )


def test_dnsrr_answers_with_the_tasks() -> None:
    seen = view()
    seen = replace(seen, assignment=assignment(ONE, services=(service(EndpointMode.DNSRR),)))
    assert names(seen)["web"] == [str(OWN_ADDRESS)]
    assert overlay(seen).services == ()


def test_host_mode_answers_with_own_tasks_only() -> None:
    own = replace(ONE, host_ports=(published(9090, PublishMode.HOST),))
    later = service(EndpointMode.VIP, published(9091, PublishMode.HOST))
    seen = replace(view(), assignment=assignment(own, services=(later,)))
    assert planned(seen).ports == (
        PublishedPort(Protocol.TCP, 8080, (IngressBackend(2, ip("100.64.2.12"), 80),)),
        PublishedPort(Protocol.TCP, 9090, (IngressBackend(1, ip("100.64.1.11"), 80),)),
    )


@pytest.mark.parametrize("phase", [None, Phase.STARTING, Phase.DRAINING])
def test_port_without_backends_refuses(phase: Phase | None) -> None:
    seen = replace(
        view(), phases={} if phase is None else {ONE.id: phase}, reading=Reading(live=LIVE)
    )
    assert planned(seen).ports == (PublishedPort(Protocol.TCP, 8080, ()),)


def test_service_without_backends_refuses_but_has_no_name() -> None:
    seen = replace(view(), phases={ONE.id: Phase.DRAINING})
    assert overlay(seen).services == (VirtualService(ip(VIP), ()),)
    assert overlay(seen).names == ()
    assert overlay(seen).pointers == ()


def test_only_internal_networks_mean_no_way_out() -> None:
    seen = view()
    inside = allocated(replace(seen.assignment, networks={NET: network(internal=True)}))
    made = planned(replace(seen, assignment=inside))
    assert made.sandboxes[0].gateway_address is None
    assert made.networks[0].internal
    assert made.ports[0].backends == (IngressBackend(2, ip("100.64.2.12"), 80),)


def test_task_waits_for_its_networks() -> None:
    seen = view()
    unallocated = replace(network(), subnet="")
    for networks in ({}, {NET: unallocated}):
        assert planned(replace(seen, assignment=replace(seen.assignment, networks=networks))) == (
            replace(planned(seen), sandboxes=(), networks=())
        )


def test_interfaces_keep_their_order() -> None:
    both = task(1, networks=("net2", "net1"))
    made = planned(replace(view(), assignment=assignment(both, networks=2)))
    assert [i.network for i in made.sandboxes[0].interfaces] == ["net2", "net1"]
    assert [n.id for n in made.networks] == ["net1", "net2"]


def test_no_plan_before_the_node_is_known() -> None:
    assert plan(replace(view(), info=info(B, C))) is None
    assert plan(replace(view(), info=ClusterInfo(ClusterId("cluster")))) is None


def test_mtu_option() -> None:
    seen = view()
    tuned = network()
    spec = replace(tuned.spec, options={"com.docker.network.driver.mtu": "1300"})
    made = overlay(
        replace(
            seen, assignment=replace(seen.assignment, networks={NET: replace(tuned, spec=spec)})
        )
    )
    assert made.mtu == 1300


def test_own_echo_does_not_count() -> None:
    assert overlay(view(endpoint(A, 7))) == overlay(view())


def test_later_task_has_the_address() -> None:
    old = endpoint(B, 2)
    new = Endpoint(C, replace(old.record, task=TaskId("newer"), allocation=99_000))
    for order in ((old, new), (new, old)):
        assert [r.tunnel for r in overlay(view(*order)).remotes] == [ip("192.0.2.33")]


def test_own_task_keeps_its_address_from_an_older_one() -> None:
    stale = endpoint(B, 1)
    stale = Endpoint(B, replace(stale.record, task=TaskId("older"), allocation=1))
    assert overlay(view(stale)) == overlay(view())


@pytest.mark.parametrize("address", ["10.0.2.9", "10.0.1.1", "192.0.2.1"])
def test_addresses_that_are_not_the_networks_do_not_count(address: str) -> None:
    alien = endpoint(B, 2)
    alien = Endpoint(B, replace(alien.record, address=ip(address)))
    assert overlay(view(alien)) == overlay(view())


def test_virtual_address_outside_the_network_does_not_count() -> None:
    alien = endpoint(B, 2)
    alien = Endpoint(B, replace(alien.record, vip=ip("8.8.8.8")))
    assert [s.vip for s in overlay(view(alien)).services] == [ip(VIP)]


def test_a_node_that_is_not_of_the_cluster_has_no_endpoints() -> None:
    removed = replace(view(endpoint(B, 2)), info=info(A, C))
    made = planned(removed)
    assert made.networks == planned(replace(view(), info=info(A, C))).networks
    assert made.ports[0].backends == (IngressBackend(1, ip("100.64.1.11"), 80),)


def claiming(number: int, **claims: object) -> Endpoint:
    """Return an endpoint of B's whose service was allocated what it claims later than `web`."""
    made = replace(record(number), service=ServiceId("rival"), service_allocation=99)
    return Endpoint(B, replace(made, **claims))  # type: ignore[arg-type]


def test_a_lost_virtual_address_balances_only_the_winner() -> None:
    seen = view(claiming(2, service_name="rival"))
    assert overlay(seen).services == (VirtualService(ip(VIP), (ip("10.0.1.12"),)),)
    assert names(seen)["web"] == [str(OWN_ADDRESS)]
    assert names(seen)["rival"] == [VIP]
    assert [p.name for p in overlay(seen).pointers if p.address == ip(VIP)] == ["rival.my-net1"]
    assert {r.address for r in overlay(seen).remotes} == {ip("10.0.1.12")}
    made = plan(seen)
    assert made is not None
    assert made.conflicts == 1


def test_a_lost_name_is_the_winners() -> None:
    seen = view(claiming(2, vip=ip("10.0.1.3")))
    assert names(seen)["web"] == ["10.0.1.3"]
    assert names(seen)["tasks.web"] == ["10.0.1.12"]
    assert names(seen)["shop"] == [VIP]
    assert not [p for p in overlay(seen).pointers if p.address == ip(VIP)]


def test_a_lost_port_is_the_winners() -> None:
    rival = replace(ingress_record(B, 2), service=ServiceId("rival"), service_allocation=99)
    seen = view()
    reading = replace(seen.reading, endpoints={INGRESS_SCOPE: (Endpoint(B, rival),)})
    assert planned(replace(seen, reading=reading)).ports[0].backends == (
        IngressBackend(2, ip("100.64.2.12"), 80),
    )


def test_node_speaks_for_its_own_gateway_subnet_only() -> None:
    forged = Endpoint(B, ingress_record(C, 3))
    seen = view()
    seen = replace(seen, reading=replace(seen.reading, endpoints={INGRESS_SCOPE: (forged,)}))
    assert planned(seen).ports[0].backends == (IngressBackend(1, ip("100.64.1.11"), 80),)


def losing(*endpoints: Endpoint, lost: dict[NodeId, str], words: tuple[Endpoint, ...]) -> View:
    seen = view(*endpoints, live={C: ""})
    return replace(seen, reading=replace(seen.reading, lost=lost, last_words={NET: words}))


def test_the_way_to_a_lost_node_stays_open_and_gets_nothing_new() -> None:
    made = planned(losing(endpoint(C, 3), lost={B: "192.0.2.2"}, words=(endpoint(B, 2),)))
    assert {p.index for p in made.peers} == {2, 3}
    (network,) = made.networks
    assert [str(r.address) for r in network.remotes] == ["10.0.1.12", "10.0.1.13"]
    assert network.services == (VirtualService(ip(VIP), (OWN_ADDRESS, ip("10.0.1.13"))),)
    assert not [n for n in network.names if ip("10.0.1.12") in n.addresses]
    assert not [p for p in network.pointers if p.address == ip("10.0.1.12")]


def test_what_a_lost_node_had_may_be_anothers_by_now() -> None:
    moved = planned(losing(endpoint(C, 2), lost={B: "192.0.2.2"}, words=(endpoint(B, 2),)))
    (remote,) = moved.networks[0].remotes
    assert remote.tunnel == ip("192.0.2.3")
    for words in (endpoint(B, 1), Endpoint(B, replace(record(2), address=ip("10.9.9.9")))):
        assert not planned(losing(lost={B: "192.0.2.2"}, words=(words,))).networks[0].remotes
    for address in ("192.0.2.3", "192.0.2.1"):
        made = planned(losing(lost={B: address}, words=(endpoint(B, 2),)))
        assert [p.index for p in made.peers] == [3]
        assert not made.networks[0].remotes
    gone = losing(lost={NodeId("removed"): "192.0.2.9"}, words=())
    assert [p.index for p in planned(gone).peers] == [3]


owners = st.sampled_from([B, C])
phases = st.sampled_from(Phase)
others = st.dictionaries(st.integers(2, 40), st.tuples(owners, phases), max_size=12).map(
    lambda found: [endpoint(owner, n, phase) for n, (owner, phase) in found.items()]
)


@given(others, st.sets(owners))
def test_endpoint_is_planned_exactly_as_its_owner_and_phase_say(
    endpoints: list[Endpoint], live: set[NodeId]
) -> None:
    made = overlay(view(*endpoints, live=dict.fromkeys(sorted(live), "")))
    reached = {remote.address for remote in made.remotes}
    balanced = {b for s in made.services for b in s.backends} - {OWN_ADDRESS}
    named = {a for name in made.names for a in name.addresses} - {OWN_ADDRESS, ip(VIP)}
    for e in endpoints:
        is_used = e.owner in live and e.record.phase is Phase.SERVING
        assert (e.record.address in reached) is (e.owner in live)
        assert (e.record.address in balanced) is is_used
        assert (e.record.address in named) is is_used
    drained = {e.record.task for e in endpoints if e.record.phase is Phase.DRAINING}
    planned_too = plan(view(*endpoints, live=dict.fromkeys(sorted(live), "")))
    assert planned_too is not None
    assert {t for _, t in planned_too.draining} <= drained


@settings(max_examples=50, deadline=None)
@given(others, st.randoms(use_true_random=False))
def test_order_makes_no_difference(endpoints: list[Endpoint], rng: Random) -> None:
    shuffled = list(endpoints)
    rng.shuffle(shuffled)
    first, second = view(*endpoints), view(*shuffled, live=dict(reversed(LIVE.items())))
    assert plan(first) == plan(second)
