"""A local cluster for the tests that need real daemons: one per test session and kind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from cluster.local import whoami
from cluster.local.control import Request, ask
from cluster.local.demo import Api, fetch
from cluster.local.layout import Layout, LocalNode
from cluster.local.lifecycle import start, stop
from cluster.model.errors import ClusterError

T = TypeVar("T")
WAIT_S = 30.0


def why_not() -> str:
    """Return why no local cluster can run here, empty if one can."""
    probe = ["unshare", "--net", "--mount", "--pid", "--fork"]
    if os.geteuid() != 0:
        probe += ["--user", "--map-root-user"]
    if not shutil.which("unshare"):
        return "needs unshare (util-linux)"
    done = subprocess.run([*probe, "true"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "needs root or unprivileged user namespaces"


needs_namespaces = pytest.mark.skipif(bool(why_not()), reason=why_not() or "never")


@contextmanager
def local_cluster(directory: Path, managers: int, workers: int) -> Generator[Layout]:
    """Run a local cluster while the block runs."""
    layout = start(directory, managers, workers, progress=lambda _: None)
    try:
        yield layout
    finally:
        stop(layout)


def short_directory() -> Path:
    """Return a new directory whose path is short enough for unix sockets; it does not exist yet."""
    return Path("/tmp") / f"hw-{uuid.uuid4().hex[:8]}"  # noqa: S108


@contextmanager
def mounted(place: Path, how: Sequence[str]) -> Generator[None]:
    """Give a node a file system of its own while the block runs; how: arguments of mount(8)."""
    place.mkdir(parents=True, mode=0o700)
    (place.parent / "supervisor.log").touch()  # as if kept from an earlier cluster: it may go
    subprocess.run(["mount", *how, place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
        shutil.rmtree(place.parent, ignore_errors=True)


def leader(api: Api) -> str:
    """Return the name of the leader as a node knows it, empty: of none."""
    nodes = api.nodes()
    return next((n for n, v in nodes.items() if v.manager and v.manager.leader), "")


def states(api: Api) -> dict[str, str]:
    """Return the state of each node by its host name; of several with one name any."""
    nodes = json.loads(api.call("GET", "/nodes"))
    return {n["Description"]["Hostname"]: n["Status"]["State"] for n in nodes}


def networks(api: Api) -> set[str]:
    """Return the names of all networks."""
    return {network["Name"] for network in json.loads(api.call("GET", "/networks"))}


def answer_at(layout: Layout, node: LocalNode) -> str:
    """Return the id of the task that answers at a node's published port."""
    return fetch(layout, node, "").task.rpartition(".")[2]


def wait_until(what: str, condition: Callable[[], T], *, seconds: float = WAIT_S) -> T:
    """Return the condition's first true result; errors of the cluster count as not yet."""
    deadline = time.monotonic() + seconds
    last: Exception | None = None
    while time.monotonic() < deadline:
        try:
            if result := condition():
                return result
        except (ClusterError, OSError) as error:
            last = error
        time.sleep(0.05)
    raise AssertionError(f"not in {seconds} s: {what} ({last})")


def create_web(
    api: Api, *, replicas: int, port: int, name: str = "web", network: str = "shop"
) -> None:
    """Create the demo's web service on a network, which is made if missing; port: 0 for none."""
    networks = json.loads(api.call("GET", "/networks"))
    if not any(n["Name"] == network for n in networks):
        api.call("POST", "/networks/create", {"Name": network, "Driver": "overlay"})
    ports = [
        {"Protocol": p, "TargetPort": 80, "PublishedPort": port} for p in ("tcp", "udp") if port
    ]
    command = [sys.executable, "-I", "-S", whoami.__file__, "80"]
    api.call(
        "POST",
        "/services/create",
        {
            "Name": name,
            "TaskTemplate": {
                "ContainerSpec": {"Image": "host", "Command": command},
                "Networks": [{"Target": network}],
            },
            "Mode": {"Replicated": {"Replicas": replicas}},
            "EndpointSpec": {"Ports": ports},
        },
    )
    wait_until("replicas run", lambda: len(api.running(name)) == replicas)


@contextmanager
def broken_into(
    layout: Layout, name: str, module: str, network: str
) -> Generator[subprocess.Popen[bytes]]:
    """Let a liar (`module`) take the place of a node's daemon, whose tasks go on."""
    node = layout.node(name)
    daemon = daemon_of(layout, node)
    kinds = ("net",) if os.geteuid() == 0 else ("user", "net")
    namespaces = {k: os.open(f"/proc/{daemon}/ns/{k}", os.O_RDONLY) for k in kinds}
    ask(layout.control_socket, Request(do="kill", node=name))
    enter = [f"--{kind}=/proc/self/fd/{number}" for kind, number in namespaces.items()]
    program = [sys.executable, "-m", module, str(layout.data_root(node)), network]
    process = subprocess.Popen(
        ["nsenter", *enter, "--preserve-credentials", *program],
        pass_fds=tuple(namespaces.values()),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for number in namespaces.values():
            os.close(number)
        ask(layout.control_socket, Request(do="start", node=name))


def daemon_of(layout: Layout, node: LocalNode) -> int:
    """Return the process that runs the node's daemon, as it is known outside the cluster."""
    wanted = f"--data-root\0{layout.data_root(node)}\0".encode()
    return _process(lambda command: wanted in command)


def supervisor_of(layout: Layout) -> int:
    """Return process 1 of the cluster's namespaces, likewise."""
    wanted = f"cluster.local.supervisor\0{layout.directory}\0".encode()
    return _process(lambda line: line.endswith(wanted) and not line.startswith(b"unshare"))


def _process(is_wanted: Callable[[bytes], bool]) -> int:
    """Return the one process with such a command line (its arguments, each ended by a 0)."""
    found = [
        int(entry.parent.name)
        for entry in Path("/proc").glob("[0-9]*/cmdline")
        if is_wanted(_read(entry))
    ]
    assert len(found) == 1
    return found[0]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
