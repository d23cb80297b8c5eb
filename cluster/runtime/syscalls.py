"""The Linux calls that Python 3.11 lacks, through the C library; nothing is decided here.

Lean: see `launch`. Every function raises OSError with the call's errno.
Source: the manual pages mount(2), umount2(2), pivot_root(2), setns(2), unshare(2), prctl(2),
capset(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` for new ones."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """Enter the namespace that `descriptor` refers to."""
    _check(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Mount `source` on `target`."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        os.fsencode(kind) if kind else None,
        ctypes.c_ulong(flags),
        os.fsencode(data) if data else None,
    )
    _check(result, target)


def unmount(target: str, flags: int = 0) -> None:
    """Unmount what is mounted on `target`."""
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), target)


def pivot_root(new: str, old: str) -> None:
    """Make `new` the root file system and put the old one on `old`."""
    _check(_libc.pivot_root(os.fsencode(new), os.fsencode(old)), new)


def set_name(name: str) -> None:
    """Show `name`, at most 15 bytes of it, as this process's name."""
    _check(_libc.prctl(ctypes.c_int(_PR_SET_NAME), os.fsencode(name)), "prctl")


def set_undumpable() -> None:
    """Keep this process's memory and /proc entries from everyone without CAP_SYS_PTRACE."""
    _prctl(_PR_SET_DUMPABLE, 0)


def set_no_new_privileges() -> None:
    """Make set-uid programs and file capabilities without effect, for good."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_bounding_capability(capability: int) -> bool:
    """Take `capability` out of the bounding set; False: the kernel knows none of this number."""
    try:
        _prctl(_PR_CAPBSET_DROP, capability)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


def set_capabilities(mask: int) -> None:
    """Make `mask` (bit n: capability n) the effective and permitted set, inherit none."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    data = struct.pack("<6I", low, low, 0, high, high, 0)
    _check(_libc.capset(header, data), "capset")


def _prctl(option: int, argument: int) -> None:
    words = [ctypes.c_ulong(word) for word in (argument, 0, 0, 0)]
    _check(_libc.prctl(ctypes.c_int(option), *words), "prctl")


def _check(result: int, subject: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), subject)
