"""The API on its unix socket."""

from __future__ import annotations

import stat
from pathlib import Path

import aiohttp
import pytest

from cluster.api.server import serve
from tests.unit.api.memory_backend import MemoryBackend


async def ping(path: Path) -> int:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.get("http://localhost/_ping") as response,
    ):
        return response.status


async def test_socket_is_for_owner_and_group_and_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    async with serve(MemoryBackend(), path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert await ping(path) == 200
    assert not path.exists()


async def test_what_a_dead_daemon_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    async with serve(MemoryBackend(), path):
        (tmp_path / "left.sock").hardlink_to(path)
    async with serve(MemoryBackend(), tmp_path / "left.sock"):
        assert await ping(tmp_path / "left.sock") == 200


async def test_a_living_daemon_keeps_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    async with serve(MemoryBackend(), path):
        with pytest.raises(FileExistsError):
            async with serve(MemoryBackend(), path):
                pass
        assert await ping(path) == 200
