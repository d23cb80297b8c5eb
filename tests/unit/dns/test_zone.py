"""Who gets which answer: names, networks, order, what goes upstream."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from random import Random

import pytest

from dataplane.dns.codec import RD, Answer, Query, Rcode
from dataplane.dns.zone import (
    TASK_TTL_S,
    VIP_TTL_S,
    Forward,
    NetworkNames,
    Reply,
    Zone,
    build_zones,
)
from dataplane.plan import Interface, Name, Network, NodePlan, Pointer, Sandbox, VirtualService

A, PTR, MX, AAAA = 1, 12, 15, 28


def address(number: int) -> IPv4Address:
    return IPv4Address("10.0.0.0") + number


def network(id_: str, *names: Name, first: int = 0, internal: bool = False) -> Network:
    return Network(
        id=id_,
        name=f"{id_}Net",
        vni=4097,
        subnet=IPv4Network("10.0.0.0/24"),
        gateway=address(1),
        names=names,
        pointers=(
            Pointer(address(first + 2), f"web.{id_}Net"),
            Pointer(address(first + 3), f"web.1.abc.{id_}Net"),
        ),
        services=(VirtualService(address(first + 2), (address(first + 3),)),),
        internal=internal,
    )


RED = network(
    "red",
    Name("web", (address(2),)),
    Name("tasks.web", (address(3), address(4), address(5))),
    Name("web.1.abc", (address(3),)),
    Name("empty", ()),
    Name("a.b", (address(9),)),
)
BLUE = network("blue", Name("web", (address(102),)), Name("db", (address(103),)), first=100)
PLAN = NodePlan(
    networks=(RED, BLUE),
    sandboxes=(
        Sandbox("in-red", (Interface("red", address(3), "02:42:0a:00:00:03"),)),
        Sandbox(
            "in-both",
            (
                Interface("blue", address(103), "02:42:0a:00:00:67"),
                Interface("red", address(5), "02:42:0a:00:00:05"),
            ),
        ),
        Sandbox("alone"),
    ),
)


def question(name: str, type_: int = A) -> Query:
    return Query(1, RD, name, type_, 1, b"")


def zone(sandbox: str, plan: NodePlan = PLAN, *, has_upstream: bool = True) -> Zone:
    return build_zones(plan, {}, has_upstream=has_upstream)[0][sandbox]


def ask(sandbox: str, name: str, type_: int = A, *, has_upstream: bool = True) -> Reply | Forward:
    return zone(sandbox, has_upstream=has_upstream).answer(question(name, type_), Random(1))


def found(sandbox: str, name: str) -> set[object]:
    reply = ask(sandbox, name)
    assert isinstance(reply, Reply)
    assert reply.rcode is Rcode.NOERROR
    return set(reply.answer.data)


def test_a_service_has_its_virtual_ip_and_its_tasks() -> None:
    assert ask("in-red", "web") == Reply(Rcode.NOERROR, Answer((address(2),), VIP_TTL_S))
    assert found("in-red", "tasks.web") == {address(3), address(4), address(5)}
    reply = ask("in-red", "web.1.abc")
    assert reply == Reply(Rcode.NOERROR, Answer((address(3),), TASK_TTL_S))


def test_the_network_may_be_named() -> None:
    assert found("in-both", "web.rednet") == {address(2)}
    assert found("in-both", "web.bluenet") == {address(102)}
    assert found("in-both", "tasks.web.rednet") == {address(3), address(4), address(5)}
    assert found("in-red", "a.b.rednet") == found("in-red", "a.b") == {address(9)}


def test_interfaces_order_decides_between_networks() -> None:
    assert found("in-both", "web") == {address(102)}
    assert found("in-red", "web") == {address(2)}


def test_other_networks_stay_unknown() -> None:
    assert ask("in-red", "db") == Forward()
    assert ask("in-red", "db.bluenet") == Forward()
    assert ask("alone", "web") == Forward()
    assert ask("in-red", "103.0.0.10.in-addr.arpa", PTR) == Forward()


@pytest.mark.parametrize("type_", [AAAA, MX])
def test_a_known_name_has_no_other_records(type_: int) -> None:
    assert ask("in-red", "web", type_) == Reply(Rcode.NOERROR)
    assert ask("in-red", "nope", type_) == Forward()


def test_a_name_without_addresses_exists() -> None:
    assert found("in-red", "empty") == set()


def test_pointers() -> None:
    answer = Answer(("web.1.abc.redNet",), TASK_TTL_S)
    assert ask("in-red", "3.0.0.10.in-addr.arpa", PTR) == Reply(Rcode.NOERROR, answer)
    virtual = Answer(("web.redNet",), VIP_TTL_S)
    assert ask("in-red", "2.0.0.10.in-addr.arpa", PTR) == Reply(Rcode.NOERROR, virtual)
    assert ask("in-red", "9.0.0.10.in-addr.arpa", PTR) == Forward()
    assert ask("in-red", "web", PTR) == Forward()


def test_without_upstream_only_single_labels_do_not_exist() -> None:
    assert ask("in-red", "nope", has_upstream=False) == Reply(Rcode.NXDOMAIN)
    assert ask("in-red", "example.com", has_upstream=False) == Reply(Rcode.SERVFAIL)
    assert ask("in-red", "web", has_upstream=False) != Forward()


def test_internal_networks_have_no_upstream() -> None:
    internal = replace(BLUE, internal=True)
    plan = replace(PLAN, networks=(replace(RED, internal=True), internal))
    assert not zone("in-red", plan).has_upstream
    assert not zone("in-both", plan).has_upstream
    assert zone("alone", plan).has_upstream
    assert zone("in-both", replace(PLAN, networks=(RED, internal))).has_upstream


def test_answers_come_in_random_order() -> None:
    rng = Random(1)
    replies = [zone("in-red").answer(question("tasks.web"), rng) for _ in range(50)]
    firsts = {reply.answer.data[0] for reply in replies if isinstance(reply, Reply)}
    assert firsts == {address(3), address(4), address(5)}


def test_what_is_no_lookup_is_refused() -> None:
    base = question("web")
    for query, rcode in (
        (replace(base, flags=0x2800), Rcode.NOTIMP),
        (replace(base, class_=3), Rcode.REFUSED),
        (replace(base, edns_bytes_max=512, edns_version=1), Rcode.BADVERS),
    ):
        assert zone("in-red").answer(query, Random(1)) == Reply(rcode)


def test_unchanged_networks_are_kept() -> None:
    _, names = build_zones(PLAN, {}, has_upstream=True)
    changed = replace(PLAN, networks=(RED, replace(BLUE, names=())))
    _, again = build_zones(changed, names, has_upstream=True)
    assert again["red"] is names["red"]
    assert again["blue"] == NetworkNames.of(replace(BLUE, names=()))
