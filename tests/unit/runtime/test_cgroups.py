"""Finding, limiting and removing cgroups, on directories that look like the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.runtime.cgroups import Cgroups


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own"
    path.write_text("8:pids:/\n4:memory:/outer/one\n1:cpu,cpuacct:/\n0::/\n")
    return path


def unified(tmp_path: Path, controllers: str) -> Path:
    mount = tmp_path / "cgroup"
    mount.mkdir()
    (mount / "cgroup.controllers").write_text(controllers)
    (mount / "cgroup.subtree_control").write_text("")
    return mount


def test_version_two(tmp_path: Path, own: Path) -> None:
    mount = unified(tmp_path, "cpuset cpu io memory pids")
    cgroups = Cgroups.detect(mount, own)
    assert cgroups == Cgroups(2, (mount / "hivewire",))
    assert (mount / "cgroup.subtree_control").read_text() == "+memory +cpu"
    group = mount / "hivewire" / "task"
    group.mkdir()
    for file in ("memory.max", "cpu.max"):
        (group / file).touch()
    limits = {"memory_bytes_max": 4096, "nano_cpus_max": 500_000_000}
    assert list(cgroups.create("task", **limits)) == [group]
    assert (group / "memory.max").read_text() == "4096"
    assert (group / "cpu.max").read_text() == "50000 100000"
    assert not cgroups.is_out_of_memory("task")
    (group / "memory.events").write_text("oom 1\noom_kill 1\n")
    assert cgroups.is_out_of_memory("task")


def test_version_one_stays_below_the_own_group(tmp_path: Path, own: Path) -> None:
    mount = tmp_path / "cgroup"
    for directory in ("memory/outer/one", "cpu"):
        (mount / directory).mkdir(parents=True)
        (mount / directory / "cgroup.procs").touch()
    cgroups = Cgroups.detect(mount, own)
    assert cgroups.version == 1
    assert set(cgroups.parents) == {mount / "memory/outer/one/hivewire", mount / "cpu/hivewire"}
    groups = cgroups.create("task", memory_bytes_max=0, nano_cpus_max=0)
    assert all(group.is_dir() for group in groups)
    cgroups.remove("task")
    cgroups.remove("task")
    assert not any(group.exists() for group in groups)


def test_without_controllers_there_are_no_limits(
    tmp_path: Path, own: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cgroups = Cgroups.detect(unified(tmp_path, "pids"), own)
    assert cgroups == Cgroups(0)
    assert "without memory and cpu limits" in caplog.text
    assert cgroups.create("task", memory_bytes_max=1, nano_cpus_max=1) == []
    assert not cgroups.is_out_of_memory("task")
    cgroups.remove("task")
