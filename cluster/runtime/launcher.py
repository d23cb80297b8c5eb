"""The daemon's side of the zygote: starts it, sends it tasks, hears how their start went.

Driven by `launch`, once per task. No child watcher and no thread: the zygote is reaped through a
pidfd, and the supervisors are nobody's business here (see `cluster.runtime.supervisor`).

Invariant: at most `LAUNCHES_MAX` starts are under way, so a write to the zygote never blocks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

from cluster.runtime.base import RuntimeFailure
from cluster.runtime.launch import Launch, encode
from cluster.runtime.supervisor import STARTED

LAUNCHES_MAX = 8
"""Starts under way at once; more would only compete for the processor."""
START_TIMEOUT_S = 30.0
"""For a task's start, from the request to its exec; it takes milliseconds."""
_ANSWER_BYTES_MAX = 64 * 1024
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = """\
import socket, sys
sys.path.insert(0, sys.argv[1])
from cluster.runtime.zygote import serve
serve(socket.socket(fileno=0))
"""


class Launcher:
    """One zygote, started when it is first needed and again should it die."""

    def __init__(self) -> None:
        self._control: socket.socket | None = None
        self._pid = 0
        self._turns = asyncio.Semaphore(LAUNCHES_MAX)

    async def launch(self, launch: Launch) -> None:
        """Start a task; return when its command runs.

        Raises:
            RuntimeFailure: it does not, and nothing of it is left running.
        """
        async with self._turns:
            ours = self._request_supervisor()
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    answer = await _converse(ours, encode(launch))
            except TimeoutError:
                raise RuntimeFailure(f"the task did not start in {START_TIMEOUT_S:g} s") from None
            except OSError as error:
                raise RuntimeFailure(f"the task's supervisor broke off: {error}") from error
        if answer != STARTED:
            raise RuntimeFailure(answer.decode(errors="replace") or "the task's supervisor died")

    async def close(self) -> None:
        """End the zygote; tasks are not touched."""
        if self._control is not None:
            self._control.close()
            self._control = None
            await wait_for_end(os.pidfd_open(self._pid))

    def _request_supervisor(self) -> socket.socket:
        """Return the daemon's end of a socket pair whose other end a new supervisor has."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            try:
                socket.send_fds(self._running_zygote(), [b"\0"], [theirs.fileno()])
            except (BrokenPipeError, ConnectionResetError):
                self._bury()
                socket.send_fds(self._running_zygote(), [b"\0"], [theirs.fileno()])
        ours.setblocking(False)
        return ours

    def _running_zygote(self) -> socket.socket:
        if self._control is None:
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                # -I -S: neither the environment nor site-packages; they would cost every task.
                self._pid = os.posix_spawn(
                    sys.executable,
                    [sys.executable, "-I", "-S", "-c", _PROGRAM, str(_PACKAGE_ROOT)],
                    {},
                    file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)],
                    setsigmask=[],
                    setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
                )
        return self._control

    def _bury(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
            os.waitpid(self._pid, 0)  # it closed its end: it is dead or about to be


async def wait_for_end(pidfd: int) -> None:
    """Wait until the process of `pidfd` has ended, reap it if it is our child, close `pidfd`."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
        _reap(pidfd)
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def _reap(pidfd: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)


async def _converse(ours: socket.socket, request: bytes) -> bytes:
    """Send `request` and return everything that is answered; closes `ours`."""
    reader, writer = await asyncio.open_connection(sock=ours, limit=_ANSWER_BYTES_MAX)
    try:
        writer.write(request)
        await writer.drain()
        return await reader.read(_ANSWER_BYTES_MAX)
    finally:
        writer.close()
