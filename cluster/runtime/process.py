"""Tasks as processes of this machine, confined by namespaces; the default runtime.

Driven by the agent through `Runtime`. Everything known of a task is in its directory and in the
kernel, nothing in this object, so a daemon that starts again sees what its killed predecessor
saw: `adopt` lists directories, and every other method works on an adopted task as on its own.

A task's directory (0700, named by the task's id) holds: `resolv.conf`, `hosts`, `hostname` (bound
into its /etc), `output*` (its log), `alive` (locked while it runs) and `exit` (how it ended).

Control groups are made and removed by threads: the kernel does that for one after the other, and
took over two seconds where eight daemons of one machine started 150 tasks, in which nothing else
of a node would have been answered.

Invariants: a task that was started, runs no more and has no exit was killed with its supervisor
or by the end of the machine. Secrets are never written to the directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import struct
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from cluster.runtime import prepare, supervisor
from cluster.runtime.base import Execution, Exit, LogLine, RuntimeFailure
from cluster.runtime.cgroups import Cgroups
from cluster.runtime.launch import Launch
from cluster.runtime.launcher import Launcher, wait_for_end
from cluster.runtime.logs import read_logs

KILL_TIMEOUT_S = 5.0
"""For a supervisor that was asked to end its task; then it is killed itself."""
_FLOCK = struct.Struct("hhqqi4x")
"""struct flock of 64-bit Linux: type, whence, start, length, pid (fcntl(2))."""
_LAYER = "layer"
_THREADS = 2
"""For what the kernel takes long for."""

T = TypeVar("T")


class ProcessRuntime:
    """Runs tasks as processes; keeps everything in one directory."""

    def __init__(
        self,
        directory: Path,
        *,
        hidden: Sequence[Path] = (),
        cgroups: Cgroups | None = None,
        launcher: Launcher | None = None,
    ) -> None:
        """Use `directory`, made if missing.

        Args:
            directory: this runtime's alone; tasks do not see it.
            hidden: other directories that tasks must not see: those with the node's secrets.
            cgroups: None: what the machine lets us write to.
            launcher: None: one of its own.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory.resolve()
        self._hidden = tuple(str(path.resolve()) for path in (directory, *hidden))
        self._cgroups = Cgroups.detect() if cgroups is None else cgroups
        self._launcher = Launcher() if launcher is None else launcher
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="runtime")

    async def close(self) -> None:
        """Let go of everything; tasks keep running."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._launcher.close()

    async def prepare(self, execution: Execution) -> None:
        """See `Runtime.prepare`."""
        prepare.check(execution)
        directory = self._task_directory(execution.task_id)
        if (directory / supervisor.ALIVE).exists():
            return
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            for name, text in prepare.etc_files(execution).items():
                path = directory / name
                path.write_text(text)
                path.chmod(0o644)  # every user of the task reads it; the directory keeps it ours
        except OSError as error:
            shutil.rmtree(directory, ignore_errors=True)
            raise RuntimeFailure(f"cannot prepare the task: {error}") from error

    async def start(self, execution: Execution, sandbox: Path | None) -> int:
        """See `Runtime.start`; the pid is the supervisor's, 0 when the task has ended already."""
        directory = self._task_directory(execution.task_id)
        if not directory.is_dir():
            raise RuntimeFailure(f"task {execution.task_id} was not prepared")
        if not (directory / supervisor.ALIVE).exists():
            try:
                await self._launch(execution, directory, sandbox)
            except asyncio.CancelledError:
                self._abandon(directory)  # `remove` sees to its groups
                raise
            except RuntimeFailure:
                self._abandon(directory)
                await self._remove_groups(execution.task_id)
                raise
        return supervisor_pid(directory)

    async def wait(self, task_id: str) -> Exit:
        """See `Runtime.wait`."""
        directory = self._task_directory(task_id)
        if not (directory / supervisor.ALIVE).exists():
            raise RuntimeFailure(f"task {task_id} was not started")
        while (pidfd := _open_supervisor(directory)) is not None:
            await wait_for_end(pidfd)
        return self._exit(task_id)

    async def stop(self, task_id: str, *, signal: str, grace_s: float) -> None:
        """See `Runtime.stop`."""
        number = prepare.signal_number(signal)
        directory = self._task_directory(task_id)
        if not await _ends_after(directory, number, grace_s) and not await _ends_after(
            directory, supervisor.KILL_ALL, KILL_TIMEOUT_S
        ):
            self._kill(directory)
            await self.wait(task_id)

    async def remove(self, task_id: str) -> None:
        """See `Runtime.remove`."""
        await self.stop(task_id, signal="SIGKILL", grace_s=KILL_TIMEOUT_S)
        await self._remove_groups(task_id)
        await _delete_tree(self._task_directory(task_id))

    async def adopt(self) -> Sequence[str]:
        """See `Runtime.adopt`."""
        return sorted(path.name for path in self._directory.iterdir() if path.is_dir())

    def logs(
        self, task_id: str, *, follow: bool, tail: int | None, since_ns: int
    ) -> AsyncGenerator[LogLine]:
        """See `Runtime.logs`."""
        directory = self._task_directory(task_id)
        return read_logs(
            directory,
            is_ended=lambda: _has_ended(directory),
            follow=follow,
            tail=tail,
            since_ns=since_ns,
        )

    def _task_directory(self, task_id: str) -> Path:
        if not prepare.is_task_id(task_id):
            raise RuntimeFailure(f"{task_id!r} is no task id")
        return self._directory / task_id

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def _remove_groups(self, task_id: str) -> None:
        await self._in_thread(partial(self._cgroups.remove, task_id))

    async def _launch(self, execution: Execution, directory: Path, sandbox: Path | None) -> None:
        limits = {
            "memory_bytes_max": execution.memory_bytes_max,
            "nano_cpus_max": execution.nano_cpus_max,
        }
        make = partial(self._cgroups.create, execution.task_id, **limits)
        try:
            groups = await self._in_thread(make)
            await self._launcher.launch(self._launch_of(execution, directory, sandbox, groups))
        except OSError as error:
            raise RuntimeFailure(f"cannot start the task: {error}") from error

    def _launch_of(
        self,
        execution: Execution,
        directory: Path,
        sandbox: Path | None,
        groups: Sequence[Path],
    ) -> Launch:
        root = prepare.image_root(execution.image)
        return Launch(
            directory=str(directory),
            sandbox=str(sandbox) if sandbox else "",
            root=root,
            layer=str(directory / _LAYER) if root else "",
            working_directory=execution.working_directory or "/",
            hostname=prepare.hostname(execution),
            user=execution.user,
            arguments=execution.command,
            cgroups=tuple(map(str, groups)),
            hidden=self._hidden,
            environment=execution.environment,
            secrets=execution.secrets,
        )

    def _exit(self, task_id: str) -> Exit:
        try:
            text = (self._task_directory(task_id) / supervisor.EXIT).read_text()
        except FileNotFoundError:
            return Exit(128 + signal.SIGKILL, "the task was killed together with its supervisor")
        if self._cgroups.is_out_of_memory(task_id):
            return Exit(int(text), "out of memory: over the task's memory limit")
        return Exit(int(text))

    def _abandon(self, directory: Path) -> None:
        """Undo a start that did not succeed, but for its groups."""
        self._kill(directory)
        (directory / supervisor.ALIVE).unlink(missing_ok=True)

    def _kill(self, directory: Path) -> None:
        """Kill a supervisor, and with it, by the kernel, everything of its task."""
        if (pidfd := _open_supervisor(directory)) is not None:
            _send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)


async def _ends_after(directory: Path, number: int, timeout_s: float) -> bool:
    """Send a signal to a task, if it runs, and return whether it ended within `timeout_s`."""
    pidfd = _open_supervisor(directory)
    if pidfd is None:
        return True
    _send_signal(pidfd, supervisor.KILL_ALL if number == signal.SIGKILL else number)
    try:
        async with asyncio.timeout(timeout_s):
            await wait_for_end(pidfd)
    except TimeoutError:
        return False
    return True


def _send_signal(pidfd: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def _has_ended(directory: Path) -> bool:
    return not (directory / supervisor.ALIVE).exists() or not supervisor_pid(directory)


def _open_supervisor(directory: Path) -> int | None:
    """Return a pidfd of the task's supervisor; None: the task does not run."""
    while pid := supervisor_pid(directory):
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue  # it ended in between and gave up its lock
        if supervisor_pid(directory) == pid:
            return pidfd  # it held the lock before and after: the pid cannot have changed hands
        os.close(pidfd)
    return None


def supervisor_pid(directory: Path) -> int:
    """Return the pid of the process that holds the task's lock; 0: nobody does."""
    try:
        file = os.open(directory / supervisor.ALIVE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        query = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, query))
        return 0 if kind == fcntl.F_UNLCK else int(pid)
    finally:
        os.close(file)


async def _delete_tree(directory: Path) -> None:
    """Delete `directory` and all in it, giving way now and then: a task's layer can be large."""
    work = directory / _LAYER / "work" / "work"
    if work.exists():
        work.chmod(0o700)  # the overlay made it with mode 0
    for path, _, files in os.walk(directory, topdown=False):
        _delete_directory(Path(path), files)
        await asyncio.sleep(0)


def _delete_directory(path: Path, files: Sequence[str]) -> None:
    """Delete a directory that holds nothing but `files` and links."""
    for name in files:
        (path / name).unlink()
    for link in path.iterdir():
        link.unlink()  # to a directory, which is why it was not among the files
    path.rmdir()
