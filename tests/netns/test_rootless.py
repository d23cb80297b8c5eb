"""The kernel driver inside a user namespace: what an unprivileged local cluster does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dataplane.kernel.nftables import find_nft

HERE = Path(__file__).parent
SMOKE = "virtual_address or every_node or kill_under_load or empty_plan"
_TIMEOUT_S = 280


def has_user_namespaces() -> bool:
    try:
        tried = subprocess.run(["unshare", "-Urnm", "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return tried.returncode == 0


@pytest.mark.timeout(_TIMEOUT_S + 10)
@pytest.mark.skipif(find_nft() is None, reason="needs libnftables.so.1 or nft")
@pytest.mark.skipif(not has_user_namespaces(), reason="needs user namespaces")
def test_kernel_driver_needs_no_privilege_in_a_user_namespace(tmp_path: Path) -> None:
    is_root = os.geteuid() == 0
    finished = subprocess.run(
        [
            *("unshare", "-Urnm", sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *(f"--basetemp={tmp_path / 'inner'}", "-k", SMOKE if is_root else "not rootless"),
            str(HERE),
        ],
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )

    assert finished.returncode == 0, finished.stdout[-3000:]
    assert "passed" in finished.stdout
