"""The daemons of a local cluster and what they run in, as its process 1 sees them."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cluster.local.layout import (
    UNDERLAY_CLIENTS,
    UNDERLAY_GATEWAY,
    UNDERLAY_MAC,
    Layout,
    LocalNode,
    profile,
)
from dataplane.kernel.netns import create_namespace, run_in_namespace, write_sysctl

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class LocalCluster:
    """What the supervisor knows of its daemons."""

    layout: Layout
    pids: dict[str, int] = field(default_factory=dict[str, int])
    progress: list[str] = field(default_factory=list[str])
    ready: bool = False
    error: str = ""
    ports: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    unheard: list[str] = field(default_factory=list[str])
    """What the forwarder cannot listen for."""

    def namespace(self, node: LocalNode) -> Path:
        """Return where a node's network namespace is mounted."""
        return self.layout.data_root(node) / "node.netns"

    def say(self, text: str) -> None:
        """Tell whoever waits for the cluster how far it is."""
        logger.info("%s", text)
        self.progress.append(text)


def make_underlay(cluster: LocalCluster) -> None:
    """Make the bridge and a namespace with one interface per node.

    Everybody's hardware address is set everywhere: what the kernel learns by itself, for all
    namespaces of a machine together, is 1,024 addresses at most (arp(7), gc_thresh3), and nodes
    that know each other are 33 at most with these.
    """
    lines = [
        "link set lo up",
        f"link add underlay address {UNDERLAY_MAC} type bridge",
        "link set underlay up",
        f"addr add {UNDERLAY_GATEWAY}/24 dev underlay",
        *(f"addr add {address}/24 dev underlay" for address in UNDERLAY_CLIENTS),
    ]
    for node in cluster.layout.nodes:
        cluster.layout.data_root(node).mkdir(mode=0o700, exist_ok=True)
        path = cluster.namespace(node)
        path.unlink(missing_ok=True)
        create_namespace(path)
        lines += [
            f"link add {node.name} type veth peer name eth0 netns {path}",
            f"link set {node.name} master underlay up",
        ]
    _ip(lines)
    write_sysctl("net/bridge/bridge-nf-call-iptables", "0")
    # There is no way out: whoever tries is told so at once, and does not wait for an answer.
    write_sysctl("net/ipv4/ip_forward", "1")
    known = dict.fromkeys((UNDERLAY_GATEWAY, *UNDERLAY_CLIENTS), UNDERLAY_MAC)
    known |= {node.address: node.mac for node in cluster.layout.nodes}
    for node in cluster.layout.nodes:
        inside = [
            "link set lo up",
            f"link set eth0 address {node.mac}",
            f"addr add {node.address}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {UNDERLAY_GATEWAY}",
            *(
                f"neigh replace {address} lladdr {mac} dev eth0 nud permanent"
                for address, mac in known.items()
                if address != node.address
            ),
        ]
        run_in_namespace(cluster.namespace(node), partial(_ip, inside))


def _ip(lines: list[str]) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines).encode(), check=True)


def start_daemon(cluster: LocalCluster, node: LocalNode) -> None:
    """Start the node's daemon in its namespace; it must not be running."""
    root = cluster.layout.data_root(node)
    cores = len(os.sched_getaffinity(0))
    arguments = [
        sys.executable, "-m", "cluster.cli.main", "daemon",
        "--data-root", str(root), "--run-root", str(root / "run"),
        "--listen", f"unix://{cluster.layout.socket(node)}",
        "--hostname", node.name, "--profile", profile(len(cluster.layout.nodes), cores),
        "--published-port-min", str(cluster.layout.published_port_min),
    ]  # fmt: skip
    log = os.open(cluster.layout.log(node), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, log, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
    ]

    def spawn() -> int:
        return os.posix_spawn(
            sys.executable, arguments, os.environ, file_actions=actions, setsid=True
        )

    try:
        cluster.pids[node.name] = run_in_namespace(cluster.namespace(node), spawn)
    finally:
        os.close(log)


def reap(cluster: LocalCluster) -> None:
    """Collect every ended child: daemons, and whatever became ours as process 1."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            for name, known in list(cluster.pids.items()):
                if known == pid:
                    code = os.waitstatus_to_exitcode(status)
                    logger.warning("daemon ended: node=%s code=%d", name, code)
                    del cluster.pids[name]


def kill(cluster: LocalCluster, node: LocalNode, *, tasks: bool) -> None:
    """Kill -9 the node's daemon and, when asked, every process of its tasks."""
    victims = _task_processes(cluster.layout.data_root(node)) if tasks else []
    daemon = cluster.pids.get(node.name)
    for pid in [*([daemon] if daemon else []), *victims]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _task_processes(data_root: Path) -> list[int]:
    """Return the supervisors of the node's tasks: processes with an open file below its state."""
    mark = f"{data_root}/"
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if any(_target(fd).startswith(mark) for fd in (entry / "fd").iterdir()):
                    found.append(int(entry.name))
    return found


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:
        return ""
