"""Who may run these tests, and a lab for each.

As root they run as they are; without root in a user namespace that `test_rootless` makes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from dataplane.kernel.nftables import find_nft
from tests.netns.lab import Lab, lab


def _obstacle() -> str | None:
    if os.geteuid() != 0:
        return "needs root; test_rootless runs it in a user namespace"
    if find_nft() is None:
        return "needs libnftables.so.1 or nft"
    if not any("vxlan" in text for text in _capable_kernel()):
        return "needs a kernel with vxlan"
    return None


def _capable_kernel() -> list[str]:
    """Return what says that the kernel has VXLAN: built in, loaded, or to be loaded."""
    found = [path.name for path in Path("/sys/module").glob("vxlan")]
    release = Path("/lib/modules") / os.uname().release
    lists = (release / name for name in ("modules.builtin", "modules.dep"))
    return [*found, *(path.read_text() for path in lists if path.exists())]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    obstacle = _obstacle()
    for item in items:
        is_ours = Path(__file__).parent in item.path.parents
        if obstacle is not None and is_ours and item.path.name != "test_rootless.py":
            item.add_marker(pytest.mark.skip(reason=obstacle))


@pytest.fixture
async def three(tmp_path: Path) -> AsyncGenerator[Lab]:
    """Return three nodes and a client."""
    async with lab(tmp_path) as made:
        yield made
    shutil.rmtree(tmp_path)
