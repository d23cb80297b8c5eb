"""The cgroups of tasks: version 2, version 1, or none.

A task's command joins its groups itself (`cluster.runtime.isolation`); here they are made, asked
whether memory ran out, and removed. On a hybrid machine the controllers are those of version 1,
below the group that the daemon itself is in; with version 2 only groups without processes may
have controllers, so there the tasks are beside the daemon, below the root.

Invariant: without a writable hierarchy everything else works, only without limits; `detect` says
so once in the log.
Source: the kernel's admin-guide/cgroup-v1 and cgroup-v2.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never

logger = logging.getLogger(__name__)

MOUNT_POINT = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
PARENT = "hivewire"
"""Group of all tasks of this machine."""
CONTROLLERS = ("memory", "cpu")
_PERIOD_US = 100_000
"""Docker's period for CPU quotas."""


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Where tasks' cgroups are made."""

    version: Literal[0, 1, 2]
    """0: nowhere."""
    parents: tuple[Path, ...] = ()
    """Directories that get one group per task: one per controller (1), or one (2)."""

    @classmethod
    def detect(cls, mount_point: Path = MOUNT_POINT, own_groups: Path = OWN_GROUPS) -> Cgroups:
        """Return the best that this process may write to."""
        for attempt in (_detect_unified, _detect_by_controller):
            with contextlib.suppress(OSError):
                found = attempt(mount_point, own_groups)
                if found and all(os.access(parent, os.W_OK) for parent in found.parents):
                    return found
        logger.warning("no writable cgroups: tasks run without memory and cpu limits")
        return cls(0)

    def create(self, name: str, *, memory_bytes_max: int, nano_cpus_max: int) -> Sequence[Path]:
        """Make the groups of task `name` with these limits (0: none) and return them.

        Raises:
            OSError: the kernel refuses a limit; groups may be left behind.
        """
        groups = self._groups(name)
        for group in groups:
            group.mkdir(exist_ok=True)
            for file, value in self._limits(memory_bytes_max, nano_cpus_max).items():
                path = group / file
                if path.exists():
                    path.write_text(value)
        return groups

    def is_out_of_memory(self, name: str) -> bool:
        """Whether the kernel killed something of task `name` for its memory limit."""
        file = "memory.events" if self.version == 2 else "memory.oom_control"  # noqa: PLR2004
        for group in self._groups(name):
            with contextlib.suppress(OSError):
                for line in (group / file).read_text().splitlines():
                    key, _, value = line.partition(" ")
                    if key == "oom_kill" and value != "0":
                        return True
        return False

    def remove(self, name: str) -> None:
        """Remove the groups of task `name`, if they are there and empty."""
        for group in self._groups(name):
            with contextlib.suppress(OSError):
                group.rmdir()

    def _groups(self, name: str) -> list[Path]:
        return [parent / name for parent in self.parents]

    def _limits(self, memory_bytes_max: int, nano_cpus_max: int) -> dict[str, str]:
        """Return values by file, in the order they must be written."""
        memory, quota = str(memory_bytes_max), str(nano_cpus_max * _PERIOD_US // 1_000_000_000)
        limits: dict[str, str] = {}
        match self.version:
            case 0:
                pass
            case 1:
                if memory_bytes_max:
                    limits |= {
                        "memory.limit_in_bytes": memory,
                        "memory.memsw.limit_in_bytes": str(2 * memory_bytes_max),
                    }
                if nano_cpus_max:
                    limits |= {"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": quota}
            case 2:
                if memory_bytes_max:
                    limits |= {"memory.max": memory, "memory.swap.max": memory}
                if nano_cpus_max:
                    limits["cpu.max"] = f"{quota} {_PERIOD_US}"
            case _:
                assert_never(self.version)
        return limits


def _detect_unified(mount_point: Path, own_groups: Path) -> Cgroups | None:  # noqa: ARG001
    for root in (mount_point, mount_point / "unified"):
        controllers = root / "cgroup.controllers"
        if controllers.exists() and set(CONTROLLERS) <= set(controllers.read_text().split()):
            wanted = " ".join(f"+{controller}" for controller in CONTROLLERS)
            (root / "cgroup.subtree_control").write_text(wanted)
            parent = root / PARENT
            parent.mkdir(exist_ok=True)
            (parent / "cgroup.subtree_control").write_text(wanted)
            return Cgroups(2, (parent,))
    return None


def _detect_by_controller(mount_point: Path, own_groups: Path) -> Cgroups | None:
    parents: list[Path] = []
    for line in own_groups.read_text().splitlines():
        _, controllers, own = line.split(":", 2)
        for controller in set(CONTROLLERS) & set(controllers.split(",")):
            # In a container, the path is relative to a root that may not be the mounted one.
            bases = [mount_point / controller / own.strip("/"), mount_point / controller]
            for base in [base for base in bases if (base / "cgroup.procs").exists()][:1]:
                parent = base / PARENT
                parent.mkdir(exist_ok=True)
                parents.append(parent)
    return Cgroups(1, tuple(sorted(parents))) if parents else None
