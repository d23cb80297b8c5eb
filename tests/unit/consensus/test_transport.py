"""Who may have a session, and what a session survives, over loopback TLS."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.consensus.identity import ROLE_MANAGER_OU
from cluster.consensus.links import GREETING_S
from cluster.consensus.messages import (
    PROTOCOL,
    FrameBuffer,
    Hello,
    Message,
    NewerTerm,
    RefusalReason,
    Refused,
    Welcome,
    decode_untrusted,
    encode,
)
from cluster.consensus.node import RaftNode
from tests.unit.consensus.certificates import Authority, client_context
from tests.unit.consensus.managers import Cluster, running, until


def hello(cluster: Cluster, *, epoch: tuple[int, int] = (1000, 1)) -> Hello:
    return Hello(PROTOCOL, "n1", cluster.disks["n1"], "127.0.0.1", 1, epoch)


class Caller:
    """A connection to `n0`, made by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.frames = FrameBuffer()

    def send(self, *messages: Message) -> None:
        self.writer.write(b"".join(map(encode, messages)))

    async def answer(self) -> Message | None:
        """Return the next message, or None at the end of the connection."""
        while data := await self.reader.read(4096):
            bodies = self.frames.feed_untrusted(data)
            if bodies:
                return decode_untrusted(bodies[0])
        return None

    async def is_cut_off(self) -> bool:
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True

    async def close(self) -> None:
        self.writer.transport.abort()
        await asyncio.sleep(0)


async def call(
    cluster: Cluster, *, certificate: Path | None, authority: Authority | None = None
) -> Caller:
    context = client_context(cluster.authority, certificate)
    if authority is not None:
        context.load_verify_locations(authority.ca_path)
    reader, writer = await asyncio.open_connection(
        *cluster.addresses["n0"], ssl=context, server_hostname="n0"
    )
    return Caller(reader, writer)


def node(cluster: Cluster) -> RaftNode:
    return cluster.running["n0"].node


async def test_member_is_welcome(tmp_path: Path) -> None:
    async with running(tmp_path, 2) as (cluster, _):
        await cluster.stop("n1")
        caller = await call(cluster, certificate=cluster.certificates["n1"])
        caller.send(hello(cluster))

        assert await caller.answer() == Welcome(cluster.disks["n0"])
        await caller.close()


@pytest.mark.parametrize("kind", ["none", "foreign authority", "expired"])
async def test_untrusted_certificate_gets_no_session(tmp_path: Path, kind: str) -> None:
    async with running(tmp_path, 2) as (cluster, _):
        foreign = tmp_path / "foreign"
        foreign.mkdir()
        certificates = {
            "none": None,
            "foreign authority": Authority(foreign).issue("n1"),
            "expired": cluster.authority.issue("n1", is_expired=True),
        }
        with pytest.raises((ssl.SSLError, ConnectionError)):  # noqa: PT012 - TLS 1.3: late
            caller = await call(cluster, certificate=certificates[kind])
            caller.send(hello(cluster))
            if await caller.answer() is None:
                raise ConnectionError("closed")


@pytest.mark.parametrize(
    ("role", "organization"),
    [("hivewire-worker", "cluster-1"), (ROLE_MANAGER_OU, "cluster-2"), ("", "")],
)
async def test_certificate_of_no_manager_of_ours_is_cut_off(
    tmp_path: Path, role: str, organization: str
) -> None:
    async with running(tmp_path, 2) as (cluster, _):
        wrong = cluster.authority.issue("n1", role=role or "x", cluster=organization or "x")
        # A joiner may have called before it was a member.
        before = Counter(node(cluster).stats().mesh.refused)
        caller = await call(cluster, certificate=wrong)
        caller.send(hello(cluster))

        assert await caller.is_cut_off()
        assert Counter(node(cluster).stats().mesh.refused) - before == {"CERTIFICATE": 1}
        await caller.close()


@pytest.mark.parametrize(
    ("certified", "changes", "reason"),
    [
        ("stranger", {"node_id": "stranger"}, RefusalReason.NOT_A_MEMBER),
        ("stranger", {"node_id": "n1"}, RefusalReason.IDENTITY),
        ("n1", {"protocol": 99}, RefusalReason.PROTOCOL),
        ("n1", {"disk_id": "another"}, RefusalReason.OTHER_DISK),
        ("n1", {"epoch": (0, 0)}, RefusalReason.STALE),
    ],
)
async def test_hello_that_is_not_in_order_is_refused(
    tmp_path: Path, certified: str, changes: dict[str, Any], reason: RefusalReason
) -> None:
    async with running(tmp_path, 2) as (cluster, _):
        await until(lambda: node(cluster).stats().mesh.sessions_in == ("n1",))
        caller = await call(cluster, certificate=cluster.authority.issue(certified))
        caller.send(msgspec.structs.replace(hello(cluster), **changes))

        assert await caller.answer() == Refused(reason)
        assert await caller.is_cut_off()
        await caller.close()


async def test_removed_member_is_told(tmp_path: Path) -> None:
    async with running(tmp_path, 2) as (cluster, _):
        await node(cluster).remove_member("n1")
        await cluster.stop("n1")
        caller = await call(cluster, certificate=cluster.certificates["n1"])
        caller.send(hello(cluster))

        assert await caller.answer() == Refused(RefusalReason.REMOVED)
        await caller.close()


async def test_newest_session_wins(tmp_path: Path) -> None:
    async with running(tmp_path, 2) as (cluster, _):
        await cluster.stop("n1")
        first, second = [
            await call(cluster, certificate=cluster.certificates["n1"]) for _ in range(2)
        ]
        first.send(hello(cluster))
        assert isinstance(await first.answer(), Welcome)

        second.send(hello(cluster, epoch=(1000, 2)))
        assert isinstance(await second.answer(), Welcome)

        assert await first.is_cut_off()
        await second.close()


@pytest.mark.parametrize(
    "junk",
    [
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x05hello",
        b"\x00\x00\x00\x00",
        encode(NewerTerm(9)),
        encode(Welcome("d")),
    ],
)
@pytest.mark.parametrize("is_greeted", [False, True])
async def test_junk_is_counted_and_cut_off(
    tmp_path: Path, junk: bytes, *, is_greeted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with running(tmp_path, 2) as (cluster, _):
        await cluster.stop("n1")
        caller = await call(cluster, certificate=cluster.certificates["n1"])
        if is_greeted:
            caller.send(hello(cluster))
            assert isinstance(await caller.answer(), Welcome)
            junk = junk if junk != encode(NewerTerm(9)) else encode(hello(cluster))

        caller.writer.write(junk)

        assert await caller.is_cut_off()
        assert node(cluster).stats().mesh.malformed == 1
        assert not caplog.records
        await caller.close()


async def test_silent_connection_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert GREETING_S > 1
    monkeypatch.setattr("cluster.consensus.links.GREETING_S", 0.05)
    async with running(tmp_path, 2) as (cluster, _):
        caller = await call(cluster, certificate=cluster.certificates["n1"])

        assert await caller.is_cut_off()
        await caller.close()


async def test_too_many_silent_connections_are_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.consensus.transport._GREETINGS_MAX", 2)
    async with running(tmp_path, 1) as (cluster, _):
        certificate = cluster.authority.issue("n1")
        callers = [await call(cluster, certificate=certificate) for _ in range(3)]

        assert await callers[2].is_cut_off()
        for caller in callers:
            await caller.close()


async def test_session_of_a_stopped_member_is_opened_again(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as (cluster, group):
        await cluster.stop("n2")
        await until(lambda: node(cluster).stats().mesh.sessions_out == ("n1",))

        await cluster.start(group, "n2", None)

        await until(lambda: node(cluster).stats().mesh.sessions_out == ("n1", "n2"))
        await until(lambda: node(cluster).stats().mesh.sessions_in == ("n1", "n2"))


async def test_dialler_hangs_up_on_another_manager(tmp_path: Path) -> None:
    """A certificate whose DNS name is `n1` but whose common name is not."""
    async with running(tmp_path, 2) as (cluster, group):
        await cluster.stop("n1")
        cluster.certificates["n1"] = cluster.authority.issue("n1", subject="n9")
        failed = node(cluster).stats().mesh.dials_failed
        await cluster.start(group, "n1", None)

        await until(lambda: node(cluster).stats().mesh.dials_failed > failed + 1)

        assert node(cluster).stats().mesh.sessions_out == ()
