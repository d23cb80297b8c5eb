"""What a node remembers of its membership: one small file, replaced atomically."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from cluster.model.ids import ClusterId, NodeId
from cluster.private_file import sync_directory, write_private

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


def forget(data_root: Path) -> None:
    """Forget the membership."""
    (data_root / FILE_NAME).unlink(missing_ok=True)
    sync_directory(data_root)
