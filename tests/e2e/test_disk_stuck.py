"""The leader's disk stops answering: another manager leads, and no node goes down for it.

Real processes and a real file system that is frozen (fsfreeze(8)), so it needs root.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.local.demo import Api
from cluster.local.layout import Layout
from tests.e2e import lab

pytestmark = [
    lab.needs_namespaces,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a file system"),
    pytest.mark.timeout(180),
]
DISK_BYTES = 64 << 20
REPLICAS = 4
SENT_AWAY = "sessions end: error=the disk of this manager does not answer"


@contextmanager
def frozen(place: Path) -> Generator[None]:
    """Let no write to the file system end while the block runs."""
    subprocess.run(["fsfreeze", "--freeze", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", place], check=True)


@pytest.fixture
def layout(tmp_path: Path) -> Generator[Layout]:
    image = tmp_path / "disk"
    image.touch()
    os.truncate(image, DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    directory = lab.short_directory()
    loop = ("-o", "loop", str(image))
    with lab.mounted(directory / "m1", loop), lab.local_cluster(directory, 3, 1) as made:
        yield made


def test_a_leader_whose_disk_hangs_is_replaced_and_comes_back(layout: Layout) -> None:
    m1, m2 = (Api(layout.socket(layout.node(name))) for name in ("m1", "m2"))
    log = layout.log(layout.node("m1"))
    lab.create_web(m1, replicas=REPLICAS, port=8080)
    all_ready = dict.fromkeys((node.name for node in layout.nodes), "ready")
    lab.wait_until("all nodes are ready", lambda: lab.states(m2) == all_ready)
    before = {task.id for task in m1.running("web")}

    def write() -> bool:
        m2.call("POST", "/networks/create", {"Name": "meanwhile", "Driver": "overlay"})
        return True

    assert lab.leader(m1) == "m1"
    with frozen(layout.data_root(layout.node("m1"))):
        lab.wait_until("another one takes a write", write)
        assert lab.leader(m2) in {"m2", "m3"}
        lab.wait_until("it keeps no node from the others", lambda: SENT_AWAY in log.read_text())
        assert lab.states(m2) == all_ready
        m2.scale("web", 2 * REPLICAS)
        lab.wait_until("it goes on forwarding", lambda: lab.answer_at(layout, layout.node("m1")))
    lab.wait_until("it has all there is", lambda: "meanwhile" in lab.networks(m1))
    lab.wait_until("all replicas run", lambda: len(m1.running("web")) == 2 * REPLICAS)
    assert lab.states(m1) == all_ready
    assert before < {task.id for task in m1.running("web")}
    assert "Traceback" not in log.read_text()
