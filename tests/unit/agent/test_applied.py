"""`applied` records: what is said is understood, what is not said does no harm."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.agent.applied import (
    APPLIED_KEY,
    APPLIED_TASKS_MAX,
    decode_applied_untrusted,
    encode_applied,
    task_hash,
)
from cluster.allocation.records import RECORD_BYTES_MAX, MalformedRecord
from cluster.model.ids import ID_LENGTH
from tests.unit.agent.objects import B, record, signed


@given(st.binary(max_size=RECORD_BYTES_MAX + 10))
def test_any_bytes(data: bytes) -> None:
    with contextlib.suppress(MalformedRecord):
        decode_applied_untrusted(data)


@settings(max_examples=20, deadline=None)
@given(st.sets(st.text("abc", min_size=1), max_size=APPLIED_TASKS_MAX))
def test_round_trip(tasks: set[str]) -> None:
    data = encode_applied(tasks)
    assert len(data) <= RECORD_BYTES_MAX
    assert decode_applied_untrusted(data) == {task_hash(task) for task in tasks}


def test_it_is_bounded() -> None:
    data = encode_applied(f"task{n}" for n in range(10 * APPLIED_TASKS_MAX))
    assert len(data) <= RECORD_BYTES_MAX
    assert len(decode_applied_untrusted(data)) == APPLIED_TASKS_MAX


@pytest.mark.parametrize(
    "bad", [signed(B, record(1)), msgspec.msgpack.encode([2, b"1234567"]), b"\x91" * 1025]
)
def test_other_kinds_are_refused(bad: bytes) -> None:
    with pytest.raises(MalformedRecord):
        decode_applied_untrusted(bad)


def test_its_key_is_no_task_id() -> None:
    assert len(APPLIED_KEY) != ID_LENGTH
