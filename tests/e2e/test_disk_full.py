"""The leader's disk fills up: it ends with a clear word, another one leads, nothing is lost.

Real processes; the first manager's state is on a small file system of its own, so it needs root.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest

from cluster.local.control import Request, ask
from cluster.local.demo import Api
from cluster.local.layout import Layout
from cluster.model.errors import ClusterError
from tests.e2e import lab

pytestmark = [
    lab.needs_namespaces,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system"),
    pytest.mark.timeout(180),
]
DISK_MB = 24
EXIT_STORAGE = 70


@pytest.fixture
def layout() -> Generator[Layout]:
    directory = lab.short_directory()
    small = ("-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=0700", "small")
    with lab.mounted(directory / "m1", small), lab.local_cluster(directory, 3, 0) as made:
        yield made


def fill(place: Path) -> Path:
    """Take all the room that is left, and return the file that has it."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return ballast


def is_running(layout: Layout, name: str) -> bool:
    status = ask(layout.control_socket, Request(do="status"))
    return next(node.pid for node in status.nodes if node.name == name) != 0


def test_a_leader_without_room_hands_over_and_comes_back(layout: Layout) -> None:
    m1, m2 = (Api(layout.socket(layout.node(name))) for name in ("m1", "m2"))
    assert lab.leader(m1) == "m1"
    acknowledged: set[str] = set()

    def write(api: Api, name: str) -> bool:
        labels = {"padding": "x" * 8000}  # so that the log grows
        body = {"Name": name, "Driver": "overlay", "Labels": labels}
        api.call("POST", "/networks/create", body)
        acknowledged.add(name)
        return True

    write(m1, "before")
    ballast = fill(layout.data_root(layout.node("m1")))
    numbers = itertools.count()

    def a_write_ends_it() -> bool:
        # Its socket goes before its process: a refusal is no sign of the end.
        with suppress(ClusterError, OSError):
            write(m1, f"n{next(numbers)}")
        return not is_running(layout, "m1")

    lab.wait_until("the leader has ended", a_write_ends_it)
    ended = f"daemon ended: node=m1 code={EXIT_STORAGE}"
    assert ended in layout.supervisor_log.read_text()
    log = layout.log(layout.node("m1")).read_text()
    assert "this node cannot go on" in log
    assert "No space left on device" in log
    assert "Traceback" not in log

    lab.wait_until("another one takes a write", lambda: write(m2, "meanwhile"))
    assert lab.leader(m2) in {"m2", "m3"}
    assert acknowledged <= lab.networks(m2)

    # It does not come back before there is room, and harms nobody by trying.
    ask(layout.control_socket, Request(do="start", node="m1"))
    write(m2, "while-it-is-full")
    if is_running(layout, "m1"):
        ask(layout.control_socket, Request(do="kill", node="m1"))
    ballast.unlink()
    ask(layout.control_socket, Request(do="start", node="m1"))
    lab.wait_until("it has all there is", lambda: acknowledged <= lab.networks(m1))
    lab.wait_until("it takes a write", lambda: write(m1, "after"))
    assert acknowledged <= lab.networks(m2)
    reachable = json.loads(m2.call("GET", "/nodes"))
    assert {n["ManagerStatus"]["Reachability"] for n in reachable} == {"reachable"}
