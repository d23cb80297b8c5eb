"""An API over an in-memory node, and short ways to call it."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from tests.unit.api.caller import Caller, serving
from tests.unit.api.memory_backend import MemoryBackend


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()


@pytest.fixture
async def outside(backend: MemoryBackend) -> AsyncGenerator[Caller]:
    """Return a node in no cluster."""
    async with serving(backend) as caller:
        yield caller


@pytest.fixture
async def api(outside: Caller) -> Caller:
    """Return the manager of a cluster of one."""
    await outside.post("/swarm/init", {})
    return outside
