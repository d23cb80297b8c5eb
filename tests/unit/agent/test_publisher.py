"""What a node says: the records of its tasks, and getting gossip to say them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.agent.endpoints import endpoint_records, endpoint_values
from cluster.agent.publisher import Publication, Publisher, difference
from cluster.allocation.records import (
    INGRESS_SCOPE,
    PORTS_MAX,
    RECORD_BYTES_MAX,
    EndpointRecord,
    Phase,
    Place,
    decode_body_untrusted,
    decode_untrusted,
)
from cluster.model.assignment import Assignment
from cluster.model.service import EndpointMode, PortSpec, PublishMode
from tests.unit.agent.ether import Ether, EtherPeer
from tests.unit.agent.objects import (
    NET,
    VERIFIER,
    A,
    assignment,
    ingress_record,
    published,
    record,
    service,
    task,
)

ONE = task(1)
PUBLISHED = service(EndpointMode.VIP, published())


def said(told: Assignment, phase: Phase) -> dict[Place, EndpointRecord]:
    """Return what others read of the records of the one task in `told`."""
    phases = dict.fromkeys(told.tasks, phase)
    values = endpoint_values(told, phases)
    assert all(len(value) <= RECORD_BYTES_MAX for value in values.values())
    read = {p: decode_untrusted(value) for p, value in values.items()}
    records = {p: decode_body_untrusted(s.body, s.phase) for p, s in read.items()}
    assert records == endpoint_records(told, phases)
    for place, sealed in read.items():
        assert VERIFIER.is_allocated_untrusted(A, place.scope, place.key, sealed.body, sealed.token)
    return records


def test_serving_task_has_a_record_in_each_scope() -> None:
    assert said(assignment(ONE, services=(PUBLISHED,)), Phase.SERVING) == {
        Place(NET, ONE.id): replace(record(1), hostname=ONE.id[:12]),
        Place(INGRESS_SCOPE, ONE.id): ingress_record(A, 1),
    }


def test_starting_task_is_reachable_only() -> None:
    made = said(assignment(ONE, services=(PUBLISHED,)), Phase.STARTING)
    assert [(p.scope, r.phase) for p, r in made.items()] == [(NET, Phase.STARTING)]


def test_what_the_managers_have_not_allocated_is_not_said() -> None:
    bare = replace(assignment(ONE, services=(PUBLISHED,)), allocations={})
    assert said(bare, Phase.SERVING) == {}


def test_host_ports_stay_at_home() -> None:
    host = service(EndpointMode.VIP, published(8080, PublishMode.HOST))
    assert [p.scope for p in said(assignment(ONE, services=(host,)), Phase.SERVING)] == [NET]


def test_many_ports_take_several_records() -> None:
    ports = [PortSpec("tcp", 65535, 10000 + n) for n in range(2 * PORTS_MAX + 1)]
    many = service(EndpointMode.VIP, *ports)
    wordy = replace(ONE, service_name="s" * 63)
    made = said(assignment(wordy, services=(many,)), Phase.SERVING)
    parts = [r for p, r in made.items() if p.scope == INGRESS_SCOPE]
    assert [len(r.ports) for r in parts] == [PORTS_MAX, PORTS_MAX, 1]
    assert {p.published for r in parts for p in r.ports} == {p.published_port for p in ports}


def test_aliases_that_do_not_fit_are_left_out() -> None:
    wordy = task(1, aliases=tuple(f"{n:060}" for n in range(40)))
    kept = said(assignment(wordy), Phase.SERVING)[Place(NET, wordy.id)]
    assert len(kept.aliases) >= 10


scopes = st.sampled_from(["s1", "s2", "s3"])
publications = st.sets(scopes).flatmap(
    lambda attached: st.builds(
        Publication,
        scopes=st.just(frozenset(attached)),
        records=st.dictionaries(
            st.builds(Place, st.sampled_from(sorted(attached)), st.sampled_from("xyz")),
            st.binary(max_size=1),
        )
        if attached
        else st.just({}),
    )
)


@settings(max_examples=40, deadline=None)
@given(st.lists(publications, max_size=4))
def test_gossip_says_what_is_wanted(wanted: list[Publication]) -> None:
    ether = Ether(A)
    peer = EtherPeer(ether, A)
    publisher = Publisher(peer)
    for publication in wanted:
        publisher.say(publication)
        said = {
            Place(scope, key): value
            for scope in peer.scopes
            for key, value in ether.said_by(A, scope).items()
        }
        assert said == publication.records
        assert peer.scopes == publication.scopes
        assert difference(publisher.said, publication) == difference(Publication(), Publication())
    assert publisher.refused == 0


def test_refusal_hinders_nothing_else() -> None:
    class Choosy(EtherPeer):
        def attach(self, scope: str) -> None:
            if scope != "s1":
                super().attach(scope)

    ether = Ether(A)
    publisher = Publisher(Choosy(ether, A))
    places = {Place("s1", "k"): b"1", Place("s2", "k"): b"2"}
    publisher.say(Publication(frozenset({"s1", "s2"}), places))
    assert ether.said_by(A, "s2") == {"k": b"2"}
    assert publisher.refused == 1
