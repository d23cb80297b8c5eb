"""Records: what is said is understood, what is not said does no harm."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from ipaddress import IPv4Address

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.agent import records
from cluster.agent.records import (
    APPLIED_TASKS_MAX,
    PORTS_MAX,
    RECORD_BYTES_MAX,
    EndpointRecord,
    MalformedRecord,
    Phase,
    RecordPort,
    decode_applied_untrusted,
    decode_untrusted,
    encode,
    encode_applied,
    task_hash,
)
from cluster.model.ids import ServiceId, TaskId
from cluster.model.service import EndpointMode
from dataplane.plan import Protocol
from gossip.wire import VALUE_BYTES_MAX
from tests.unit.agent.objects import B, ingress_record, record

GOLDEN = bytes.fromhex(
    "9f01b97461736b303030303030303030303030303030303030303031bf7765622e312e7461736b303030303030"
    "303030303030303030303030303031a6737663776562a377656201cd03e8a3766970c4040a00010bc40602420a"
    "00010bc4040a00010290a0c090"
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
    created_ms=st.integers(0, 2**53),
    mode=st.sampled_from(EndpointMode),
    address=addresses,
    mac=st.just("") | st.just("02:42:0a:00:01:0b"),
    vip=addresses,
    aliases=st.lists(names, max_size=5).map(tuple),
    hostname=st.just("") | names,
    gateway_address=addresses,
    ports=st.lists(ports, max_size=PORTS_MAX).map(tuple),
)


def test_gossip_carries_them() -> None:
    assert RECORD_BYTES_MAX == VALUE_BYTES_MAX


def test_wire_form_is_stable() -> None:
    assert encode(record(1)).hex() == GOLDEN.hex()
    assert decode_untrusted(GOLDEN) == record(1)


@settings(max_examples=50, deadline=None)
@given(endpoint_records)
def test_round_trip(made: EndpointRecord) -> None:
    assert decode_untrusted(encode(made)) == made


@given(st.binary(max_size=RECORD_BYTES_MAX + 10))
def test_any_bytes(data: bytes) -> None:
    for decode in (decode_untrusted, decode_applied_untrusted):
        with contextlib.suppress(MalformedRecord):
            decode(data)


@given(st.sampled_from([record(1), ingress_record(B, 2)]), st.data())
def test_mutated_bytes(made: EndpointRecord, data: st.DataObject) -> None:
    wire = bytearray(encode(made))
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MalformedRecord):
        assert isinstance(decode_untrusted(bytes(wire)), EndpointRecord)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(MalformedRecord):
        decode_untrusted(b"\x91" * RECORD_BYTES_MAX)


def test_fields_of_a_later_version_are_ignored() -> None:
    fields = msgspec.msgpack.decode(encode(record(1)))
    later = msgspec.msgpack.encode([*fields, {"new": 1}])
    assert decode_untrusted(later) == record(1)


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
        replace(record(1), ports=(RecordPort(Protocol.TCP, 1, 80),) * 65),
        replace(record(1), mac="02:42"),
        replace(record(1), created_ms=-1),
        replace(record(1), aliases=tuple(f"{n:050}" for n in range(30))),
    ],
)
def test_nonsense_is_refused(bad: EndpointRecord) -> None:
    with pytest.raises(MalformedRecord):
        decode_untrusted(encode(bad))


def test_kinds_are_told_apart() -> None:
    with pytest.raises(MalformedRecord):
        decode_untrusted(encode_applied(["x"]))
    with pytest.raises(MalformedRecord):
        decode_applied_untrusted(encode(record(1)))
    with pytest.raises(MalformedRecord):
        decode_applied_untrusted(msgspec.msgpack.encode([2, b"1234567"]))


@settings(max_examples=20, deadline=None)
@given(st.sets(names, max_size=APPLIED_TASKS_MAX))
def test_applied_round_trip(tasks: set[str]) -> None:
    data = encode_applied(tasks)
    assert len(data) <= RECORD_BYTES_MAX
    assert decode_applied_untrusted(data) == {task_hash(task) for task in tasks}


def test_applied_is_bounded() -> None:
    data = encode_applied(f"task{n}" for n in range(10 * APPLIED_TASKS_MAX))
    assert len(data) <= RECORD_BYTES_MAX
    assert len(decode_applied_untrusted(data)) == APPLIED_TASKS_MAX


def test_applied_key_is_no_task_id() -> None:
    assert len(records.APPLIED_KEY) != len(TaskId("0" * 25))
