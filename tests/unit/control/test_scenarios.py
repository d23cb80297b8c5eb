"""The scenario files: what the loops decide, one after the other (see `world`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.datadriven import run_file
from tests.unit.control.world import World

SCENARIOS = sorted((Path(__file__).parent / "testdata").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    run_file(path, World().handle)
