"""The first files of a manager: what it begins with.

The founder of a cluster begins with a snapshot of the empty state in which it is the only member; a
joiner with an empty log that no leader's can continue, so that it gets a snapshot first. Hence
every configuration is that of some snapshot plus the changes in the log after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.consensus import snapshots, wal
from cluster.consensus.errors import StorageFailure
from cluster.consensus.files import Directory
from cluster.consensus.members import Address, Member
from cluster.consensus.sessions import Sessions
from cluster.consensus.snapshots import Snapshot, SnapshotStore
from cluster.consensus.wal import FOUNDER_LOG, JOINER_LOG, Identity, Wal
from cluster.model.errors import Invalid


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Begin a new cluster, alone."""


@dataclass(frozen=True, slots=True)
class Join:
    """Wait to be added by the leader; until then hear only these managers."""

    members: Mapping[str, Address]


Founding = Bootstrap | Join


def found(
    founding: Founding,
    *,
    directory: Directory,
    node_id: str,
    cluster_id: str,
    disk_id: str,
    address: Address,
    sessions: Sessions,
    data_key: bytes,
) -> None:
    """Write the first files into an empty directory.

    Raises:
        Invalid: it is not empty.
    """
    if wal.exists(directory):
        raise Invalid("this manager has a log already: start it without bootstrap or join")
    if snapshots.newest_index(directory) > FOUNDER_LOG[-1][1]:
        raise StorageFailure("there is a snapshot but no log: this directory is damaged")
    snapshots.remove_all(directory)  # of a bootstrap that was cut off
    match founding:
        case Bootstrap():
            me = Member(node_id, *address, disk_id)
            previous, last = FOUNDER_LOG
            store = SnapshotStore(directory, data_key=data_key, chunk_bytes=1)
            store.publish(store.write(Snapshot(last, previous, (me,), sessions.dump()())))
            # The log comes last: it is what makes the directory a manager's.
            identity, entries = Identity(node_id, cluster_id, disk_id, 0, ()), FOUNDER_LOG
        case Join(members=members):
            contacts = tuple(Member(i, *a) for i, a in members.items() if i != node_id)
            identity, entries = Identity(node_id, cluster_id, disk_id, 0, contacts), JOINER_LOG
    wal.found(directory, identity=identity, entries=entries, data_key=data_key)


def load(directory: Directory, *, node_id: str, cluster_id: str, data_key: bytes) -> Wal:
    """Return the log of this manager.

    Raises:
        StorageFailure: there is none, it is damaged, or another manager's.
    """
    log = Wal(directory, data_key=data_key)
    if (log.identity.node_id, log.identity.cluster_id) != (node_id, cluster_id):
        raise StorageFailure(
            f"the log is of {log.identity.node_id} in cluster {log.identity.cluster_id},"
            f" not of {node_id} in {cluster_id}"
        )
    return log
