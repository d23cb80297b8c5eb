"""How long 10 and 30 replicas on an overlay take from the request until all run, in seconds.

On a local cluster of five daemons on this machine; the tasks are tiny web servers as plain
processes, so this is the control plane, the data plane and process start, not image pulls. For
scale: a real Swarm of five dockerds on a machine of this kind took 4.6-6.8 s and 12.6-13.3 s for
tiny containers.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.report import say, value
from cluster.local import whoami
from cluster.local.demo import Api
from cluster.local.lifecycle import start, stop
from cluster.model.errors import ClusterError

ROUNDS = 3
SIZES = (10, 30)
TIMEOUT_S = 60.0
_POLL_S = 0.02


def main() -> None:
    """Measure and print."""
    directory = Path(tempfile.mkdtemp(prefix="hw-"))
    layout = start(directory, managers=3, workers=2, progress=lambda _: None)
    try:
        api = Api(layout.socket(layout.nodes[0]))
        api.call("POST", "/networks/create", {"Name": "bench", "Driver": "overlay"})
        times: dict[int, list[float]] = {size: [] for size in SIZES}
        for number in range(ROUNDS):
            for size in SIZES:
                times[size].append(_create(api, f"s{number}-{size}", size))
    finally:
        stop(layout)
    for size, seconds in times.items():
        shown = ", ".join(f"{s:.2f}" for s in seconds)
        say(f"{size} replicas until all run: {shown} s")
        value(f"orchestration_{size}_s", statistics.median(seconds))


def _create(api: Api, name: str, replicas: int) -> float:
    command = [sys.executable, "-I", "-S", whoami.__file__, "80"]
    spec = {
        "Name": name,
        "TaskTemplate": {
            "ContainerSpec": {"Image": "host", "Command": command},
            "Networks": [{"Target": "bench"}],
        },
        "Mode": {"Replicated": {"Replicas": replicas}},
    }
    begin = time.monotonic()
    api.call("POST", "/services/create", spec)
    _wait(lambda: len(api.running(name)) == replicas, f"{name}: not {replicas} replicas")
    took = time.monotonic() - begin
    api.call("DELETE", f"/services/{name}")
    _wait(lambda: json.loads(api.call("GET", "/tasks")) == [], f"{name}: tasks left")
    return took


def _wait(condition: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(_POLL_S)
    raise ClusterError(f"{complaint} in {TIMEOUT_S:.0f} s")
