"""Claims: the later allocation is right, and the loser loses only what is contested."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from cluster.agent.claims import retire, settle
from cluster.agent.sightings import Endpoint
from cluster.allocation.records import EndpointRecord, Phase, RecordPort
from cluster.model.ids import ServiceId, TaskId
from dataplane.plan import Protocol
from tests.unit.agent.objects import B, C, endpoint, ingress_record, record

HTTP = RecordPort(Protocol.TCP, 8080, 80)
DNS = RecordPort(Protocol.UDP, 8080, 53)


def of(service: str, number: int, since: int, *ports: RecordPort) -> EndpointRecord:
    """Return the record of a service that has been allocated what it claims since then."""
    made = ingress_record(C, number) if ports else record(number)
    return replace(
        made,
        service=ServiceId(service),
        service_name=service,
        service_allocation=since,
        ports=ports,
    )


def test_peace() -> None:
    settled = settle([endpoint(B, 2), endpoint(C, 3)])
    assert (settled.lost, settled.conflicts) == (set(), 0)
    assert [e.owner for e in settled.at.values()] == [B, C]


def test_an_address_is_the_later_tasks() -> None:
    old = endpoint(B, 2)
    new = Endpoint(C, replace(old.record, task=TaskId("a"), allocation=old.record.allocation + 1))
    for order in ([old, new], [new, old]):
        settled = settle(order)
        assert list(settled.at.values()) == [new]
        assert settled.conflicts == 1


def test_a_tie_is_broken_the_same_way_everywhere() -> None:
    one, two = endpoint(B, 2), endpoint(C, 2)
    assert settle([one, two]).at == settle([two, one]).at


def test_a_virtual_address_is_the_later_services() -> None:
    old, new = of("old", 2, 10), of("new", 3, 20)
    settled = settle([Endpoint(B, old), Endpoint(C, new)])
    assert settled.vip_of(old) is None
    assert settled.vip_of(new) == new.vip
    assert settled.has_name(old)
    assert settled.conflicts == 1


def test_a_name_is_the_later_services() -> None:
    old = replace(of("web", 2, 10), service=ServiceId("zzz"), vip=None)
    new = replace(of("Web", 3, 20), service=ServiceId("aaa"))
    settled = settle([Endpoint(B, old), Endpoint(C, new)])
    assert not settled.has_name(old)
    assert settled.has_name(new)


def test_a_port_is_the_later_services_and_the_loser_keeps_its_others() -> None:
    other = RecordPort(Protocol.TCP, 9090, 80)
    old, new = of("old", 2, 10, HTTP, other), of("new", 3, 20, HTTP)
    settled = settle([Endpoint(B, old), Endpoint(C, new)])
    assert not settled.has_port(old, HTTP)
    assert settled.has_port(old, other)
    assert settled.has_port(new, HTTP)


def test_protocols_have_ports_of_their_own() -> None:
    assert settle([Endpoint(B, of("a", 2, 1, HTTP)), Endpoint(C, of("b", 3, 2, DNS))]).lost == set()


def test_a_stale_record_does_not_borrow_its_services_age() -> None:
    """`old` gave the port up and changed again later; one of its nodes still says the first."""
    stale, fresh = of("old", 2, 10, HTTP), of("old", 4, 30, DNS)
    new = of("new", 3, 20, HTTP)
    settled = settle([Endpoint(B, stale), Endpoint(B, fresh), Endpoint(C, new)])
    assert not settled.has_port(stale, HTTP)
    assert settled.has_port(new, HTTP)
    assert settled.has_port(fresh, DNS)


def of_slot(number: int, since: int, phase: Phase = Phase.SERVING) -> EndpointRecord:
    """Return the record of the task that was number `since` to have slot 1."""
    made = record(number, phase)
    return replace(made, task_name=f"web.1.{made.task}", allocation=since)


def phases(*found: EndpointRecord) -> list[Phase]:
    return [e.record.phase for e in retire([Endpoint(B, made) for made in found])]


def test_a_task_drains_once_a_later_one_of_its_slot_serves() -> None:
    """Whatever its owner says of it, and however many such there are."""
    old = [of_slot(number, number) for number in range(2, 9)]
    new = of_slot(9, 9)
    assert phases(*old, new) == [Phase.DRAINING] * 7 + [Phase.SERVING]
    assert phases(new, *old) == [Phase.SERVING] + [Phase.DRAINING] * 7


def test_a_task_serves_on_while_its_successor_does_not() -> None:
    old = of_slot(2, 1)
    for phase in (Phase.STARTING, Phase.DRAINING):
        assert phases(old, of_slot(3, 2, phase)) == [Phase.SERVING, phase]
    assert phases(old) == [Phase.SERVING]


def test_slots_are_of_one_service_and_a_task_may_have_several_records() -> None:
    old, new = of_slot(2, 1), of_slot(3, 2)
    other = replace(new, service=ServiceId("other"))
    assert phases(old, replace(old), other, record(4)) == [Phase.SERVING] * 4


records = st.lists(
    st.builds(
        Endpoint,
        st.sampled_from([B, C]),
        st.builds(
            of,
            st.sampled_from(["a", "b", "c"]),
            st.integers(1, 4),
            st.integers(0, 3),
            st.sampled_from([HTTP, DNS]),
        )
        | st.builds(of, st.sampled_from(["a", "b"]), st.integers(1, 4), st.integers(0, 3)),
    ),
    max_size=8,
)


@given(records, st.randoms(use_true_random=False))
def test_order_makes_no_difference_and_somebody_wins(found: list[Endpoint], rng: Random) -> None:
    shuffled = list(found)
    rng.shuffle(shuffled)
    settled = settle(found)
    assert settle(shuffled).lost == settled.lost
    for vip in {e.record.vip for e in found} - {None}:
        rivals = [e.record for e in found if e.record.vip == vip]
        latest = max(rivals, key=lambda r: (r.service_allocation, r.service))
        assert {r.service for r in rivals if settled.vip_of(r) == vip} == {latest.service}
