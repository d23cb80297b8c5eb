"""A runtime of each kind; the process runtime needs namespaces, as root or in a user namespace."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.runtime.base import Runtime
from cluster.runtime.memory import MemoryRuntime
from cluster.runtime.process import ProcessRuntime


@pytest.fixture(scope="session")
def _namespaces() -> None:
    probe = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "true"]
    if subprocess.run(probe, check=False, capture_output=True).returncode:
        pytest.skip("no namespaces: run as root or under `unshare -Urnm`")


@pytest.fixture
async def process_runtime(tmp_path: Path, _namespaces: None) -> AsyncIterator[ProcessRuntime]:
    runtime = ProcessRuntime(tmp_path / "tasks")
    yield runtime
    for task_id in await runtime.adopt():
        await runtime.remove(task_id)
    await runtime.close()


@pytest.fixture(params=["memory", "process"])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    if request.param == "memory":
        return MemoryRuntime(images=["host"])
    process: ProcessRuntime = request.getfixturevalue("process_runtime")
    return process
