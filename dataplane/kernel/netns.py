"""Network namespaces: making, pinning, entering and forgetting them.

A namespace is named by the path of a bind mount of its nsfs file, so that it outlives the process
that made it. Work inside one is done by a short-lived thread that calls `setns(2)`: a namespace
is a property of a thread, forking would cost 20 ms, and sockets keep the namespace that they were
opened in and may be used from any thread afterwards.

Invariant: no thread that survives a call of this module has changed its namespace.

Source: namespaces(7), setns(2), network_namespaces(7).
"""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
_MS_BIND = 4096
_MNT_DETACH = 2
_OWN = "/proc/thread-self/ns/net"


def create_namespace(path: Path) -> None:
    """Make a new network namespace and pin it at `path`, a file that must not exist yet.

    Raises:
        OSError: it could not be made or pinned; nothing is left behind.
    """
    path.touch(mode=0o600, exist_ok=False)

    def make() -> None:
        _check(_libc().unshare(CLONE_NEWNET), "unshare", path)
        # The file of the new namespace stays referenced by the mount after this thread ends.
        _mount_bind(_OWN, path)

    try:
        _in_thread(make)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def furnish_namespace(
    path: Path, sysctls: Iterable[tuple[str, str]], furnish: Callable[[], object]
) -> None:
    """Make the namespace at `path` unless it is there, and set `sysctls` and call `furnish` in it.

    May run again over what an interrupted run left.

    Raises:
        OSError: it could not be made or entered, or `furnish` has failed.
    """
    if not is_namespace(path):
        delete_namespace(path)
        create_namespace(path)

    def fill() -> None:
        for name, value in sysctls:
            write_sysctl(name, value)
        furnish()

    run_in_namespace(path, fill)


def delete_namespace(path: Path) -> None:
    """Unpin the namespace at `path`, if it is pinned; it ends with its last process and socket."""
    libc = _libc()
    # EINVAL says that it is a plain file: its creator was killed between touch and mount.
    libc.umount2(os.fsencode(path), _MNT_DETACH)
    path.unlink(missing_ok=True)


def is_namespace(path: Path) -> bool:
    """Return whether a namespace is pinned at `path` (and not just an empty file left there)."""
    try:
        return path.stat().st_dev == Path(_OWN).stat().st_dev
    except FileNotFoundError:
        return False


def run_in_namespace(path: Path | None, function: Callable[[], T]) -> T:
    """Return `function()`, run in the network namespace pinned at `path`.

    The caller waits. What the function opens (sockets, netlink) stays in that namespace; what it
    raises is raised here. None runs it where the process is, without a thread.

    Raises:
        OSError: the namespace cannot be entered.
    """
    if path is None:
        return function()

    def entered() -> T:
        _enter(path)
        return function()

    return _in_thread(entered)


def run_in_each(
    paths: Iterable[Path], function: Callable[[Path], None], threads_max: int
) -> dict[Path, Exception]:
    """Run `function(path)` in each namespace, several at a time; return the errors by path.

    For work that mostly waits in the kernel: a firewall change waits for a grace period.
    """
    errors: dict[Path, Exception] = {}

    def body(path: Path) -> None:
        try:
            _enter(path)
            function(path)
        except Exception as error:  # noqa: BLE001  (handed to the caller, who waits for it)
            errors[path] = error

    todo = list(paths)
    for start in range(0, len(todo), threads_max):
        threads = [
            threading.Thread(target=body, args=(path,), name="netns", daemon=True)
            for path in todo[start : start + threads_max]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return errors


def open_socket_in(path: Path | None, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """Return a new socket that belongs to the network namespace pinned at `path`."""
    return run_in_namespace(path, lambda: socket.socket(family, kind, protocol))


def open_namespace(path: Path) -> int:
    """Return a file descriptor of the namespace at `path`; the caller closes it."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def write_sysctl(name: str, value: str) -> bool:
    """Set a `net.` sysctl of the calling thread's namespace; False when it does not exist.

    name: with slashes (`net/ipv4/ip_forward`), as interface names may contain dots.
    """
    path = Path("/proc/sys") / name
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except FileNotFoundError:
        return False
    return True


def _enter(path: Path) -> None:
    descriptor = open_namespace(path)
    try:
        _check(_libc().setns(descriptor, CLONE_NEWNET), "setns", path)
    finally:
        os.close(descriptor)


def _mount_bind(source: str, target: Path) -> None:
    result = _libc().mount(os.fsencode(source), os.fsencode(target), b"none", _MS_BIND, None)
    _check(result, "mount", target)


def _in_thread(function: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001  (handed to the caller, who waits for it)
            errors.append(error)

    thread = threading.Thread(target=body, name="netns", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str, path: Path) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}", str(path))
