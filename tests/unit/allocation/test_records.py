"""Records: what is said is understood, what is not said does no harm."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from ipaddress import IPv4Address

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.agent.applied import encode_applied
from cluster.allocation.records import (
    BODY_BYTES_MAX,
    PORTS_MAX,
    RECORD_BYTES_MAX,
    EndpointRecord,
    MalformedRecord,
    Phase,
    RecordPort,
    Sealed,
    decode_body,
    decode_body_untrusted,
    decode_untrusted,
    encode,
    encode_body,
)
from cluster.allocation.tokens import TOKEN_BYTES
from cluster.model.ids import ServiceId, TaskId
from cluster.model.service import EndpointMode
from dataplane.plan import Protocol
from gossip.wire import VALUE_BYTES_MAX
from tests.unit.agent.objects import B, ingress_record, record, signed

GOLDEN = bytes.fromhex(
    "940101c45e9db97461736b303030303030303030303030303030303030303031bf7765622e312e7461736b30"
    "3030303030303030303030303030303030303031a6737663776562a3776562cd03e800a3766970c4040a0001"
    "0bc4040a00010290a0c090c440bd5171a00f61772c6b78f91b6eca13197d43a7d4df1cd07bb6644d463b4532"
    "5e2f4993a36e267b79d11a2ebb4ecd9d2717e1ad55a5bd2b45e1e08674d8e42908"
)
names = st.from_regex(r"[a-z0-9_]([a-z0-9_.-]{0,30}[a-z0-9])?", fullmatch=True)
addresses = st.none() | st.ip_addresses(v=4).map(lambda a: IPv4Address(int(a)))
ports = st.builds(
    RecordPort, st.sampled_from(Protocol), st.integers(1, 65535), st.integers(1, 65535)
)
endpoint_records = st.builds(
    EndpointRecord,
    task=names.map(TaskId),
    task_name=names,
    service=names.map(ServiceId),
    service_name=names,
    phase=st.sampled_from(Phase),
    allocation=st.integers(0, 2**53),
    service_allocation=st.integers(0, 2**53),
    mode=st.sampled_from(EndpointMode),
    address=addresses,
    vip=addresses,
    aliases=st.lists(names, max_size=5).map(tuple),
    hostname=st.just("") | names,
    gateway_address=addresses,
    ports=st.lists(ports, max_size=PORTS_MAX).map(tuple),
)


def test_gossip_carries_them() -> None:
    assert RECORD_BYTES_MAX == VALUE_BYTES_MAX


def test_wire_form_is_stable() -> None:
    """With the signature: Ed25519 gives the same one every time."""
    assert signed(B, record(1)).hex() == GOLDEN.hex()
    sealed = decode_untrusted(GOLDEN)
    assert decode_body(sealed.body, sealed.phase) == record(1)


@settings(max_examples=50, deadline=None)
@given(endpoint_records)
def test_round_trip(made: EndpointRecord) -> None:
    assert decode_body_untrusted(encode_body(made), made.phase) == made


@given(st.sampled_from(Phase), st.binary(max_size=BODY_BYTES_MAX), st.binary(max_size=TOKEN_BYTES))
def test_bodies_of_the_largest_size_fit(phase: Phase, body: bytes, token: bytes) -> None:
    data = encode(phase, body, token)
    assert len(data) <= RECORD_BYTES_MAX
    assert decode_untrusted(data) == Sealed(phase, body, token)


@given(st.binary(max_size=RECORD_BYTES_MAX + 10))
def test_any_bytes(data: bytes) -> None:
    with contextlib.suppress(MalformedRecord):
        decode_untrusted(data)
    with contextlib.suppress(MalformedRecord):
        decode_body_untrusted(data, Phase.SERVING)


@given(st.sampled_from([record(1), ingress_record(B, 2)]), st.data())
def test_mutated_bytes(made: EndpointRecord, data: st.DataObject) -> None:
    wire = bytearray(encode_body(made))
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MalformedRecord):
        assert isinstance(decode_body_untrusted(bytes(wire), Phase.SERVING), EndpointRecord)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(MalformedRecord):
        decode_untrusted(b"\x91" * RECORD_BYTES_MAX)
    with pytest.raises(MalformedRecord):
        decode_body_untrusted(b"\x91" * RECORD_BYTES_MAX, Phase.SERVING)


def test_fields_of_a_later_version_are_ignored() -> None:
    body = msgspec.msgpack.decode(encode_body(record(1)))
    later = msgspec.msgpack.encode([*body, {"new": 1}])
    assert decode_body_untrusted(later, Phase.SERVING) == record(1)
    fields = msgspec.msgpack.decode(signed(B, record(1)))
    assert decode_untrusted(msgspec.msgpack.encode([*fields, 7])) == decode_untrusted(GOLDEN)


@pytest.mark.parametrize(
    "bad",
    [
        replace(record(1), task_name=""),
        replace(record(1), service_name="a b"),
        replace(record(1), aliases=("ok", "new\nline")),
        replace(record(1), hostname="-x"),
        replace(record(1), task_name="x" * 192),
        replace(record(1), aliases=("a",) * 65),
        replace(record(1), ports=(RecordPort(Protocol.TCP, 0, 80),)),
        replace(record(1), ports=(RecordPort(Protocol.TCP, 1, 80),) * (PORTS_MAX + 1)),
        replace(record(1), allocation=-1),
        replace(record(1), service_allocation=-1),
    ],
)
def test_nonsense_is_refused(bad: EndpointRecord) -> None:
    with pytest.raises(MalformedRecord):
        decode_body_untrusted(encode_body(bad), Phase.SERVING)


@pytest.mark.parametrize(
    "bad",
    [
        encode(Phase.SERVING, b"x" * RECORD_BYTES_MAX, b""),
        encode(Phase.SERVING, b"x", b"x" * (TOKEN_BYTES + 1)),
        msgspec.msgpack.encode([1, 3, b"", b""]),
        msgspec.msgpack.encode([7, 1, b"", b""]),
        encode_applied(["x"]),
    ],
)
def test_other_things_are_no_records(bad: bytes) -> None:
    with pytest.raises(MalformedRecord):
        decode_untrusted(bad)
