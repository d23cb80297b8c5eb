"""Paths, programs and users inside a task's root file system, seen from outside of it.

Used on both sides: `prepare` refuses what cannot run, the task's own process finds what to run.
Lean: see `launch`; hence os.path and not pathlib.

Invariant: a symbolic link in the root file system never leads out of it. Nothing here holds
against someone who changes the directory at the same time; it is used before the task runs.
"""
# ruff: noqa: PTH110, PTH112, PTH113, PTH115, PTH118, PTH123

from __future__ import annotations

import os

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What Docker gives a container."""
_LINKS_MAX = 40
"""As the kernel (MAXSYMLINKS)."""


class Unrunnable(Exception):
    """The command, directory or user does not exist in this root; the text is for people."""


def resolve(root: str, path: str) -> str:
    """Return the machine's path of `path` inside `root`, following links as if in a chroot.

    What does not exist is taken literally, so the result may not exist. `root`: "" for the
    machine's own.
    """
    pending = path.split("/")[::-1]
    done: list[str] = []
    links = 0
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            del done[-1:]
            continue
        here = "/".join([root, *done, part])
        try:
            link = os.readlink(here)
        except OSError:
            done.append(part)
            continue
        links += 1
        if links > _LINKS_MAX:
            raise Unrunnable(f"{path}: too many symbolic links")
        if link.startswith("/"):
            done.clear()
        pending += link.split("/")[::-1]
    return "/".join([root, *done]) or "/"


def find_command(root: str, command: str, *, search_path: str, working_directory: str) -> str:
    """Return the path, inside `root`, of the program that `command` names.

    Raises:
        Unrunnable: there is none, or it may not be executed; the text is runc's.
    """
    if "/" in command:
        return _check_program(root, os.path.join(working_directory, command), command)
    for directory in search_path.split(":"):
        candidate = os.path.join(working_directory, directory, command)
        found = resolve(root, candidate)
        if os.path.isfile(found) and os.access(found, os.X_OK):
            return candidate
    raise Unrunnable(f'exec: "{command}": executable file not found in $PATH')


def check_directory(root: str, path: str) -> None:
    """Check that a task can start in directory `path` of `root`.

    Raises:
        Unrunnable: it is no directory.
    """
    if not os.path.isdir(resolve(root, path)):
        raise Unrunnable(f'working directory "{path}": no such directory')


class User:
    """Who a task runs as."""

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, groups: list[int], home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home


def find_user(root: str, user: str) -> User:
    """Return who `user` (`name`, `uid`, either with `:group`) is in `root`; empty: this process's.

    Raises:
        Unrunnable: no such user or group; the text is Docker's.
    """
    name, _, group = user.partition(":")
    wanted = name or str(os.geteuid())
    match = next((e for e in _entries(root, "/etc/passwd", 6) if wanted in (e[0], e[2])), None)
    if match is not None:
        uid, gid, home = int(match[2]), int(match[3]), match[5] or "/"
    elif wanted.isdecimal():
        uid, gid, home = int(wanted), 0, "/"
    else:
        raise Unrunnable(f"unable to find user {name}: no matching entries in passwd file")
    if group:
        return User(uid, _find_group(root, group), [], home)
    login = match[0] if match is not None else ""
    entries = _entries(root, "/etc/group", 4)
    groups = [int(entry[2]) for entry in entries if login and login in entry[3].split(",")]
    return User(uid, gid, groups, home)


def _find_group(root: str, group: str) -> int:
    for entry in _entries(root, "/etc/group", 3):
        if group in (entry[0], entry[2]):
            return int(entry[2])
    if group.isdecimal():
        return int(group)
    raise Unrunnable(f"unable to find group {group}: no matching entries in group file")


def _check_program(root: str, path: str, command: str) -> str:
    found = resolve(root, path)
    if not os.path.exists(found):
        raise Unrunnable(f'exec: "{command}": stat {path}: no such file or directory')
    if os.path.isdir(found):
        raise Unrunnable(f'exec: "{command}": is a directory')
    if not os.access(found, os.X_OK):
        raise Unrunnable(f'exec: "{command}": permission denied')
    return path


def _entries(root: str, path: str, fields: int) -> list[list[str]]:
    """Return the lines of a colon-separated file with at least `fields` fields, ids numeric."""
    try:
        with open(resolve(root, path), encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    split = [line.split(":") for line in lines]
    numeric = slice(2, 4) if fields > 4 else slice(2, 3)  # noqa: PLR2004  (passwd has a gid too)
    return [
        entry
        for entry in split
        if len(entry) >= fields and all(number.isdecimal() for number in entry[numeric])
    ]
