"""Private files: whole, and nobody else's, whatever was there before."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.private_file import next_of, write_next, write_private


def test_replaces_a_readable_file_by_a_private_one(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    path.chmod(0o644)

    write_private(path, b"new")

    assert path.read_bytes() == b"new"
    assert [(p.name, p.stat().st_mode & 0o777) for p in tmp_path.iterdir()] == [("key", 0o600)]


@pytest.mark.parametrize("is_link", [False, True])
def test_a_leftover_gives_neither_mode_nor_place(tmp_path: Path, *, is_link: bool) -> None:
    path, elsewhere = tmp_path / "key", tmp_path / "elsewhere"
    elsewhere.write_bytes(b"")
    leftover = next_of(path)
    if is_link:
        leftover.symlink_to(elsewhere)
    else:
        leftover.write_bytes(b"half of something longer")
        leftover.chmod(0o666)

    write_private(path, b"new")

    assert not path.is_symlink()
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o600)
    assert elsewhere.read_bytes() == b""


def test_what_is_there_stays_until_the_next_takes_its_place(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_private(path, b"old")
    fresh = write_next(path, b"new")
    assert path.read_bytes() == b"old"
    fresh.replace(path)
    assert path.read_bytes() == b"new"


def test_names_with_suffixes_do_not_share_a_place(tmp_path: Path) -> None:
    assert next_of(tmp_path / "node.crt") != next_of(tmp_path / "node.key")
