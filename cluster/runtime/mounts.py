"""What a task sees of the file system: its root, /proc, /dev, /sys, /etc files, secrets.

Driven once, by the task's own process in a fresh mount namespace, before it drops its
privileges. Lean: see `launch`; hence os.path and not pathlib.

Everything is mounted at its place below the future root and the root is entered last, so that
sources and targets are both plain paths of the machine.

Invariants: nothing is written to the machine's file system except missing mount points of /run
and of an image without a layer. What cannot be had without privilege is left out; only the root
itself, /proc and secrets are indispensable.
"""
# ruff: noqa: PTH102, PTH103, PTH108, PTH110, PTH112, PTH114, PTH123, PTH211

from __future__ import annotations

import os

from cluster.runtime import syscalls
from cluster.runtime.launch import Launch
from cluster.runtime.rootfs import Unrunnable, resolve
from cluster.runtime.syscalls import (
    MNT_DETACH,
    MS_BIND,
    MS_MOVE,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
)

ETC_FILES = ("resolv.conf", "hosts", "hostname")
"""Files of the task's directory that are bound into /etc."""
SECRETS = "/run/secrets"
DEVICES_MOUNT_POINT = "dev"
"""Directory in the task's directory where its /dev is put together."""
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEVICE_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
_READ_ONLY = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs")
_MASKED = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/acpi")
"""Both after runc's default specification."""
_QUIET = MS_NOSUID | MS_NODEV | MS_NOEXEC
_LOCKED = (
    (os.ST_NOSUID, MS_NOSUID),
    (os.ST_NODEV, MS_NODEV),
    (os.ST_NOEXEC, MS_NOEXEC),
    (os.ST_RDONLY, MS_RDONLY),
)
"""Mount flags that a remount in a user namespace must repeat (mount_namespaces(7))."""


def build(launch: Launch) -> None:
    """Turn the fresh mount namespace of this process into the one of the task."""
    syscalls.mount("none", "/", "", MS_REC | MS_PRIVATE)
    root = launch.root
    if root:
        _mount_root(launch)
    _mount_proc(root)
    _mount_devices(launch)
    _mount_sys(root)
    _bind_etc(launch)
    if launch.secrets:
        _mount_secrets(launch)
    for path in launch.hidden:
        if not root and os.path.isdir(path):
            syscalls.mount("tmpfs", path, "tmpfs", _QUIET | MS_RDONLY, "size=4k,mode=0000")
    if root:
        _enter_root(root)


def _mount_root(launch: Launch) -> None:
    """Mount the image on itself: through a private layer where the file systems allow it."""
    if launch.layer and not any(character in launch.root + launch.layer for character in ",:\\"):
        upper, work = f"{launch.layer}/upper", f"{launch.layer}/work"
        os.makedirs(upper, exist_ok=True)
        os.makedirs(work, exist_ok=True)
        options = f"lowerdir={launch.root},upperdir={upper},workdir={work}"
        for more in ("", ",userxattr"):
            if _try_mount("overlay", launch.root, "overlay", MS_NODEV, options + more):
                return
    syscalls.mount(launch.root, launch.root, "", MS_BIND | MS_REC)


def _enter_root(root: str) -> None:
    old = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    os.chdir(root)
    syscalls.pivot_root(".", ".")  # the old root lies on top now: no directory needed for it
    os.fchdir(old)
    os.close(old)
    syscalls.mount("none", ".", "", MS_REC | MS_PRIVATE)
    syscalls.unmount(".", MNT_DETACH)
    os.chdir("/")


def _mount_proc(root: str) -> None:
    target = _directory(root, "/proc")
    if not _try_mount("proc", target, "proc", _QUIET):
        # Another container's masks on /proc forbid a fresh one in a user namespace: the pids
        # that the task sees there are the machine's.
        if root:
            syscalls.mount("/proc", target, "", MS_BIND | MS_REC)
        return
    for path in _READ_ONLY:
        _make_read_only(root + path)
    for path in _MASKED:
        if os.path.isdir(root + path):
            _try_mount("tmpfs", root + path, "tmpfs", _QUIET | MS_RDONLY, "size=4k")
        elif os.path.exists(root + path):
            _try_mount("/dev/null", root + path, "", MS_BIND)


def _mount_devices(launch: Launch) -> None:
    """Give the task the devices of a container, not the machine's disks."""
    built = f"{launch.directory}/{DEVICES_MOUNT_POINT}"
    os.makedirs(built, exist_ok=True)
    flags = MS_NOSUID | MS_NOEXEC
    syscalls.mount("tmpfs", built, "tmpfs", flags, "mode=0755,size=64k")
    for name in _DEVICES:
        _touch(f"{built}/{name}")
        _try_mount(f"/dev/{name}", f"{built}/{name}", "", MS_BIND)
    for name, target in _DEVICE_LINKS:
        os.symlink(target, f"{built}/{name}")
    os.mkdir(f"{built}/shm")
    syscalls.mount("shm", f"{built}/shm", "tmpfs", _QUIET, "mode=1777,size=64m")
    os.mkdir(f"{built}/pts")
    options = "newinstance,ptmxmode=0666,mode=0620"
    _try_mount("devpts", f"{built}/pts", "devpts", MS_NOSUID | MS_NOEXEC, options)
    syscalls.mount(built, _directory(launch.root, "/dev"), "", MS_MOVE)


def _mount_sys(root: str) -> None:
    """Show the devices of the task's own network namespace, read-only."""
    target = _directory(root, "/sys")
    if not _try_mount("sysfs", target, "sysfs", _QUIET | MS_RDONLY):
        # Not ours to mount: the namespace belongs to another user namespace.
        if root and not _try_mount("/sys", target, "", MS_BIND | MS_REC):
            return
        _make_read_only(target)


def _bind_etc(launch: Launch) -> None:
    for name in ETC_FILES:
        source = f"{launch.directory}/{name}"
        if os.path.exists(source):
            target = resolve(launch.root, f"/etc/{name}")
            if not os.path.exists(target):
                target = _make_etc_file(launch, name)
            syscalls.mount(source, target, "", MS_BIND)


def _make_etc_file(launch: Launch, name: str) -> str:
    """Make /etc/`name` where it is missing or a link to nowhere; the machine's /etc stays as is."""
    etc = _directory(launch.root, "/etc")
    if not (launch.root and launch.layer):
        _cover(launch, etc)
    path = f"{etc}/{name}"
    if os.path.islink(path):
        os.unlink(path)
    _touch(path)
    return path


def _mount_secrets(launch: Launch) -> None:
    target = resolve(launch.root, SECRETS)
    try:
        os.makedirs(target, exist_ok=True)
    except OSError:
        _cover(launch, _directory(launch.root, "/run"))
        os.makedirs(target, exist_ok=True)
    syscalls.mount("tmpfs", target, "tmpfs", _QUIET, "mode=0755,size=64m")
    for name, content in launch.secrets:
        path = f"{target}/{name}"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        os.fchmod(file, 0o444)  # whatever the umask; Docker's mode
        with open(file, "wb") as stream:
            stream.write(content)
    syscalls.mount("none", target, "", MS_REMOUNT | MS_BIND | _QUIET | MS_RDONLY)


def _cover(launch: Launch, directory: str) -> None:
    """Let this task write in `directory` of the machine without changing it."""
    cover = f"{launch.directory}/cover"
    os.makedirs(cover, exist_ok=True)
    syscalls.mount("tmpfs", cover, "tmpfs", _QUIET, "mode=0755,size=4m")
    os.mkdir(f"{cover}/upper")
    os.mkdir(f"{cover}/work")
    options = f"lowerdir={directory},upperdir={cover}/upper,workdir={cover}/work"
    for more in ("", ",userxattr"):
        if _try_mount("overlay", directory, "overlay", 0, options + more):
            return
    raise Unrunnable(f"{directory} lacks a file that the task needs, and an overlay on it failed")


def _make_read_only(path: str) -> None:
    if not os.path.exists(path) or not _try_mount(path, path, "", MS_BIND | MS_REC):
        return
    current = os.statvfs(path).f_flag
    locked = sum(mount for flag, mount in _LOCKED if current & flag)
    _try_mount("none", path, "", MS_REMOUNT | MS_BIND | MS_RDONLY | locked)


def _try_mount(source: str, target: str, kind: str, flags: int, data: str = "") -> bool:
    try:
        syscalls.mount(source, target, kind, flags, data)
    except OSError:
        return False
    return True


def _directory(root: str, path: str) -> str:
    """Return the machine's path of directory `path` of the root, made if it was missing."""
    found = resolve(root, path)
    os.makedirs(found, exist_ok=True)
    return found


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
