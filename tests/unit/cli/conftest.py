"""A daemon over an in-memory node, and the command line that talks to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from click.testing import CliRunner

from cluster.api.server import serve
from cluster.cli.main import main
from tests.unit.api.memory_backend import MemoryBackend


class Shell:
    """Runs commands in this process, while the daemon answers in its event loop."""

    def __init__(self, socket: Path, backend: MemoryBackend) -> None:
        self.socket = socket
        self.backend = backend

    async def run(self, *arguments: str, code: int = 0, stdin: str = "") -> str:
        """Return what the command printed, checked for its exit code."""
        result = await asyncio.to_thread(
            CliRunner().invoke, main, ["-H", f"unix://{self.socket}", *arguments], stdin
        )
        assert result.exit_code == code, result.output
        return result.output


@pytest.fixture
async def outside(tmp_path: Path) -> AsyncGenerator[Shell]:
    """Return a shell on a node in no cluster."""
    backend = MemoryBackend()
    async with serve(backend, tmp_path / "d.sock"):
        yield Shell(tmp_path / "d.sock", backend)


@pytest.fixture
async def shell(outside: Shell) -> Shell:
    """Return a shell on the manager of a cluster of one."""
    await outside.run("swarm", "init")
    return outside
