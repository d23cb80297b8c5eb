"""What a node says: the records of its tasks, and getting gossip to say them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.agent.endpoints import Place, endpoint_records
from cluster.agent.publisher import Publication, Publisher, difference
from cluster.agent.records import (
    INGRESS_SCOPE,
    PORTS_MAX,
    RECORD_BYTES_MAX,
    Phase,
    decode_untrusted,
    encode,
)
from cluster.model.service import EndpointMode, PortSpec, PublishMode
from tests.unit.agent.ether import Ether, EtherPeer
from tests.unit.agent.objects import (
    NET,
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


def test_serving_task_has_a_record_in_each_scope() -> None:
    made = endpoint_records(assignment(ONE, services=(PUBLISHED,)), {ONE.id: Phase.SERVING}, 1)
    expected = replace(record(1), hostname=ONE.id[:12])
    assert made == {
        Place(NET, ONE.id): expected,
        Place(INGRESS_SCOPE, ONE.id): replace(ingress_record(A, 1)),
    }


def test_starting_task_is_reachable_only() -> None:
    made = endpoint_records(assignment(ONE, services=(PUBLISHED,)), {ONE.id: Phase.STARTING}, 1)
    assert [(p.scope, r.phase) for p, r in made.items()] == [(NET, Phase.STARTING)]


def test_host_ports_stay_at_home() -> None:
    host = service(EndpointMode.VIP, published(8080, PublishMode.HOST))
    made = endpoint_records(assignment(ONE, services=(host,)), {ONE.id: Phase.SERVING}, 1)
    assert [p.scope for p in made] == [NET]


def test_many_ports_take_several_records() -> None:
    ports = [PortSpec("tcp", 80, 10000 + n) for n in range(2 * PORTS_MAX + 1)]
    many = service(EndpointMode.VIP, *ports)
    made = endpoint_records(assignment(ONE, services=(many,)), {ONE.id: Phase.SERVING}, 1)
    parts = [r for p, r in made.items() if p.scope == INGRESS_SCOPE]
    assert [len(r.ports) for r in parts] == [PORTS_MAX, PORTS_MAX, 1]
    assert {p.published for r in parts for p in r.ports} == {p.published_port for p in ports}
    assert all(decode_untrusted(encode(r)) == r for r in parts)


def test_aliases_that_do_not_fit_are_left_out() -> None:
    wordy = task(1, aliases=tuple(f"{n:060}" for n in range(40)))
    made = endpoint_records(assignment(wordy), {wordy.id: Phase.SERVING}, 1)
    kept = made[Place(NET, wordy.id)]
    assert len(encode(kept)) <= RECORD_BYTES_MAX
    assert len(kept.aliases) >= 10
    assert decode_untrusted(encode(kept)) == kept


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
