"""Agents of Debian's serf on loopback, asked over their own RPC protocol (msgpack over TCP)."""

from __future__ import annotations

import base64
import contextlib
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import msgpack

from bench.peers import free_ports, need

_START_S = 20.0
_ANSWER_S = 10.0
_KEY = base64.b64encode(bytes(range(16))).decode()


class Agent:
    """One serf agent: `-profile=lan`, encrypted."""

    def __init__(self, name: str, port: int, rpc_port: int, log: Path) -> None:
        self.name = name
        self.port = port
        self._rpc_port = rpc_port
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                (
                    "serf", "agent", f"-node={name}", f"-bind=127.0.0.1:{port}",
                    f"-rpc-addr=127.0.0.1:{rpc_port}", f"-encrypt={_KEY}", "-profile=lan",
                    "-log-level=err",
                ),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        self._socket: socket.socket | None = None
        self._unpacker = msgpack.Unpacker()
        self._sequence = 0

    def connect(self) -> None:
        """Wait until the agent takes requests."""
        deadline = time.monotonic() + _START_S
        while self._socket is None:
            try:
                self._socket = socket.create_connection(("127.0.0.1", self._rpc_port), _ANSWER_S)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self.send("handshake", {"Version": 1})
        self._receive()

    def send(self, command: str, body: dict[str, object] | None = None) -> None:
        """Send a request and wait for nothing."""
        self._sequence += 1
        data = msgpack.packb({"Command": command, "Seq": self._sequence})
        self._connection().sendall(data + (b"" if body is None else msgpack.packb(body)))

    def join(self, port: int) -> None:
        """Ask the agent to join another, and wait for nothing."""
        self.send("join", {"Existing": [f"127.0.0.1:{port}"], "Replay": False})

    def joined(self) -> None:
        """Take the answer to `join`."""
        head = self._receive()
        if not head.get("Error"):
            self._receive()

    def members(self) -> dict[str, str]:
        """Return the status of every member that the agent knows."""
        self.send("members")
        self._receive()
        members = cast("list[dict[str, object]]", self._receive()["Members"])
        return {str(member["Name"]): str(member["Status"]) for member in members}

    def kill(self) -> None:
        """End the agent at once, if it runs."""
        if self._socket is not None:
            self._socket.close()
        self._process.kill()
        self._process.wait()

    def _connection(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionError(f"agent {self.name} is not connected")
        return self._socket

    def _receive(self) -> dict[str, object]:
        while True:
            with contextlib.suppress(msgpack.OutOfData):
                return cast("dict[str, object]", self._unpacker.unpack())
            data = self._connection().recv(1 << 16)
            if not data:
                raise ConnectionError(f"agent {self.name} hung up")
            self._unpacker.feed(data)


@contextmanager
def agents(size: int, directory: Path) -> Generator[list[Agent]]:
    """Run agents that know nobody yet."""
    need("serf", "serf")
    ports = free_ports(2 * size)
    made: list[Agent] = []
    try:
        for number in range(size):
            log = directory / f"serf{number}.log"
            made.append(Agent(f"s{number}", ports[number], ports[size + number], log))
        for agent in made:
            agent.connect()
        yield made
    finally:
        for agent in made:
            agent.kill()


def full_after(made: list[Agent], since: float, patience_s: float, every_s: float) -> list[float]:
    """Ask in turns until all agents see all alive; return after how long each was seen to.

    Agents that do not within `patience_s` are missing.
    """
    times: list[float] = []
    waiting = list(made)
    while waiting and time.monotonic() < since + patience_s:
        turn_at = time.monotonic()
        for agent in list(waiting):
            if list(agent.members().values()).count("alive") == len(made):
                times.append(time.monotonic() - since)
                waiting.remove(agent)
        time.sleep(max(0.0, every_s - (time.monotonic() - turn_at)))
    return times


def failed_after(made: list[Agent], name: str, since: float, patience_s: float) -> list[float]:
    """Ask in turns until all agents say that one has failed; return after how long each did."""
    times: list[float] = []
    waiting = list(made)
    while waiting and time.monotonic() < since + patience_s:
        for agent in list(waiting):
            if agent.members().get(name) == "failed":
                times.append(time.monotonic() - since)
                waiting.remove(agent)
        time.sleep(0.05)
    return times
