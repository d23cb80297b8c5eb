"""The state file: all of it or nothing, and never in the way."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.agent.sightings import RawRecord, Sightings
from cluster.agent.state_file import StateFile, WorkerState
from cluster.model.cluster import GossipKey
from cluster.model.service import EndpointMode
from cluster.model.task import TaskState, TaskStatus
from tests.unit.agent.objects import NET, B, assignment, info, published, service, task

STATE = WorkerState(
    assignment=assignment(
        task(1, aliases=("x",)), task(2), services=(service(EndpointMode.VIP, published()),)
    ),
    info=replace(info(), gossip_keys=(GossipKey(7, b"k" * 32),)),
    statuses={task(1).id: TaskStatus(TaskState.RUNNING, 12.5, "started", pid=7)},
    sightings=Sightings({B: "192.0.2.2"}, frozenset(), {NET: (RawRecord(B, "k", b"\x00v"),)}),
)


def test_round_trip(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "worker")
    assert file.load() == WorkerState()
    file.save(STATE)
    assert StateFile(tmp_path / "worker").load() == STATE


def test_secrets_are_the_owners_alone(tmp_path: Path) -> None:
    directory = tmp_path / "worker"
    StateFile(directory).save(STATE)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert [(p.name, p.stat().st_mode & 0o777) for p in directory.iterdir()] == [("state", 0o600)]
    assert "kkk" not in repr(STATE)


def test_leftover_of_a_crash_does_not_matter(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    file.save(STATE)
    (tmp_path / "state.next").write_bytes(b"half")
    assert file.load() == STATE
    file.save(WorkerState())
    assert file.load() == WorkerState()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(position=st.integers(0, 10_000), value=st.integers(1, 255))
def test_damage_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, position: int, value: int
) -> None:
    file = StateFile(tmp_path)
    file.save(STATE)
    data = bytearray((tmp_path / "state").read_bytes())
    data[position % len(data)] ^= value
    (tmp_path / "state").write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert file.load() == WorkerState()
    assert "corrupt" in caplog.text
    assert (tmp_path / "state.corrupt").exists()


@pytest.mark.parametrize("data", [b"", b"hivewire worker 1\n", b"\x80" * 100])
def test_nonsense_is_set_aside(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "state").write_bytes(data)
    assert StateFile(tmp_path).load() == WorkerState()
    assert not (tmp_path / "state").exists()
