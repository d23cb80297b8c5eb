"""Tokens: nothing but what the managers signed is allowed, to nobody but the node it is for."""

from __future__ import annotations

from dataclasses import fields, replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.allocation.records import EndpointRecord, Phase, RecordPort, encode_body
from cluster.allocation.tokens import TOKEN_BYTES, Signer, Verifier, new_key
from cluster.model.ids import ClusterId, NodeId, ServiceId, TaskId
from cluster.model.service import EndpointMode
from dataplane.plan import Protocol
from tests.unit.agent.objects import CLUSTER, KEY, SIGNER, VERIFIER, A, B

RECORD = EndpointRecord(
    task=TaskId("t1"),
    task_name="web.1.t1",
    service=ServiceId("s1"),
    service_name="web",
    allocation=7,
    service_allocation=8,
    address=IPv4Address("10.0.1.5"),
    vip=IPv4Address("10.0.1.2"),
    aliases=("shop", "cart"),
    hostname="host",
    gateway_address=IPv4Address("100.64.1.2"),
    ports=(RecordPort(Protocol.TCP, 8080, 80),),
)
OTHERS: dict[str, object] = {
    "task": "t2",
    "task_name": "web.2.t1",
    "service": "s2",
    "service_name": "db",
    "allocation": 9,
    "service_allocation": 9,
    "mode": EndpointMode.DNSRR,
    "address": IPv4Address("10.0.1.6"),
    "vip": IPv4Address("10.0.1.6"),
    "aliases": ("shop",),
    "hostname": "db",
    "gateway_address": IPv4Address("100.64.1.3"),
    "ports": (RecordPort(Protocol.TCP, 8080, 81),),
}
TRUE = SIGNER.allocate(A, "net1", "t1", encode_body(RECORD))


def allows(
    *,
    node: NodeId = A,
    scope: str = "net1",
    key: str = "t1",
    body: bytes = TRUE.body,
    token: bytes = TRUE.token,
    verifier: Verifier = VERIFIER,
) -> bool:
    return verifier.is_allocated_untrusted(node, scope, key, body, token)


def test_what_was_signed_is_allowed() -> None:
    assert allows()
    assert len(TRUE.token) == TOKEN_BYTES


@pytest.mark.parametrize("field", [f.name for f in fields(EndpointRecord) if f.name != "phase"])
def test_every_field_is_bound(field: str) -> None:
    other = replace(RECORD, **{field: OTHERS[field]})  # type: ignore[arg-type]
    assert other != RECORD
    assert not allows(body=encode_body(other))


def test_the_phase_is_the_nodes_own() -> None:
    assert allows(body=encode_body(replace(RECORD, phase=Phase.DRAINING)))


def test_node_place_and_cluster_are_bound() -> None:
    assert not allows(node=B)
    assert not allows(scope="net2")
    assert not allows(key="t1.1")
    assert not allows(verifier=Verifier(ClusterId("other"), VERIFIER.keys))


def test_parts_do_not_run_into_each_other() -> None:
    """The same letters, divided otherwise."""
    assert not allows(scope="net", key="1t1")
    assert not allows(node=NodeId("an"), scope="et1")


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_junk_is_not_allowed(body: bytes, token: bytes) -> None:
    assert not allows(token=token)
    assert not allows(body=body)
    assert not allows(body=body, token=token)


@given(st.integers(0, TOKEN_BYTES - 1), st.integers(1, 255))
def test_every_byte_of_a_token_matters(place: int, mask: int) -> None:
    token = bytearray(TRUE.token)
    token[place] ^= mask
    assert not allows(token=bytes(token))


def test_all_managers_make_the_same_token() -> None:
    again = Signer(CLUSTER, new_key(KEY.secret)).allocate(A, "net1", "t1", TRUE.body)
    assert again == TRUE


def test_keys_can_be_replaced() -> None:
    new = new_key(bytes(range(1, 33)))
    renewed = Signer(CLUSTER, new).allocate(A, "net1", "t1", TRUE.body)
    assert not allows(token=renewed.token)
    both = Verifier(CLUSTER, (KEY.public, new.public))
    assert allows(token=renewed.token, verifier=both)
    assert allows(verifier=both)
    assert not allows(verifier=Verifier(CLUSTER, (new.public,)))
    assert not allows(verifier=Verifier(CLUSTER, ()))


def test_secrets_are_not_shown() -> None:
    assert KEY.secret.hex() not in repr(KEY)
    assert repr(KEY.secret) not in repr(KEY)
