"""Bodies and filters that no client should send: one clean answer, and nothing has changed."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.api.backend import InitRequest
from cluster.api.docker_json.canonical import canonical
from cluster.api.docker_json.cluster import read_init, read_join
from cluster.api.docker_json.fields import decode_object_untrusted
from cluster.api.docker_json.network import read_network_spec
from cluster.api.docker_json.node import read_node_spec
from cluster.api.docker_json.service_spec import read_service_spec
from cluster.api.docker_json.service_view import spec_view
from cluster.api.docker_json.text import check_service_name
from cluster.api.exchange import BODY_BYTES_MAX
from cluster.api.filters import read_filters_untrusted
from cluster.api.server import serve
from cluster.model.errors import ClusterError, Invalid
from cluster.model.node import NodeSpec, Role
from tests.unit.api.caller import Caller
from tests.unit.api.memory_backend import MemoryBackend

POSTS = ("/services/create", "/networks/create", "/swarm/update?version=1", "/swarm/join",
         "/secrets/create")  # fmt: skip

_keys = st.sampled_from([
    "Name", "name", "TaskTemplate", "ContainerSpec", "Image", "Args", "Env", "Mode", "Replicated",
    "replicas", "Replicas", "Global", "EndpointSpec", "Ports", "TargetPort", "PublishedPort",
    "Labels", "Networks", "Target", "Resources", "Limits", "NanoCPUs", "RestartPolicy", "Delay",
    "Placement", "Constraints", "Preferences", "Spread", "IPAM", "Config", "Subnet", "Driver",
    "Options", "Spec", "Orchestration", "TaskHistoryRetentionLimit", "DefaultAddrPool",
    "SubnetSize", "RemoteAddrs", "JoinToken", "Role", "Availability", "Hosts", "StopSignal",
])  # fmt: skip
_leaves = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["host", "sleep", "10.1.0.0/16", "manager", "tcp", "default"])
)  # fmt: skip
_json = st.recursive(
    _leaves,
    lambda x: st.lists(x, max_size=3) | st.dictionaries(_keys, x, max_size=5),
    max_leaves=12,
)
_objects = st.dictionaries(_keys, _json, max_size=8)


@given(_objects)
@settings(max_examples=60, deadline=None)
def test_readers_refuse_or_understand(body: dict[str, Any]) -> None:
    readers: tuple[Callable[[dict[str, Any]], object], ...] = (
        read_service_spec, read_network_spec, read_init, read_join,
        lambda b: read_node_spec(b, NodeSpec(Role.WORKER)),
    )  # fmt: skip
    for reader in readers:
        with contextlib.suppress(ClusterError):
            reader(body)


_containers = st.fixed_dictionaries(
    {"Image": st.just("host"), "Args": st.lists(st.text("abc", min_size=1), min_size=1)},
    optional={
        "Env": st.lists(st.from_regex(r"[A-Z]=[a-z]*", fullmatch=True)),
        "Labels": st.dictionaries(st.text("xyz", min_size=1), st.text("é\n =x")),
        "Unheard": _json,
    },
)
_services: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"Name": st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True),
     "TaskTemplate": st.fixed_dictionaries({"ContainerSpec": _containers})},
    optional={"Mode": st.sampled_from([{"Replicated": {"Replicas": 3}}, {"Global": {}}]),
              "Unheard": _json},
)  # fmt: skip


@given(_services)
@settings(max_examples=40, deadline=None)
def test_what_was_shown_can_be_sent_back(body: dict[str, Any]) -> None:
    spec = read_service_spec(body)
    again = read_service_spec(spec_view(spec))
    assert again == spec
    full = read_service_spec(spec_view(spec, insert_defaults=True))
    assert full.task == spec.task


@given(_objects)
@settings(deadline=None)
def test_canonical_is_a_fixed_point(body: dict[str, Any]) -> None:
    once = canonical(body)
    assert canonical(once) == once
    assert None not in once.values()


@given(st.binary(max_size=60))
def test_any_body_is_decoded_or_refused(body: bytes) -> None:
    with contextlib.suppress(Invalid):
        assert isinstance(decode_object_untrusted(body), dict)


@given(st.text(max_size=40))
def test_any_filter_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(Invalid):
        read_filters_untrusted(text, frozenset({"name"}))


def test_a_long_name_is_refused_at_once() -> None:
    with pytest.raises(Invalid):
        check_service_name("a" * 62 + "!")


BODIES = [
    b"", b" ", b"{", b"[]", b"5", b'"x"', b"null", b"{]", b'{"Name": NaN}', b"\xff\xfe",
    b'{"Name": "\\ud800"}', b'{"a":' * 50_000, b'{"a":' * 200 + b"1" + b"}" * 200,
    b'{"Name": 1' + b"0" * 10_000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
async def test_malformed_bodies(
    api: Caller, backend: MemoryBackend, path: str, body: bytes
) -> None:
    before = backend.snapshot()
    headers = {"Content-Type": "application/json"}
    async with api.client.post(path, data=body, headers=headers) as response:
        assert response.status == 400
        assert response.headers["Content-Type"] == "application/json"
        assert (await response.json())["message"]
    assert backend.snapshot() is before


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_huge_bodies(api: Caller, *, is_chunked: bool) -> None:
    size = BODY_BYTES_MAX + 1

    async def pieces() -> Any:  # noqa: ANN401
        for _ in range(size // 65536 + 1):
            yield b" " * 65536

    data: Any = pieces() if is_chunked else io.BytesIO(b" " * size)
    headers = {"Content-Type": "application/json"}
    async with api.client.post("/services/create", data=data, headers=headers) as response:
        assert response.status == 413
        assert "larger than" in (await response.json())["message"]


async def test_a_huge_body_is_refused_before_it_comes(tmp_path: Path) -> None:
    backend = MemoryBackend()
    await backend.swarm_init(InitRequest())
    async with serve(backend, tmp_path / "d.sock"):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "d.sock"))
        writer.write(
            b"POST /v1.51/services/create HTTP/1.1\r\nHost: d\r\n"
            b"Content-Type: application/json\r\nContent-Length: 10000000\r\n\r\n"
        )
        answer = await reader.readuntil(b"}")
        writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b'{"message":"the request body is larger than 4194304 bytes"}')


async def test_other_content_types_are_refused(api: Caller) -> None:
    async with api.client.post("/services/create", data={"Name": "x"}) as response:
        assert response.status == 400
        assert "Content-Type" in (await response.json())["message"]


async def test_a_body_that_is_not_what_its_encoding_says(api: Caller) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    async with api.client.post("/services/create", data=b"{}", headers=headers) as response:
        assert response.status == 400
