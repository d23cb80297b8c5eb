"""What a local cluster refuses before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from cluster.cli.main import main
from cluster.local.lifecycle import start
from cluster.model.errors import Invalid


def test_a_directory_with_others_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(Invalid, match="is not empty, and `hivewire local down` deletes all"):
        start(tmp_path, 1, 0, progress=lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_path_with_blanks_is_refused() -> None:
    with pytest.raises(Invalid, match="must not contain blanks"):
        start(Path("/no where"), 1, 0, progress=lambda _: None)


def test_a_directory_that_cannot_be_made_is_one_line() -> None:
    result = CliRunner().invoke(main, ["local", "up", "--dir", "/proc/none"])
    assert result.exit_code == 1
    assert result.output == "Error: /proc/none: No such file or directory\n"
