"""Short ways to call an API under test."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp.test_utils import TestClient, TestServer

from cluster.api.events import Events
from cluster.api.metrics import Requests
from cluster.api.server import make_app
from tests.unit.api.memory_backend import MemoryBackend

HOST_IMAGE = "host"


class Caller:
    """Calls, and checks the status of what comes back."""

    def __init__(self, client: TestClient[Any, Any], events: Events) -> None:
        self.client = client
        self.events = events

    async def get(self, path: str, expect: int = 200, **query: str) -> Any:  # noqa: ANN401
        return await self.call("GET", path, expect, query=query)

    async def post(self, path: str, body: object = None, expect: int = 200, **query: str) -> Any:  # noqa: ANN401
        return await self.call("POST", path, expect, body, query)

    async def delete(self, path: str, expect: int = 200, **query: str) -> Any:  # noqa: ANN401
        return await self.call("DELETE", path, expect, query=query)

    async def refused(
        self, method: str, path: str, status: int, body: object = None, **query: str
    ) -> str:
        """Return the text of a refusal."""
        answer = await self.call(method, path, status, body, query)
        assert list(answer) == ["message"]
        assert isinstance(answer["message"], str)
        return answer["message"]

    async def call(
        self,
        method: str,
        path: str,
        status: int,
        body: object = None,
        query: dict[str, str] | None = None,
    ) -> Any:  # noqa: ANN401
        headers = {} if body is None else {"Content-Type": "application/json"}
        data = None if body is None else msgspec.json.encode(body)
        async with self.client.request(
            method, path, params=query, data=data, headers=headers
        ) as response:
            text = await response.read()
            assert response.status == status, text
            if not text:
                return None
            assert response.headers["Content-Type"] == "application/json"
            return msgspec.json.decode(text)


@asynccontextmanager
async def serving(backend: MemoryBackend) -> AsyncGenerator[Caller]:
    """Serve a node's API on the loopback interface."""
    events = Events(backend)
    async with TestClient(TestServer(make_app(backend, events, Requests()))) as client:
        yield Caller(client, events)


def filters(**wanted: list[str]) -> str:
    """Return filters as clients send them."""
    return msgspec.json.encode({k: dict.fromkeys(v, True) for k, v in wanted.items()}).decode()


def service_spec(name: str = "web", **changes: object) -> dict[str, object]:
    """Return the least that a service needs."""
    return {
        "Name": name,
        "TaskTemplate": {"ContainerSpec": {"Image": HOST_IMAGE, "Args": ["sleep", "1000"]}},
        **changes,
    }


def container(**changes: object) -> dict[str, object]:
    """Return a service spec with these keys in its container spec."""
    return service_spec(
        TaskTemplate={"ContainerSpec": {"Image": "host", "Args": ["sleep"], **changes}}
    )
