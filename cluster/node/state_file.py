"""What a node remembers of its membership: one small file, replaced atomically."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cluster.model.ids import ClusterId, NodeId

FILE_NAME = "node.json"


class CorruptMembershipError(Exception):
    """The file is there but cannot be read: an operator must look."""


@dataclass(frozen=True, slots=True)
class MembershipRecord:
    """A node's place in a cluster."""

    cluster: ClusterId
    node: NodeId
    listen: str
    """`host:port` of the control port (managers)."""
    address: str
    """Advertised IP address."""
    control_port: int
    data_address: str
    managers: tuple[tuple[NodeId, str], ...]
    """Managers last heard of: (node, `host:port`)."""
    is_joining_raft: bool = False
    """A manager that the leader has not added to Raft yet."""


def load(data_root: Path) -> MembershipRecord | None:
    """Return the record kept in `data_root`; None: this node is in no cluster.

    Raises:
        CorruptMembershipError: the file is unreadable.
    """
    path = data_root / FILE_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=MembershipRecord)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise CorruptMembershipError(f"{path} cannot be read: {error}") from error


def save(data_root: Path, record: MembershipRecord) -> None:
    """Keep `record`: on disk when this returns."""
    write_private(data_root / FILE_NAME, msgspec.json.format(msgspec.json.encode(record)))


def write_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 atomically; it is on disk when this returns."""
    temporary = path.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def forget(data_root: Path) -> None:
    """Forget the membership."""
    (data_root / FILE_NAME).unlink(missing_ok=True)
    sync_directory(data_root)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
