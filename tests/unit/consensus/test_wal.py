"""What was synced survives; what was not may go, from the end."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from cluster.consensus import wal as wal_module
from cluster.consensus.errors import SafetyViolation, StorageFailure
from cluster.consensus.files import Directory, DiskDirectory
from cluster.consensus.members import Member
from cluster.consensus.wal import FILE_NAME, FOUNDER_LOG, JOINER_LOG, Identity, Wal
from tests.sim.raft_disk import PowerCut, SimDirectory

KEY = bytes(range(32))


def new_log(directory: Directory) -> Wal:
    wal_module.found(
        directory,
        identity=Identity("n0", "c", "d", 0, ()),
        entries=FOUNDER_LOG,
        data_key=KEY,
    )
    return Wal(directory, data_key=KEY)


@pytest.fixture
def disk() -> SimDirectory:
    return SimDirectory(Random(0))


def reboot(disk: SimDirectory) -> Wal:
    disk.restart(power_loss=True)
    return Wal(disk, data_key=KEY)


def test_round_trip_on_a_real_disk(tmp_path: Path) -> None:
    directory = DiskDirectory(tmp_path / "raft")
    log = new_log(directory)
    log.append(b"three", 3, 1)
    log.append(b"four", 4, 1)
    log.set_commit_index(3)
    log.save_vote(2, "n1")
    log.truncate_from(4)
    log.append(b"other", 4, 2)
    log.sync()
    log.close()

    again = Wal(directory, data_key=KEY)

    assert again.entries == [*FOUNDER_LOG, (b"three", 3, 1), (b"other", 4, 2)]
    assert (again.term, again.voted_for, again.commit_index) == (2, "n1", 3)
    assert again.identity.boots == 2
    assert (tmp_path / "raft").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "raft" / FILE_NAME).stat().st_mode & 0o777 == 0o600
    again.close()
    again.close()


def test_nothing_is_readable_without_the_key(tmp_path: Path) -> None:
    directory = DiskDirectory(tmp_path)
    log = new_log(directory)
    log.append(b"a secret of the cluster", 3, 1)
    log.sync()
    log.close()

    assert b"secret" not in directory.read(FILE_NAME)
    with pytest.raises(StorageFailure, match="wrong key"):
        Wal(directory, data_key=bytes(32))


@pytest.mark.parametrize("seed", range(20))
def test_power_loss_keeps_what_was_synced(seed: int) -> None:
    rng = Random(seed)
    disk = SimDirectory(rng)
    log = new_log(disk)
    synced = log.last_index
    for _ in range(rng.randint(1, 30)):
        log.append(rng.randbytes(rng.randint(1, 900)), log.last_index + 1, 1)
        if rng.random() < 0.4:
            log.sync()
            synced = log.last_index
    expected = log.entries

    again = reboot(disk)

    assert again.last_index >= synced
    assert again.entries == expected[: len(again.entries)]


@pytest.mark.parametrize("cut", range(12))
def test_power_cut_at_any_step_keeps_what_was_synced(disk: SimDirectory, cut: int) -> None:
    log = new_log(disk)
    for index in range(3, 13):
        log.append(b"%d" % index, index, 1)
    log.set_commit_index(10)
    log.sync()
    disk.cut_after = cut

    def work() -> None:
        for index in range(13, 20):
            log.append(b"%d" % index, index, 1)
            log.sync()
            log.drop_before(index - 5)

    with pytest.raises(PowerCut):
        work()
    again = reboot(disk)

    last = log.last_index
    assert again.last_index in {last - 1, last}
    assert [e[0] for e in again.entries_from(13)] == [
        b"%d" % index for index in range(13, again.last_index + 1)
    ]


def test_failed_sync_is_not_tried_again(disk: SimDirectory) -> None:
    log = new_log(disk)
    log.append(b"x", 3, 1)
    disk.fail_after = 1
    with pytest.raises(StorageFailure):
        log.sync()
    disk.fail_after = None

    with pytest.raises(StorageFailure):
        log.sync()
    with pytest.raises(StorageFailure):
        log.reset([(b"x", 7, 1)])


def test_failed_rewrite_leaves_the_old_log(disk: SimDirectory) -> None:
    log = new_log(disk)
    for index in range(3, 9):
        log.append(b"x", index, 1)
    log.sync()
    disk.fail_after = 2
    with pytest.raises(StorageFailure):
        log.drop_before(7)
    log.append(b"x", 9, 1)
    with pytest.raises(StorageFailure):
        log.sync()

    assert reboot(disk).last_index == 8


def test_damage_refuses(disk: SimDirectory) -> None:
    log = new_log(disk)
    for index in range(3, 6):
        log.append(b"x" * 50, index, 1)
        log.sync()
    data = disk.read(FILE_NAME).rstrip(b"\0")
    for position in range(len(data)):
        file = disk.create(FILE_NAME)
        file.append(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(StorageFailure):
            Wal(disk, data_key=KEY)


def test_another_format_is_refused_and_named(disk: SimDirectory) -> None:
    new_log(disk)
    data = disk.read(FILE_NAME)
    disk.create(FILE_NAME).append(data[:8] + bytes(7) + b"\x63" + data[16:])

    with pytest.raises(StorageFailure, match="the log has format 99, this program reads format 1"):
        Wal(disk, data_key=KEY)


def test_zeros_ahead_of_the_frames_are_no_frames(tmp_path: Path) -> None:
    directory = DiskDirectory(tmp_path)
    log = new_log(directory)
    index = log.last_index
    while len(directory.read(FILE_NAME)) < 600_000:  # the room is used up twice
        index += 1
        log.append(bytes(9_000), index, 1)
        log.sync()
    log.close()

    assert directory.read(FILE_NAME).endswith(bytes(8))
    assert Wal(directory, data_key=KEY).entries == log.entries


def test_large_log_is_rewritten_in_pieces(disk: SimDirectory) -> None:
    log = new_log(disk)
    for index in range(3, 9):
        log.append(bytes(400_000), index, 1)
    log.drop_before(3)

    assert reboot(disk).entries == log.entries


@pytest.mark.parametrize("index", [2, 4])
def test_gap_is_a_violation(disk: SimDirectory, index: int) -> None:
    log = new_log(disk)

    with pytest.raises(SafetyViolation):
        log.append(b"x", index, 1)


def test_truncating_committed_entries_is_a_violation(disk: SimDirectory) -> None:
    log = new_log(disk)
    log.append(b"x", 3, 1)
    log.set_commit_index(3)

    with pytest.raises(SafetyViolation):
        log.truncate_from(3)


def test_commit_index_rides_along(disk: SimDirectory) -> None:
    log = new_log(disk)
    log.append(b"x", 3, 1)
    log.sync()
    syncs = log.syncs

    log.set_commit_index(3)
    log.sync()

    assert log.syncs == syncs
    log.append(b"y", 4, 1)
    log.sync()
    assert reboot(disk).commit_index == 3


def test_joiner_keeps_its_contacts(disk: SimDirectory) -> None:
    contact = Member("n1", "host", 2377)
    wal_module.found(
        disk,
        identity=Identity("n2", "c", "d", 0, (contact,)),
        entries=JOINER_LOG,
        data_key=KEY,
    )

    assert Wal(disk, data_key=KEY).identity.contacts == (contact,)
