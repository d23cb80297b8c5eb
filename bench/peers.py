"""Installing and running the peers: programs from Debian, on loopback, ended by their own pid."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.report import say

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0


class PeerMissing(Exception):
    """A peer is not installed and may not be."""


def need(command: str, package: str) -> None:
    """Make sure that a command is there, by apt when root.

    Raises:
        PeerMissing: it is not, and cannot be installed.
    """
    if shutil.which(command):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise PeerMissing(f"this benchmark needs `{command}` (Debian package {package})")
    say(f"installing {package}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
    subprocess.run(
        ["apt-get", "install", "-y", "-qq", package],
        check=True, env=environment, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nothing listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


async def wait_for_port(port: int) -> None:
    """Return when something accepts on the port of loopback."""
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


@asynccontextmanager
async def running(*arguments: str, log: Path) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Run a program while the block runs."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


@asynccontextmanager
async def etcd(members: int = 3) -> AsyncGenerator[list[int]]:
    """Run an etcd cluster on loopback, fsync on, TLS between its members; yield client ports."""
    need("etcd", "etcd-server")
    ports = free_ports(members * 2)
    clients, peers = ports[:members], ports[members:]
    names = [f"e{i}" for i in range(members)]
    urls = [f"https://127.0.0.1:{port}" for port in peers]
    cluster = ",".join(f"{n}={u}" for n, u in zip(names, urls, strict=True))
    with tempfile.TemporaryDirectory(prefix="hivewire-bench-") as directory:
        async with contextlib.AsyncExitStack() as stack:
            for name, url, client in zip(names, urls, clients, strict=True):
                await stack.enter_async_context(
                    running(
                        "etcd", "--name", name, "--data-dir", f"{directory}/{name}",
                        "--listen-client-urls", f"http://127.0.0.1:{client}",
                        "--advertise-client-urls", f"http://127.0.0.1:{client}",
                        "--listen-peer-urls", url, "--initial-advertise-peer-urls", url,
                        "--initial-cluster", cluster, "--peer-auto-tls", "--log-level", "error",
                        log=Path(directory) / f"{name}.log",
                    )
                )  # fmt: skip
            for port in clients:
                await wait_for_port(port)
            yield clients
