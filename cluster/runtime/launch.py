"""What a supervisor is told about its task, and its encoding on the launcher's socket.

Lean: the launcher and the supervisors import this module, and each of their imports is paid for
in every task's memory. That is why `Launch` is a plain class (dataclasses pull in inspect) and the
encoding a list of length-prefixed fields (json pulls in re). It travels between two processes of
the same node and version, so it carries no version of its own.

Invariant: `decode(encode(launch))` equals `launch` field by field. Secrets pass only here: never
through arguments, the environment or the disk.
"""

from __future__ import annotations

import os
import struct

Pairs = tuple[tuple[str, str], ...]

HEADER = struct.Struct("<I")
"""Length of everything that follows."""
_FIELD = struct.Struct("<BI")
LAUNCH_BYTES_MAX = 64 * 1024 * 1024
"""More than all secrets and arguments of any task: a bug, not a task."""
_KINDS = 6
_SCALARS = ("directory", "sandbox", "root", "layer", "working_directory", "hostname", "user")


class Launch:
    """One task as its supervisor sees it: every path is resolved, every default filled in."""

    __slots__ = (
        "arguments",
        "cgroups",
        "directory",
        "environment",
        "hidden",
        "hostname",
        "layer",
        "root",
        "sandbox",
        "secrets",
        "user",
        "working_directory",
    )

    def __init__(
        self,
        *,
        directory: str = "",
        sandbox: str = "",
        root: str = "",
        layer: str = "",
        working_directory: str = "",
        hostname: str = "",
        user: str = "",
        arguments: tuple[str, ...] = (),
        cgroups: tuple[str, ...] = (),
        hidden: tuple[str, ...] = (),
        environment: Pairs = (),
        secrets: tuple[tuple[str, bytes], ...] = (),
    ) -> None:
        """Take the fields as they are.

        Args:
            directory: the task's own directory: logs, exit status, files bound into /etc.
            sandbox: path of the network namespace; empty: the launcher's own.
            root: directory that becomes the root file system; empty: the machine's own.
            layer: directory for the task's private changes to `root`; empty: none.
            working_directory: inside the root.
            hostname: of the UTS namespace.
            user: `name`, `uid`, `uid:gid`; empty: unchanged.
            arguments: argument list, not empty.
            cgroups: directories of the cgroups that the command joins.
            hidden: directories of the machine that the task must not see.
            environment: all of it, in order.
            secrets: (file name under /run/secrets, content).
        """
        self.directory = directory
        self.sandbox = sandbox
        self.root = root
        self.layer = layer
        self.working_directory = working_directory
        self.hostname = hostname
        self.user = user
        self.arguments = arguments
        self.cgroups = cgroups
        self.hidden = hidden
        self.environment = environment
        self.secrets = secrets


def encode(launch: Launch) -> bytes:
    """Return `launch` with its length in front."""
    packed = [_pack(0, os.fsencode(getattr(launch, name))) for name in _SCALARS]
    packed += [_pack(1, os.fsencode(value)) for value in launch.arguments]
    packed += [_pack(2, os.fsencode(value)) for value in launch.cgroups]
    packed += [_pack(3, os.fsencode(value)) for value in launch.hidden]
    for name, value in launch.environment:
        packed += [_pack(4, os.fsencode(name)), _pack(4, os.fsencode(value))]
    for name, content in launch.secrets:
        packed += [_pack(5, os.fsencode(name)), _pack(5, content)]
    body = b"".join(packed)
    return HEADER.pack(len(body)) + body


def decode(body: bytes) -> Launch:
    """Return the launch whose encoding is `body` (without the length in front)."""
    lists: tuple[list[bytes], ...] = tuple([] for _ in range(_KINDS))
    at = 0
    while at < len(body):
        kind, length = _FIELD.unpack_from(body, at)
        at += _FIELD.size
        lists[int(kind)].append(body[at : at + length])
        at += length
    scalars, arguments, cgroups, hidden, environment, secrets = lists
    texts = [os.fsdecode(value) for value in environment]
    return Launch(
        **dict(zip(_SCALARS, map(os.fsdecode, scalars), strict=True)),
        arguments=tuple(map(os.fsdecode, arguments)),
        cgroups=tuple(map(os.fsdecode, cgroups)),
        hidden=tuple(map(os.fsdecode, hidden)),
        environment=tuple(zip(texts[::2], texts[1::2], strict=True)),
        secrets=tuple(zip(map(os.fsdecode, secrets[::2]), secrets[1::2], strict=True)),
    )


def _pack(kind: int, value: bytes) -> bytes:
    return _FIELD.pack(kind, len(value)) + value
