"""Snapshots on disk and in pieces."""

from __future__ import annotations

from random import Random

import pytest

from cluster.consensus.errors import StorageFailure
from cluster.consensus.members import NO_OP, Member
from cluster.consensus.messages import SnapshotChunk
from cluster.consensus.snapshots import (
    Snapshot,
    SnapshotStore,
    decode_image_untrusted,
    encode_image,
)
from tests.sim.raft_disk import PowerCut, SimDirectory

KEY = bytes(range(32))
MEMBERS = (Member("n0", "host", 2377, "d"),)


@pytest.fixture
def disk() -> SimDirectory:
    return SimDirectory(Random(0))


def store(disk: SimDirectory) -> SnapshotStore:
    return SnapshotStore(disk, data_key=KEY, chunk_bytes=50)


def snapshot(index: int) -> Snapshot:
    return Snapshot((NO_OP, index, 3), (NO_OP, index - 1, 3), MEMBERS, Random(index).randbytes(300))


def send(source: SnapshotStore, node_id: str = "n1") -> list[SnapshotChunk]:
    """Return all pieces of the current snapshot."""
    chunks: list[SnapshotChunk] = []
    while not chunks or chunks[-1].offset + len(chunks[-1].data) < chunks[-1].total:
        chunk = source.next_chunk(node_id, term=4)
        assert chunk is not None
        chunks.append(chunk)
    return chunks


def publish(target: SnapshotStore, index: int) -> bool:
    return target.publish(target.write(snapshot(index)))


def test_newest_is_opened_and_older_are_deleted(disk: SimDirectory) -> None:
    first = store(disk)
    assert publish(first, 5)
    assert publish(first, 9)
    assert not publish(first, 7)

    assert len(disk.names()) == 1
    again = store(disk)
    assert again.opened == snapshot(9)
    assert again.current is not None
    assert (again.current.index, again.current.term) == (9, 3)


@pytest.mark.parametrize("cut", range(5))
def test_power_cut_at_any_step_leaves_the_old_or_the_new(disk: SimDirectory, cut: int) -> None:
    first = store(disk)
    publish(first, 5)
    disk.cut_after = cut
    with pytest.raises(PowerCut):
        _ = [publish(first, index) for index in (9, 11)]
    disk.restart(power_loss=True)

    opened = store(disk).opened

    assert opened is not None
    assert opened.index in {5, 9, 11}
    assert opened == snapshot(opened.index)
    assert len(disk.names()) == 1


def test_damage_refuses(disk: SimDirectory) -> None:
    publish(store(disk), 5)
    (name,) = disk.names()
    data = disk.read(name)
    for position in range(len(data)):
        file = disk.create(name)
        file.append(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(StorageFailure):
            store(disk)


def test_another_format_is_refused_and_named(disk: SimDirectory) -> None:
    publish(store(disk), 5)
    (name,) = disk.names()
    data = disk.read(name)
    disk.create(name).append(data[:8] + bytes(7) + b"\x02" + data[16:])

    with pytest.raises(StorageFailure, match="has format 2, this program reads format 1"):
        store(disk)


def test_nothing_is_readable_without_the_key(disk: SimDirectory) -> None:
    publish(store(disk), 5)

    with pytest.raises(StorageFailure, match="wrong key"):
        SnapshotStore(disk, data_key=bytes(32), chunk_bytes=1)


def test_follower_seals_with_its_own_key(disk: SimDirectory) -> None:
    source, other_disk = store(disk), SimDirectory(Random(1))
    target = SnapshotStore(other_disk, data_key=bytes(32), chunk_bytes=50)
    publish(source, 5)

    received = [target.receive_untrusted(chunk) for chunk in send(source)]

    assert received[:-1] == [None] * (len(received) - 1)
    assert received[-1] == snapshot(5)
    assert SnapshotStore(other_disk, data_key=bytes(32), chunk_bytes=50).opened == snapshot(5)


def test_transfer_goes_on_with_the_snapshot_it_began_with(disk: SimDirectory) -> None:
    source, target = store(disk), store(SimDirectory(Random(1)))
    publish(source, 5)
    first = source.next_chunk("n1", term=4)
    assert first is not None
    target.receive_untrusted(first)
    publish(source, 9)

    received = [target.receive_untrusted(chunk) for chunk in send(source)]

    assert received[-1] == snapshot(5)
    assert [target.receive_untrusted(chunk) for chunk in send(source)][-1] == snapshot(9)


def test_transfer_starts_again_after_a_lost_session(disk: SimDirectory) -> None:
    source, target = store(disk), store(SimDirectory(Random(1)))
    publish(source, 5)
    for _ in range(2):
        chunk = source.next_chunk("n1", term=4)
        assert chunk is not None
        target.receive_untrusted(chunk)

    source.restart_sending("n1")

    assert [target.receive_untrusted(chunk) for chunk in send(source)][-1] == snapshot(5)


def test_each_follower_has_its_own_place(disk: SimDirectory) -> None:
    source = store(disk)
    publish(source, 5)
    one = source.next_chunk("n1", term=4)

    assert source.next_chunk("n2", term=4) == one
    assert source.next_chunk("n1", term=4) != one


def test_there_may_be_none(disk: SimDirectory) -> None:
    assert store(disk).next_chunk("n1", term=1) is None


def test_too_large_a_snapshot_is_not_collected(disk: SimDirectory) -> None:
    target = store(disk)

    assert target.receive_untrusted(SnapshotChunk(1, 5, 1, 0, 1 << 40, b"x")) is None
    assert target.receive_untrusted(SnapshotChunk(1, 5, 1, 1, 1 << 40, b"x")) is None


def test_image_with_something_else_inside_is_none() -> None:
    image = encode_image(snapshot(5))

    assert decode_image_untrusted(image) == snapshot(5)
    for length in (0, 10, 32, 40, len(image) - 1):
        assert decode_image_untrusted(image[:length]) is None
