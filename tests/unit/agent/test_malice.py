"""A malicious worker: it has the gossip key and its own certificate, and says what it likes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from cluster.agent.listener import READ_PER_LOOK_MAX
from cluster.agent.worker import Worker
from cluster.allocation.records import (
    INGRESS_SCOPE,
    EndpointRecord,
    Phase,
    RecordPort,
    encode,
    encode_body,
)
from cluster.allocation.tokens import Signer, new_key
from cluster.model.ids import ClusterId, ServiceId, TaskId
from cluster.model.service import EndpointMode
from dataplane.plan import NodePlan, Protocol
from tests.unit.agent.bench import Bench, wait_until
from tests.unit.agent.objects import (
    CLUSTER,
    NET,
    SIGNER,
    A,
    B,
    C,
    assignment,
    info,
    ingress_record,
    published,
    record,
    service,
    signed,
    task,
)
from tests.unit.virtual_time import virtual

TOLD = assignment(task(1), services=(service(EndpointMode.VIP, published()),))
TWO, THREE = record(2), record(3)
MALLORY = B
"""It was given task 2; task 3 is C's."""


def wishes() -> Iterator[tuple[str, EndpointRecord]]:
    """Yield everything that a worker might like to be: scope and record."""
    more = replace(TWO, task=TaskId("mallory"), allocation=10**9, service_allocation=10**9)
    yield NET, replace(more, address=THREE.address)
    yield NET, replace(more, address=IPv4Address("10.0.1.11"))
    yield NET, replace(more, address=IPv4Address("10.0.1.77"), vip=IPv4Address("10.0.1.78"))
    yield NET, replace(more, address=IPv4Address("10.0.1.79"), service=ServiceId("other"))
    for changed in (
        {"address": THREE.address},
        {"vip": IPv4Address("10.0.1.78")},
        {"service_name": "db"},
        {"hostname": "db"},
        {"aliases": ("db", "web")},
        {"task_name": "db.1.x"},
        {"mode": EndpointMode.DNSRR},
        {"allocation": 10**9},
        {"service_allocation": 10**9},
    ):
        yield NET, replace(TWO, **changed)
    offer = ingress_record(MALLORY, 2)
    yield INGRESS_SCOPE, replace(offer, ports=(RecordPort(Protocol.TCP, 22, 22),))
    yield INGRESS_SCOPE, replace(offer, task=TaskId("mallory"))


def proofs(scope: str, wish: EndpointRecord) -> Iterator[bytes]:
    """Yield the record with every token that the worker can get at or make."""
    body = encode_body(wish)
    mine = SIGNER.allocate(MALLORY, NET, TWO.task, encode_body(TWO))
    yield encode(Phase.SERVING, body, b"")
    yield encode(Phase.SERVING, body, bytes(64))
    yield encode(Phase.SERVING, body, mine.token)
    own = Signer(CLUSTER, new_key(bytes(32)))
    yield encode(Phase.SERVING, body, own.allocate(MALLORY, scope, wish.task, body).token)
    elsewhere = Signer(ClusterId("other"), new_key(bytes(range(32))))
    yield encode(Phase.SERVING, body, elsewhere.allocate(MALLORY, scope, wish.task, body).token)


def lies() -> list[tuple[str, str, bytes]]:
    found = [
        (scope, f"{number}x{n}", value)
        for number, (scope, wish) in enumerate(wishes())
        for n, value in enumerate(proofs(scope, wish))
    ]
    # What others were given, and what it was given, said elsewhere.
    found += [
        (NET, THREE.task, signed(C, THREE)),
        (INGRESS_SCOPE, THREE.task, signed(C, ingress_record(C, 3))),
        (NET, "again", signed(MALLORY, TWO)),
        (INGRESS_SCOPE, TWO.task, signed(MALLORY, TWO)),
        (NET, task(1).id, signed(A, record(1))),
    ]
    return found


def ignores(worker: Worker, records: int) -> bool:
    return worker.stats().plan.unsigned == records


async def settled_plan(bench: Bench) -> NodePlan:
    for owner, number in ((MALLORY, 2), (C, 3)):
        bench.ether.say(owner, NET, record(number).task, signed(owner, record(number)))
    await wait_until(lambda: [len(n.remotes) for n in bench.driver.plan.networks] == [2])
    await wait_until(lambda: bench.driver.connect_port(Protocol.TCP, 8080))
    return bench.driver.plan


@virtual
async def test_it_changes_nothing_but_its_own_phase(tmp_path: Path) -> None:
    bench = Bench(tmp_path, B, C)
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(TOLD)
        before = await settled_plan(bench)
        said = lies()
        for scope, key, value in said:
            bench.ether.say(MALLORY, scope, key, value)
        await wait_until(lambda: worker.stats().plan.unsigned == len(said))
        assert worker.stats().plan.conflicts == 0
        assert bench.driver.plan == before
        # All it can do is take its own task out.
        bench.ether.say(MALLORY, NET, TWO.task, encode(Phase.SERVING, encode_body(THREE), b""))
        await wait_until(lambda: [len(n.remotes) for n in bench.driver.plan.networks] == [1])


@virtual
async def test_it_is_named_once_in_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path, B, C)
    with caplog.at_level(logging.WARNING):
        async with bench.worker() as worker:
            worker.set_cluster_info(info())
            worker.set_assignment(TOLD)
            await settled_plan(bench)
            for number, (scope, key, value) in enumerate(lies(), start=1):
                bench.ether.say(MALLORY, scope, key, value)
                await wait_until(partial(ignores, worker, number))
            warnings = [r.getMessage() for r in caplog.records if "not allocated" in r.msg]
            assert len(warnings) == 1
            assert f"owner={MALLORY} records=1" in warnings[0]


@virtual
async def test_its_flood_keeps_nobody_from_being_heard(tmp_path: Path) -> None:
    bench = Bench(tmp_path, B, C)
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(TOLD)
        await settled_plan(bench)
        wish = encode_body(replace(TWO, vip=THREE.address))
        for number in range(READ_PER_LOOK_MAX + 10):
            value = encode(Phase.SERVING, wish, number.to_bytes(64))
            bench.ether.say(MALLORY, NET, f"k{number}", value)
        bench.ether.say(C, NET, THREE.task, None)
        await wait_until(lambda: [len(n.remotes) for n in bench.driver.plan.networks] == [1])
        await wait_until(lambda: worker.stats().plan.unsigned == READ_PER_LOOK_MAX + 10)


@virtual
async def test_what_it_was_once_given_is_lost_to_the_next_who_gets_it(tmp_path: Path) -> None:
    """An old token stays true; the later allocation of the same address wins."""
    bench = Bench(tmp_path, B, C)
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(TOLD)
        await settled_plan(bench)
        heir = replace(TWO, task=TaskId("heir"), task_name="web.9.heir", allocation=10**6)
        bench.ether.say(C, NET, heir.task, signed(C, heir))
        await wait_until(lambda: worker.stats().plan.conflicts == 1)
        pointers = {p.address: p.name for n in bench.driver.plan.networks for p in n.pointers}
        await wait_until(lambda: "heir" in str(bench.driver.plan.networks[0].pointers))
        assert TWO.address in pointers


@virtual
async def test_what_it_was_once_given_gets_nothing_when_its_slot_is_served_elsewhere(
    tmp_path: Path,
) -> None:
    """No clock ends an old token: it gets connections until a later task of its slot serves."""
    bench = Bench(tmp_path, B, C)
    heir = replace(THREE, task_name=f"web.2.{THREE.task}")

    def backends() -> list[IPv4Address]:
        return [b for n in bench.driver.plan.networks for s in n.services for b in s.backends]

    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(TOLD)
        bench.ether.say(MALLORY, NET, TWO.task, signed(MALLORY, TWO))
        old = ingress_record(MALLORY, 2)
        bench.ether.say(MALLORY, INGRESS_SCOPE, TWO.task, signed(MALLORY, old))
        await wait_until(lambda: TWO.address in backends())
        new = replace(ingress_record(C, 3), task_name=heir.task_name)
        bench.ether.say(C, NET, THREE.task, signed(C, heir))
        bench.ether.say(C, INGRESS_SCOPE, THREE.task, signed(C, new))
        await wait_until(lambda: TWO.address not in backends() and THREE.address in backends())
        (found,) = bench.driver.plan.networks
        assert TWO.address in {r.address for r in found.remotes}  # what it has goes on
        port = next(p for p in bench.driver.plan.ports if p.port == 8080)
        assert old.gateway_address not in {b.address for b in port.backends}
        assert new.gateway_address in {b.address for b in port.backends}
        bench.ether.say(C, NET, THREE.task, None)
        await wait_until(lambda: TWO.address in backends())


@virtual
async def test_a_removed_node_is_not_believed_any_more(tmp_path: Path) -> None:
    bench = Bench(tmp_path, B, C)
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(TOLD)
        await settled_plan(bench)
        worker.set_cluster_info(info(A, C))
        await wait_until(lambda: [len(n.remotes) for n in bench.driver.plan.networks] == [1])
        assert [r.address for r in bench.driver.plan.networks[0].remotes] == [THREE.address]


@virtual
async def test_nothing_is_planned_before_it_is_known_whom_to_believe(tmp_path: Path) -> None:
    bench = Bench(tmp_path, B, C)
    bench.ether.say(C, NET, THREE.task, signed(C, THREE))
    async with bench.worker() as worker:
        worker.set_assignment(TOLD)
        await wait_until(lambda: worker.stats().tasks)
        assert worker.plan() is None
        worker.set_cluster_info(info())
        await wait_until(lambda: bench.driver.plans)
        assert [len(n.remotes) for n in bench.driver.plans[0].networks] == [1]


@virtual
async def test_rotated_keys_interrupt_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, B, C)
    new = new_key(bytes(32))
    async with bench.worker() as worker:
        worker.set_cluster_info(info())
        worker.set_assignment(TOLD)
        before = await settled_plan(bench)
        plans = len(bench.driver.plans)
        both = replace(info(), allocation_keys=(new.public, *info().allocation_keys))
        worker.set_cluster_info(both)
        renewed = Signer(CLUSTER, new)
        for owner, made in ((MALLORY, TWO), (C, THREE)):
            proof = renewed.allocate(owner, NET, made.task, encode_body(made))
            bench.ether.say(owner, NET, made.task, encode(made.phase, proof.body, proof.token))
        worker.set_cluster_info(replace(both, allocation_keys=(new.public,)))
        await wait_until(lambda: worker.stats().plan.unsigned == 0)
        assert {p.networks for p in bench.driver.plans[plans:]} <= {before.networks}
