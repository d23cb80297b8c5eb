"""The supervisor of one task: pid 1 of its pid namespace, which outlives the daemon.

It starts the command as pid 2, keeps its output, passes signals on to it (a pid namespace's first
process would ignore them), reaps orphans and records how the command ended. It stays in the
machine's own mount and network namespaces; only the command is confined.

Driven by `supervise`, which `zygote` calls in a fork. Lean: see `launch`; hence os.path and not
pathlib. All that the daemon learns of a task after its start is in the task's directory.

Invariants:
    - The supervisor holds a POSIX lock on `ALIVE` for its life; so a later process with the same
      pid is never taken for it, even where /proc shows other pids than ours.
    - When it dies, for whatever reason, the kernel kills everything in the pid namespace.
    - `EXIT` appears atomically, after the last output was written.
    - A start that the daemon gave up, or did not live to see, does not happen: the daemon hangs up
      before it looks who holds the lock, and the supervisor looks for that once it holds it.
"""

# ruff: noqa: PTH104, PTH108, PTH119, PTH120, PTH123

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import time

from cluster.runtime import framing, isolation, syscalls
from cluster.runtime.framing import LogWriter
from cluster.runtime.launch import Launch

ALIVE = "alive"
"""Lock file, held while the supervisor lives; exists from the start on."""
EXIT = "exit"
"""Exit code in decimal; exists when the task has ended."""
KILL_ALL = 64
"""SIGRTMAX, sent to a supervisor: kill the task and finish in good order. Reserved for that."""
STARTED = b"started"
"""The whole answer when the command runs; any other answer is the reason why it does not."""

_READ_BYTES_MAX = 64 * 1024
_OWN_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
_UNCATCHABLE = {signal.SIGKILL, signal.SIGSTOP}


def supervise(launch: Launch, daemon: socket.socket) -> int:
    """Run the task of `launch` to its end and return this process's exit code.

    `daemon` gets one answer, when the command runs or could not be started.
    """
    if os.getpid() != 1:
        raise RuntimeError(
            "in the end it kills all that it can reach: it must be a namespace's first"
        )
    directory = launch.directory
    syscalls.set_name(f"hw-{os.path.basename(directory)}")
    syscalls.set_undumpable()
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    alive = os.open(f"{directory}/{ALIVE}", flags, 0o600)
    try:
        fcntl.lockf(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        daemon.sendall(b"the task is running already")
        return 1
    if has_hung_up(daemon):
        os.unlink(f"{directory}/{ALIVE}")
        return 1
    wake = _catch_signals()
    command, outputs, failure = _start(launch)
    if failure:
        os.unlink(f"{directory}/{ALIVE}")
        daemon.sendall(failure)
        return 1
    with contextlib.suppress(OSError):  # a daemon that died meanwhile will adopt the task
        daemon.sendall(STARTED)
    daemon.close()
    launch.secrets = ()
    _Supervision(command, outputs, LogWriter(directory)).run(wake, f"{directory}/{EXIT}")
    return 0


def has_hung_up(peer: socket.socket) -> bool:
    """Return whether nobody is at the other end any more; takes nothing of what was sent."""
    try:
        return not peer.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def _catch_signals() -> int:
    """Turn every signal into a byte, its number, on the descriptor returned."""
    wake, noted = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(noted, warn_on_full_buffer=False)
    for number in signal.valid_signals() - _OWN_FAULTS - _UNCATCHABLE:
        signal.signal(number, _note)
    return wake


def _note(number: int, frame: object) -> None:
    """Do nothing: a handler has to exist for the byte to be written."""


def _start(launch: Launch) -> tuple[int, dict[int, int], bytes]:
    """Return the command's pid, its output pipes by stream, and why it failed to start."""
    failure, failed = os.pipe2(os.O_CLOEXEC)
    stdout, stdout_in = os.pipe2(os.O_CLOEXEC)
    stderr, stderr_in = os.pipe2(os.O_CLOEXEC)
    command = os.fork()
    if command == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores them, and exec would
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # hand that down
        os.dup2(stdout_in, 1)
        os.dup2(stderr_in, 2)
        isolation.run(launch, failed)
    for descriptor in (failed, stdout_in, stderr_in):
        os.close(descriptor)
    with open(failure, "rb") as reader:
        reason = reader.read()  # ends when exec closes the other end
    for descriptor in (stdout, stderr):
        os.set_blocking(descriptor, False)
    return command, {stdout: framing.STDOUT, stderr: framing.STDERR}, reason


class _Supervision:
    """A running command, its pipes and its log."""

    def __init__(self, command: int, outputs: dict[int, int], log: LogWriter) -> None:
        self._command = command
        self._outputs = outputs
        self._log = log
        self._status: int | None = None

    def run(self, wake: int, exit_path: str) -> None:
        """Serve the command until it ends, then kill what it left behind and record its exit."""
        poll = select.poll()
        for descriptor in (wake, *self._outputs):
            poll.register(descriptor, select.POLLIN)
        self._reap()  # it may have ended before its signal could be caught
        while self._status is None:
            for descriptor, _ in poll.poll():
                if descriptor == wake:
                    self._handle_signals(os.read(wake, _READ_BYTES_MAX))
                elif not self._read(descriptor):
                    poll.unregister(descriptor)
        _kill_all()
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()
        for descriptor in self._outputs:
            while self._read(descriptor):
                pass
        self._log.close(time.time_ns())
        _write_durably(exit_path, b"%d\n" % _exit_code(self._status))

    def _handle_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGCHLD:
                self._reap()
            elif number == KILL_ALL:
                _kill_all()
            elif self._status is None:
                os.kill(self._command, number)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == self._command:
                    self._status = status
                if pid in (0, self._command):
                    return

    def _read(self, descriptor: int) -> bool:
        """Keep what the command wrote; False: nothing there, or nothing will come any more."""
        try:
            data = os.read(descriptor, _READ_BYTES_MAX)
        except BlockingIOError:
            return False
        self._log.write(self._outputs[descriptor], data, time.time_ns())
        return bool(data)


def _kill_all() -> None:
    """Kill every process of the pid namespace but this one."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _write_durably(path: str, data: bytes) -> None:
    temporary = f"{path}.new"
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(directory)
    os.close(directory)
