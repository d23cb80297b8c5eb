"""What every task runtime (process, memory; later podman, docker) must do.

A runtime runs attempts: it never restarts anything by itself, and knows no networks beyond the
path of the network namespace it is given. Whatever it starts survives the daemon; `adopt` finds it
again after a restart.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cluster.model.logs import LogStream


class RuntimeFailure(Exception):
    """The task cannot run: bad image, command not found, no space. It is REJECTED or FAILED."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that a task wrote."""

    stream: LogStream
    written_at_ns: int
    """Unix time, nanoseconds."""
    data: bytes
    """The line with its newline, if it had one; <= 16 KiB (longer lines are cut in pieces)."""


@dataclass(frozen=True, slots=True)
class Execution:
    """Everything a runtime needs to run one task."""

    task_id: str
    name: str
    """`web.1.<task id>`, for people."""
    image: str
    """`host` (the machine's own file system) or a directory that is the root file system."""
    command: tuple[str, ...]
    """Argument list; empty is refused by the process runtime."""
    environment: tuple[tuple[str, str], ...] = ()
    working_directory: str = ""
    """Empty: `/`."""
    hostname: str = ""
    """Empty: the first 12 characters of the task's id."""
    user: str = ""
    """`name`, `uid`, `uid:gid`; empty: the daemon's user."""
    stop_signal: str = "SIGTERM"
    stop_grace_s: float = 10.0
    init_hosts: tuple[tuple[str, str], ...] = ()
    """Extra (address, name) lines of /etc/hosts; the task's own addresses are among them."""
    dns_server: str = "127.0.0.11"
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ("ndots:0",)
    memory_bytes_max: int = 0
    """0: no limit."""
    nano_cpus_max: int = 0
    """Billionths of a core; 0: no limit."""
    secrets: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    """(file name under /run/secrets, content), on tmpfs."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a task's process ended."""

    code: int
    """Exit code; 128 + signal when killed by one."""
    message: str = ""
    """For people, empty when the code says it all."""


class Runtime(Protocol):
    """Runs tasks. Every method is idempotent: asking again for what is done does nothing."""

    async def prepare(self, execution: Execution) -> None:
        """Make ready to start: check image and command, make directories and files.

        Raises:
            RuntimeFailure: it can never start as asked; nothing is left behind.
        """
        ...

    async def start(self, execution: Execution, sandbox: Path | None) -> int:
        """Start the task in the network namespace at `sandbox` and return its pid on this node.

        None: in the daemon's own. A task that has ended is not started again; its pid is 0.

        Raises:
            RuntimeFailure: it did not start; nothing is left running.
        """
        ...

    async def wait(self, task_id: str) -> Exit:
        """Wait until the task has ended, also when an earlier daemon started it.

        Raises:
            RuntimeFailure: it was never started.
        """
        ...

    async def stop(self, task_id: str, *, signal: str, grace_s: float) -> None:
        """Send `signal`, and after `grace_s` kill everything of the task; return when it ended.

        `signal`: `SIGTERM`, `TERM` or `15`.

        Raises:
            RuntimeFailure: there is no such signal; the task was not touched.
        """
        ...

    async def remove(self, task_id: str) -> None:
        """Kill what still runs and delete everything kept for the task, logs included."""
        ...

    async def adopt(self) -> Sequence[str]:
        """Return the ids of all tasks that this runtime keeps anything for, running or ended."""
        ...

    async def close(self) -> None:
        """Let go of everything that this process holds; tasks keep running."""
        ...

    def logs(
        self, task_id: str, *, follow: bool, tail: int | None, since_ns: int
    ) -> AsyncGenerator[LogLine]:
        """Yield what the task wrote, oldest first; `tail`: only the last so many lines, None: all.

        With `follow`, go on until the task ends. Bounded: old output was rotated away.
        """
        ...
