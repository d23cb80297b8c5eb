"""Many gossip processes on loopback, each a real one with its own sockets, certificate and key.

They are forked from one parent that has imported everything, so that the start of Python is in no
measurement; then they are told to act at one instant. Times come from the one monotonic clock that
all processes of a machine share, read by whoever notices something. A process is a bare
`gossip.peer.Peer` as a daemon has it: TLS 1.3 between certificates, AES-GCM, signed records. What
it notices, it looks at every `_LOOK_S`: looking at 60 members after each of 60 changes would cost
more than to gossip about them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from bench.certificates import CLUSTER, make_certificates
from cluster.ca.files import CertificateDirectory
from cluster.ca.tls import tls_contexts
from cluster.model.ids import NodeId
from cluster.node.identity import NodeIdentity
from gossip.peer import GossipConfig, GossipKey, KeyState, Peer, State

KEY = GossipKey(1, bytes(range(32)), KeyState.PRIMARY)
_LOOK_S = 0.05
_START_S = 60.0
_LOOPBACK = ("127.0.0.1", 0)


@dataclass(slots=True)
class _Child:
    pid: int
    commands: int
    port: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """What one process noticed."""

    number: int
    """Of the process."""
    kind: str
    """"ready" (value: its port), "full" (it takes as many members for up as are expected, suspects
    included, as serf does) or "dead" (value: whom it declared dead)."""
    at: float
    """Monotonic seconds."""
    value: int = 0


class Fleet:
    """`size` processes; the first is the seed."""

    def __init__(self, size: int, config: GossipConfig, directory: Path) -> None:
        self.size = size
        self._config = config
        self._directory = directory
        self._nodes = make_certificates(directory / "certificates", size)
        self._children: dict[int, _Child] = {}
        self._rest = b""
        self._reports, self._reports_in = os.pipe()

    def start(self) -> None:
        """Start all that do not run, and wait until their sockets are open."""
        started = [n for n in range(self.size) if n not in self._children]
        for number in started:
            self._fork(number)
        awaited = set(started)
        deadline = time.monotonic() + _START_S
        while awaited:
            for report in self.reports(deadline):
                if report.kind == "ready":
                    self._children[report.number].port = report.value
                    awaited.discard(report.number)
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes {sorted(awaited)} did not start")

    def join(self, numbers: list[int], at: float) -> None:
        """Let processes join the seed at one instant; all report when they see everybody."""
        seed = self._children[0].port
        for number, child in self._children.items():
            port = seed if number in numbers else 0
            os.write(child.commands, f"{port} {at} {self.size}\n".encode())

    def kill(self, number: int) -> float:
        """Kill a process with SIGKILL; return when."""
        child = self._children.pop(number)
        at = time.monotonic()
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
        os.close(child.commands)
        return at

    def pids(self) -> list[int]:
        """Return the processes that run."""
        return [child.pid for child in self._children.values()]

    def reports(self, deadline: float) -> list[Report]:
        """Wait for reports and return them; none when `deadline` has passed."""
        wait_s = max(0.0, deadline - time.monotonic())
        if not select.select([self._reports], [], [], wait_s)[0]:
            return []
        *lines, self._rest = (self._rest + os.read(self._reports, 1 << 16)).split(b"\n")
        fields = [line.decode().split() for line in lines]
        return [Report(int(n), kind, float(at), int(value)) for n, kind, at, value in fields]

    def stop(self) -> None:
        """End all."""
        for number in list(self._children):
            self.kill(number)
        self._rest = b""
        while self.reports(time.monotonic()):
            pass

    def close(self) -> None:
        """End all, and let go of what connects them."""
        self.stop()
        os.close(self._reports)
        os.close(self._reports_in)

    def _fork(self, number: int) -> None:
        commands_out, commands = os.pipe()
        pid = os.fork()
        if pid:
            os.close(commands_out)
            self._children[number] = _Child(pid, commands)
            return
        code = 1
        try:
            for other in (commands, self._reports, *(c.commands for c in self._children.values())):
                os.close(other)
            asyncio.run(self._serve(number, commands_out))
            code = 0
        except BaseException:  # noqa: BLE001 - a child must never run the parent's code
            traceback.print_exc(file=sys.stderr)
        finally:
            os._exit(code)

    async def _serve(self, number: int, commands: int) -> None:
        node = self._nodes[number]
        certificates = CertificateDirectory(self._directory / "certificates" / node)
        credentials, _ = certificates.load_at_any_time()
        contexts = tls_contexts(certificates, CLUSTER)
        state = self._directory / f"state{number}"
        state.mkdir(exist_ok=True)
        peer = Peer(
            node_id=node,
            cluster_id=CLUSTER,
            data_address="127.0.0.1",
            config=self._config,
            keys=[KEY],
            identity=NodeIdentity(credentials, cluster=CLUSTER, roots=lambda: [credentials.ca]),
            state_directory=state,
            rng=Random(os.urandom(16)),  # noqa: S311 - timing, not secrecy
            server_ssl=lambda: contexts.gossip_server,
            client_ssl=lambda: contexts.gossip_client,
        )
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(commands, "rb")
        )
        async with asyncio.TaskGroup() as group:
            running = group.create_task(peer.run(_LOOPBACK, _LOOPBACK))
            await peer.ready.wait()
            _, bound = peer.advertised or _LOOPBACK
            self._say(number, "ready", bound)
            watching: asyncio.Task[None] | None = None
            while line := await reader.readline():
                port, at, expected = line.decode().split()
                if watching is not None:
                    watching.cancel()
                watching = group.create_task(self._watch(peer, number, int(expected)))
                await asyncio.sleep(max(0.0, float(at) - time.monotonic()))
                if int(port):
                    peer.join([("127.0.0.1", int(port))])
            running.cancel()
            if watching is not None:
                watching.cancel()

    async def _watch(self, peer: Peer, number: int, expected: int) -> None:
        numbers = {node: n for n, node in enumerate(self._nodes)}
        dead: set[NodeId] = set()
        is_full = False
        with peer.watch() as changed:
            while True:
                changed.clear()
                states = {NodeId(view.node_id): view.state for view in peer.members()}
                up = sum(state <= State.SUSPECT for state in states.values())
                if up == expected and not is_full:
                    self._say(number, "full", 0)
                is_full = up == expected
                gone = {node for node, state in states.items() if state is State.DEAD}
                for node in gone - dead:
                    self._say(number, "dead", numbers[node])
                dead = gone
                await changed.wait()
                await asyncio.sleep(_LOOK_S)

    def _say(self, number: int, kind: str, value: int) -> None:
        os.write(self._reports_in, f"{number} {kind} {time.monotonic()} {value}\n".encode())


@contextmanager
def fleet(size: int, config: GossipConfig) -> Generator[Fleet]:
    """Lend a fleet that does not run yet."""
    with tempfile.TemporaryDirectory(prefix="hivewire-bench-") as directory:
        made = Fleet(size, config, Path(directory))
        try:
            yield made
        finally:
            with contextlib.suppress(OSError):
                made.close()


def wait_until_full(made: Fleet, since: float, patience_s: float) -> dict[int, float]:
    """Return when each process saw everybody, in seconds after `since`; a late one is missing."""
    full: dict[int, float] = {}
    deadline = since + patience_s
    while len(full) < made.size and time.monotonic() < deadline:
        for report in made.reports(deadline):
            if report.kind == "full":
                full.setdefault(report.number, report.at - since)
    return full


def gather(made: Fleet, joiners: list[int], patience_s: float) -> None:
    """Start what does not run and let `joiners` join.

    Raises:
        RuntimeError: not all see everybody in time.
    """
    made.start()
    at = time.monotonic()
    made.join(joiners, at)
    if len(wait_until_full(made, at, patience_s)) < made.size:
        raise RuntimeError(f"not all know all within {patience_s} s")


def wait_until_dead(made: Fleet, number: int, since: float, patience_s: float) -> dict[int, float]:
    """Return when each other process declared one dead, in seconds after `since`."""
    dead: dict[int, float] = {}
    deadline = since + patience_s
    while len(dead) < made.size - 1 and time.monotonic() < deadline:
        for report in made.reports(deadline):
            if report.kind == "dead" and report.value == number:
                dead.setdefault(report.number, report.at - since)
    return dead
