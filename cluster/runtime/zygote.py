"""The zygote: a small process of the daemon's that forks the supervisor of each task.

Forking one warm interpreter costs a task a few milliseconds and shares most of its memory;
starting an interpreter for each task cost 40 ms and 10 MB. `cluster.runtime.launcher` starts the
zygote and sends it one end of a socket pair per task; the supervisor reads its `Launch` from that
socket and answers on it. The zygote itself never reads one, so that no task inherits the secrets
of another. It ends with the daemon; the supervisors do not.

Lean: see `launch`.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket

from cluster.runtime import supervisor, syscalls
from cluster.runtime.launch import HEADER, LAUNCH_BYTES_MAX, Launch, decode


def serve(control: socket.socket) -> None:
    """Fork a supervisor for each socket that arrives on `control`, until that is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the daemon's
    os.chdir("/")
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])  # what the daemon let through
    gc.collect()
    gc.freeze()  # without cyclic collections, pages stay shared between the supervisors
    gc.disable()
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not data:
            return
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
            if os.fork() == 0:
                control.close()
                _become_supervisor(descriptor)
            os.close(descriptor)


def _become_supervisor(descriptor: int) -> None:
    """Run a supervisor that talks to the daemon on socket `descriptor`; never returns."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        with socket.socket(fileno=descriptor) as daemon:
            launch = _receive(daemon)
            _discard_standard_streams()
            code = _run_in_pid_namespace(launch, daemon)
    finally:
        os._exit(code)


def _run_in_pid_namespace(launch: Launch, daemon: socket.socket) -> int:
    try:
        syscalls.unshare(syscalls.CLONE_NEWPID)
    except OSError as error:
        text = f"cannot make namespaces: {(error.strerror or '').lower()}"
        daemon.sendall(f"{text}; run as root or in a user namespace (unshare -Urnm)".encode())
        return 1
    if os.fork():
        return 0  # our child is pid 1 of the new namespace; we stay in the old one
    return supervisor.supervise(launch, daemon)


def _receive(daemon: socket.socket) -> Launch:
    (length,) = HEADER.unpack(_receive_exactly(daemon, HEADER.size))
    if length > LAUNCH_BYTES_MAX:
        raise ValueError(f"a launch of {length} bytes is a bug")
    return decode(_receive_exactly(daemon, length))


def _receive_exactly(daemon: socket.socket, length: int) -> bytes:
    data = daemon.recv(length, socket.MSG_WAITALL)
    if len(data) < length:
        raise EOFError("the daemon went away")
    return data


def _discard_standard_streams() -> None:
    """Let go of the daemon's streams: the supervisor outlives whoever reads them."""
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
