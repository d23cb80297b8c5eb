"""The epoch grows with every start, whatever clock and file say."""

from __future__ import annotations

from pathlib import Path

from gossip.storage import next_epoch, save_epoch


def test_epoch_is_the_clock_or_above_the_last_one(tmp_path: Path) -> None:
    directory = tmp_path / "gossip"

    assert next_epoch(directory, unix_ms=1000) == 1000
    assert next_epoch(directory, unix_ms=1000) == 1001
    assert next_epoch(directory, unix_ms=500) == 1002
    save_epoch(directory, 7000)
    assert next_epoch(directory, unix_ms=2000) == 7001


def test_files_are_private(tmp_path: Path) -> None:
    directory = tmp_path / "gossip"
    next_epoch(directory, unix_ms=1)

    assert directory.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in directory.iterdir()] == [0o600]


def test_damaged_file_counts_as_none(tmp_path: Path) -> None:
    for junk in (b"", b"junk", b"\xff\xfe", b"-5", b"9" * 40):
        (tmp_path / "epoch").write_bytes(junk)

        assert next_epoch(tmp_path, unix_ms=1000) == 1000
