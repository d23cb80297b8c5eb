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
from cluster.runtime.supervisor import STARTED, has_hung_up

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
        request = encode(launch)
        async with self._turns:
            zygote = self._running_zygote()
            answer = await _ask(zygote, request)
            if not answer and _is_abandoned(zygote):
                self._bury(zygote)
                answer = await _ask(self._running_zygote(), request)
        if answer != STARTED:
            raise RuntimeFailure(answer.decode(errors="replace") or "the task's supervisor died")

    @property
    def pid(self) -> int:
        """The zygote's; 0: none was needed yet."""
        return self._pid

    async def close(self) -> None:
        """End the zygote; tasks are not touched."""
        if self._control is not None:
            self._control.close()
            self._control = None
            await wait_for_end(os.pidfd_open(self._pid))

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

    def _bury(self, zygote: socket.socket) -> None:
        """Reap a dead zygote, unless another launch did so."""
        if self._control is zygote:
            zygote.close()
            self._control = None
            os.waitpid(self._pid, 0)


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


async def _ask(zygote: socket.socket, request: bytes) -> bytes:
    """Return a new supervisor's answer to `request`; empty: it or the zygote died."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    with theirs:
        try:
            socket.send_fds(zygote, [b"\0"], [theirs.fileno()])
        except ConnectionError:
            ours.close()
            return b""
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            return await _converse(ours, request)
    except TimeoutError:
        raise RuntimeFailure(f"the task did not start in {START_TIMEOUT_S:g} s") from None
    except ConnectionError:
        return b""


def _is_abandoned(zygote: socket.socket) -> bool:
    """Whether nobody is at the other end any more, dead or about to be, or we closed our own."""
    return zygote.fileno() < 0 or has_hung_up(zygote)


async def _converse(ours: socket.socket, request: bytes) -> bytes:
    """Send `request` and return everything that is answered; hangs up in any case."""
    reader, writer = await asyncio.open_connection(sock=ours, limit=_ANSWER_BYTES_MAX)
    try:
        writer.write(request)
        await writer.drain()
        return await reader.read(_ANSWER_BYTES_MAX)
    finally:
        with contextlib.suppress(OSError):
            ours.shutdown(socket.SHUT_RDWR)  # at once: `close` takes effect later
        writer.close()
