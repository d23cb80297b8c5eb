"""Starting and ending a local cluster, from outside its namespaces."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from cluster.local.control import Request, ask
from cluster.local.host_network import hold_free, lowest_port, wait_until_free
from cluster.local.layout import Layout, load, make_layout, save
from cluster.model.errors import ClusterError, Invalid, Unavailable
from cluster.runtime.cgroups import Cgroups

NOT_FORWARDED = (
    "published ports do not answer on this machine (this cluster's `local up` was killed before it "
    "was done, or its forwarder has ended)"
)
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 15.0


def start(
    directory: Path, managers: int, workers: int, *, progress: Callable[[str], object]
) -> Layout:
    """Start a local cluster and return its layout once all its nodes are ready.

    progress: is told every step, one line each.

    Raises:
        ClusterError: there is one already, or it did not come up (then nothing is left).
    """
    layout = make_layout(directory, managers, workers)
    _refuse_others_files(layout)
    if layout.file.exists():
        if _is_answering(layout):
            trouble = "" if is_forwarded(layout) else f", but {NOT_FORWARDED}"
            raise ClusterError(
                f"a local cluster runs in {directory}{trouble}: `hivewire local down` first"
            )
        with contextlib.suppress(Invalid):  # what a power loss left of its file
            stop(load(directory))
    network, holder = hold_free()
    with holder, _hold_lock(layout) as lock:
        port_min = lowest_port()
        layout = replace(layout, host_network=network, published_port_min=port_min)
        save(layout)
        supervisor = _spawn_supervisor(layout)
        try:
            _wait_until_ready(layout, supervisor, progress)
        except KeyboardInterrupt:
            holder.close()
            stop(layout)
            raise
        except ClusterError:
            holder.close()
            tail = layout.supervisor_log.read_text(errors="replace").splitlines()[-5:]
            stop(layout, keep_logs=True)
            if tail:
                progress("the supervisor's last words:\n  " + "\n  ".join(tail))
            raise
        _spawn_forwarder(layout, holder, lock)
    return layout


def is_forwarded(layout: Layout) -> bool:
    """Return whether published ports answer on the host, or a `local up` sees to that.

    False: it was killed before it had come so far, or the forwarder has ended.
    """
    try:
        with layout.forwarder_lock.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def stop(layout: Layout, *, keep_logs: bool = False) -> None:
    """End a local cluster, whatever is left of it, and delete what it kept.

    Everything in it dies with process 1 of its PID namespace; only files and control groups
    outlive that, and are removed here.
    """
    with contextlib.suppress(ClusterError):
        ask(layout.control_socket, Request(do="stop"))
    holder = _holder(layout)
    if holder is not None:
        _kill_and_wait(holder)
    _remove_groups(layout)
    wait_until_free(layout.host_network)
    if keep_logs:
        layout.file.unlink(missing_ok=True)
    else:
        shutil.rmtree(layout.directory, ignore_errors=True)


def _refuse_others_files(layout: Layout) -> None:
    """Raise Invalid if there are files that are not ours: `stop` deletes the directory whole."""
    found = {path.name for path in layout.directory.glob("*")}
    if found and not found & {layout.file.name, layout.supervisor_log.name}:
        raise Invalid(
            f"{layout.directory} is not empty, and `hivewire local down` deletes all of it: "
            "name a new directory"
        )


def _remove_groups(layout: Layout) -> None:
    tasks = [path.name for node in layout.nodes for path in layout.tasks(node).glob("*")]
    if tasks and os.geteuid() == 0:
        groups = Cgroups.detect()
        for name in tasks:
            groups.remove(name)


def _hold_lock(layout: Layout) -> TextIO:
    """Return the lock file, locked until its last holder has ended.

    Raises:
        ClusterError: another `local up` is under way there.
    """
    layout.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = layout.forwarder_lock.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise ClusterError(f"another `local up` is under way in {layout.directory}") from error
    return lock


def _is_answering(layout: Layout) -> bool:
    try:
        ask(layout.control_socket, Request(do="status"))
    except Unavailable:
        return False
    except ClusterError:
        return True
    return True


def _spawn_supervisor(layout: Layout) -> int:
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if os.geteuid() != 0:
        command += ["--user", "--map-root-user"]
    command += [sys.executable, "-m", "cluster.local.supervisor", str(layout.directory)]
    pid = _spawn(layout, command)
    _pid_file(layout).write_text(f"{pid} {_start_time(pid)}")
    return pid


def _spawn_forwarder(layout: Layout, *held: socket.socket | TextIO) -> None:
    for it in held:
        os.set_inheritable(it.fileno(), True)  # the forwarder holds it from now on, until it ends
    _spawn(layout, [sys.executable, "-m", "cluster.local.forward", str(layout.directory)])


def _spawn(layout: Layout, command: list[str]) -> int:
    """Start a process that outlives this one, with the supervisor's log as its output."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(layout.supervisor_log), flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawnp(command[0], command, os.environ, file_actions=actions, setsid=True)


def _wait_until_ready(layout: Layout, supervisor: int, progress: Callable[[str], object]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    shown = 0
    while time.monotonic() < deadline:
        if not _is_alive(supervisor):
            raise ClusterError(f"the supervisor ended: see {layout.supervisor_log}")
        with contextlib.suppress(Unavailable):
            answer = ask(layout.control_socket, Request(do="status"))
            for line in answer.progress[shown:]:
                progress(line)
            shown = len(answer.progress)
            if answer.ready:
                return
        time.sleep(0.05)
    raise ClusterError(f"the cluster was not ready in {START_TIMEOUT_S:.0f} s")


def _pid_file(layout: Layout) -> Path:
    return layout.directory / "supervisor.pid"


def _start_time(pid: int) -> str:
    """Return when a process started, in clock ticks since boot (proc(5), field 22)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def _holder(layout: Layout) -> int | None:
    """Return the pid of the `unshare` that holds the cluster, if it still runs."""
    try:
        pid, started = _pid_file(layout).read_text().split()
        return int(pid) if _start_time(int(pid)) == started else None
    except (OSError, ValueError):
        return None


def _kill_and_wait(pid: int) -> None:
    """Kill `unshare`; its child, process 1 of the cluster, is killed with it (--kill-child)."""
    inner = _children(pid)
    for victim in [*inner, pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while time.monotonic() < deadline and any(_is_alive(p) for p in [*inner, pid]):
        time.sleep(0.02)


def _children(pid: int) -> list[int]:
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in listed.split()]


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
