"""From a forked process to the task's command: namespaces, user, capabilities, exec.

`run` is called once in the process that becomes the command, pid 2 of its pid namespace, and
never returns. Lean: see `launch`.

Invariants: privileges only ever shrink; the command can neither get back what it lost (bounding
set, no_new_privs) nor administer its network namespace (no CAP_NET_ADMIN); no descriptor but the
three standard ones survives exec.
"""
# ruff: noqa: PTH123

from __future__ import annotations

import os
import socket

from cluster.runtime import mounts, syscalls
from cluster.runtime.launch import Launch
from cluster.runtime.rootfs import DEFAULT_PATH, Unrunnable, User, find_command, find_user
from cluster.runtime.syscalls import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUTS

KEPT_CAPABILITIES = (
    0,  # CHOWN
    1,  # DAC_OVERRIDE
    3,  # FOWNER
    4,  # FSETID
    5,  # KILL
    6,  # SETGID
    7,  # SETUID
    8,  # SETPCAP
    10,  # NET_BIND_SERVICE
    13,  # NET_RAW
    18,  # SYS_CHROOT
    29,  # AUDIT_WRITE
    31,  # SETFCAP
)
"""Docker's default set less MKNOD: no device cgroup would confine the devices made with it."""
_CAPABILITY_NUMBERS_MAX = 64


def run(launch: Launch, failure: int) -> None:
    """Become the task's command; why that failed goes to descriptor `failure` as text."""
    text = ""
    try:
        _become(launch)
    except Unrunnable as error:
        text = str(error)
    except OSError as error:
        text = f"{error.filename or launch.arguments[0]}: {(error.strerror or '').lower()}"
    except BaseException as error:  # noqa: BLE001  (nobody else can report it from here)
        text = f"{type(error).__name__}: {error}"
    os.write(failure, text.encode(errors="replace"))
    os._exit(127)


def _become(launch: Launch) -> None:
    os.setsid()
    for group in launch.cgroups:
        with open(f"{group}/cgroup.procs", "w", encoding="ascii") as file:
            file.write("0")
    if launch.sandbox:
        namespace = os.open(launch.sandbox, os.O_RDONLY | os.O_CLOEXEC)
        syscalls.setns(namespace, CLONE_NEWNET)
    syscalls.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC)
    socket.sethostname(launch.hostname)
    mounts.build(launch)
    user = find_user("", launch.user)
    environment = _environment(launch, user)
    _reduce_privileges(launch, user)
    _enter_directory(launch.working_directory)
    os.umask(0o022)
    program = find_command(
        "",
        launch.arguments[0],
        search_path=environment["PATH"],
        working_directory=launch.working_directory,
    )
    os.execve(program, launch.arguments, environment)  # noqa: S606  (that is the point)


def _environment(launch: Launch, user: User) -> dict[str, str]:
    minimal = {"PATH": DEFAULT_PATH, "HOSTNAME": launch.hostname, "HOME": user.home}
    return minimal | dict(launch.environment)


def _reduce_privileges(launch: Launch, user: User) -> None:
    kept = 0
    for capability in range(_CAPABILITY_NUMBERS_MAX):
        if capability in KEPT_CAPABILITIES:
            kept |= 1 << capability
        elif not syscalls.drop_bounding_capability(capability):
            break
    if launch.user:
        _change_user(launch, user)
    # A process that is no longer root lost its capabilities with its user id.
    syscalls.set_capabilities(kept if os.geteuid() == 0 else 0)
    syscalls.set_no_new_privileges()


def _change_user(launch: Launch, user: User) -> None:
    try:
        if (os.geteuid(), os.getegid()) != (user.uid, user.gid):
            os.setgroups(user.groups)
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
    except OSError as error:
        text = f"cannot run as user {launch.user}: {(error.strerror or '').lower()}"
        raise Unrunnable(f"{text}; a daemon without root has only its own user") from error


def _enter_directory(path: str) -> None:
    try:
        os.chdir(path)
    except OSError as error:
        raise Unrunnable(f'working directory "{path}": {(error.strerror or "").lower()}') from error
