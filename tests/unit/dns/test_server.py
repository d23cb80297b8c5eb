"""The server over loopback sockets: plans, UDP, TCP, upstreams."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import cast

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest

from dataplane.dns.codec import Rcode
from dataplane.dns.forwarder import Forwarder, Patience
from dataplane.dns.server import DnsServer, Sockets, open_listening_sockets
from dataplane.plan import Name, NodePlan
from tests.unit.dns.test_zone import PLAN, RED, address
from tests.unit.virtual_time import virtual

LOOPBACK = ("127.0.0.1", 0)
MANY = replace(
    PLAN,
    networks=(
        replace(RED, names=(Name("tasks.web", tuple(address(n) for n in range(100))),)),
        PLAN.networks[1],
    ),
)


class Sandboxes:
    """Gives each sandbox a port of its own on the loopback, and refuses those that are gone."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self.gone: set[str] = set()

    def open(self, path: Path) -> Sockets:
        if path.name in self.gone:
            raise FileNotFoundError(str(path))
        udp, tcp = open_listening_sockets(LOOPBACK)
        self.ports[path.name] = udp.getsockname()[1]
        return udp, tcp


class Upstream(asyncio.DatagramProtocol):
    """A resolver that answers what it is told to."""

    def __init__(self, answer: Callable[[dns.message.Message], bytes | None]) -> None:
        self.answer = answer
        self.questions: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        message = dns.message.from_wire(data)
        self.questions.append(message.question[0].name.to_text())
        response = self.answer(message)
        if response is not None:
            self.transport.sendto(response, addr)


def with_rcode(rcode: dns.rcode.Rcode) -> Callable[[dns.message.Message], bytes]:
    def answer(message: dns.message.Message) -> bytes:
        response = dns.message.make_response(message)
        response.set_rcode(rcode)
        return response.to_wire()

    return answer


def silence(_: dns.message.Message) -> None:
    return None


class Upstreams:
    """Starts resolvers on the loopback."""

    def __init__(self) -> None:
        self._started: list[Upstream] = []

    async def start(
        self, answer: Callable[[dns.message.Message], bytes | None]
    ) -> tuple[Upstream, tuple[str, int]]:
        _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: Upstream(answer), local_addr=LOOPBACK
        )
        self._started.append(protocol)
        return protocol, protocol.transport.get_extra_info("sockname")

    def close(self) -> None:
        for protocol in self._started:
            protocol.transport.close()


@pytest.fixture
async def upstreams() -> AsyncIterator[Upstreams]:
    upstreams = Upstreams()
    yield upstreams
    upstreams.close()
    await asyncio.sleep(0)  # a transport closes its socket in the next turn


@pytest.fixture
def sandboxes() -> Sandboxes:
    return Sandboxes()


@pytest.fixture
async def server(sandboxes: Sandboxes) -> AsyncIterator[DnsServer]:
    server = DnsServer(sandboxes.open, (), Random(1))
    yield server
    await server.close()


async def apply(server: DnsServer, plan: NodePlan) -> None:
    await server.apply(plan, lambda sandbox_id: Path("/sandboxes") / sandbox_id)


async def udp(port: int, name: str, type_: str = "A") -> dns.message.Message:
    query = dns.message.make_query(name, type_)
    return await dns.asyncquery.udp(
        query, "127.0.0.1", port=port, timeout=5, raise_on_truncation=False
    )


async def tcp(port: int, name: str) -> dns.message.Message:
    query = dns.message.make_query(name, "A")
    return await dns.asyncquery.tcp(query, "127.0.0.1", port=port, timeout=5)


def count(message: dns.message.Message) -> int:
    return sum(len(rrset) for rrset in message.answer)


async def test_sandboxes_are_answered_from_the_plan(
    server: DnsServer, sandboxes: Sandboxes
) -> None:
    await apply(server, PLAN)
    assert "10.0.0.2" in (await udp(sandboxes.ports["in-red"], "WEB")).answer[0].to_text()
    assert "10.0.0.102" in (await udp(sandboxes.ports["in-both"], "web")).answer[0].to_text()
    assert (await udp(sandboxes.ports["alone"], "web")).rcode() is dns.rcode.NXDOMAIN
    assert server.stats().sandboxes == 3
    assert server.stats().answered == 3


async def test_apply_swaps_opens_and_closes(server: DnsServer, sandboxes: Sandboxes) -> None:
    sandboxes.gone = {"alone"}
    await apply(server, PLAN)
    assert sandboxes.ports.keys() == {"in-red", "in-both"}
    before = dict(sandboxes.ports)
    sandboxes.gone = set()
    await apply(server, replace(MANY, sandboxes=(PLAN.sandboxes[0], PLAN.sandboxes[2])))
    assert sandboxes.ports["in-red"] == before["in-red"]
    assert sandboxes.ports.keys() == {"in-red", "in-both", "alone"}
    assert server.stats().sandboxes == 2
    assert (await udp(before["in-red"], "web")).rcode() is dns.rcode.NXDOMAIN
    with pytest.raises(ConnectionRefusedError):
        await tcp(before["in-both"], "web")


async def test_what_does_not_fit_is_asked_again_over_tcp(
    server: DnsServer, sandboxes: Sandboxes
) -> None:
    await apply(server, MANY)
    cut = await udp(sandboxes.ports["in-red"], "tasks.web")
    assert cut.flags & dns.flags.TC
    assert 0 < count(cut) < 100
    assert count(await tcp(sandboxes.ports["in-red"], "tasks.web")) == 100


async def test_junk_is_counted_and_ends_a_stream(server: DnsServer, sandboxes: Sandboxes) -> None:
    await apply(server, PLAN)
    port = sandboxes.ports["in-red"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"junk", ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\0\4junk")
    assert await reader.read() == b""
    writer.close()
    assert count(await udp(port, "web")) == 1
    assert server.stats().malformed == 2


async def test_unknown_names_go_to_the_first_useful_upstream(
    sandboxes: Sandboxes, upstreams: Upstreams
) -> None:
    refusing, first = await upstreams.start(with_rcode(dns.rcode.REFUSED))
    knowing, second = await upstreams.start(with_rcode(dns.rcode.NXDOMAIN))
    idle, third = await upstreams.start(silence)
    server = DnsServer(sandboxes.open, (first, second, third), Random(1))
    await apply(server, PLAN)
    assert (await udp(sandboxes.ports["in-red"], "Example.com")).rcode() is dns.rcode.NXDOMAIN
    assert refusing.questions == knowing.questions == ["Example.com."]
    assert idle.questions == []
    stats = server.stats()
    assert (stats.forwarded, stats.upstream_failures, stats.in_flight) == (1, 1, 0)
    await server.close()


async def test_when_every_upstream_refuses_the_last_refusal_is_passed_on(
    sandboxes: Sandboxes, upstreams: Upstreams
) -> None:
    _, refusing = await upstreams.start(with_rcode(dns.rcode.REFUSED))
    _, failing = await upstreams.start(with_rcode(dns.rcode.SERVFAIL))
    server = DnsServer(sandboxes.open, (failing, refusing), Random(1))
    await apply(server, PLAN)
    assert (await udp(sandboxes.ports["in-red"], "example.com")).rcode() is dns.rcode.REFUSED
    await server.close()


async def test_upstreams_that_are_silent_or_not_there_are_passed_over(upstreams: Upstreams) -> None:
    mute, silent = await upstreams.start(silence)
    _, knowing = await upstreams.start(with_rcode(dns.rcode.NOERROR))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(LOOPBACK)
        nobody: tuple[str, int] = unused.getsockname()
    answers: asyncio.Queue[object] = asyncio.Queue()
    query = dns.message.make_query("example.com", "A").to_wire()
    patience = Patience(turn_s=0.02)
    forwarder = Forwarder((nobody, silent, knowing), Random(1), patience=patience)
    forwarder.forward(query, answers.put_nowait)
    response = await answers.get()
    assert isinstance(response, bytes)
    assert response[:2] == query[:2]
    assert forwarder.failures == 2
    assert forwarder.in_flight == 0
    asked = len(mute.questions)
    for _ in range(3):  # who was silent is not waited for any more
        forwarder.forward(query, answers.put_nowait)
        assert isinstance(await answers.get(), bytes)
    assert len(mute.questions) == asked == 1
    hopeless = Forwarder((nobody,), Random(1))
    hopeless.forward(query, answers.put_nowait)
    assert await answers.get() is Rcode.SERVFAIL


@virtual
async def test_a_question_takes_only_so_long_and_the_next_one_less() -> None:
    clock = asyncio.get_running_loop().time
    answers: asyncio.Queue[object] = asyncio.Queue()
    query = dns.message.make_query("example.com", "A").to_wire()
    patience = Patience(timeout_s=0.5, turn_s=0.1, down_timeout_s=0.02)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_server(LOOPBACK)) for _ in range(3)]
        for listener in silent:  # takes questions over UDP as well, and never answers
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            stack.enter_context(udp).bind(listener.getsockname())
        forwarder = Forwarder([s.getsockname() for s in silent], Random(1), patience=patience)
        for limit_s in (0.5, 0.02, 0.02):
            begun = clock()
            forwarder.forward(query, answers.put_nowait)
            assert await answers.get() is Rcode.SERVFAIL
            assert clock() - begun == pytest.approx(limit_s)
        begun = clock()
        assert await forwarder.forward_stream(query) is Rcode.SERVFAIL
        assert clock() - begun == pytest.approx(0.02)
    assert forwarder.in_flight == 0


async def test_an_upstream_that_is_back_is_used_at_once(upstreams: Upstreams) -> None:
    first, where = await upstreams.start(silence)
    answers: asyncio.Queue[object] = asyncio.Queue()
    query = dns.message.make_query("example.com", "A").to_wire()
    patience = Patience(timeout_s=0.05, turn_s=0.01, down_timeout_s=5.0)
    forwarder = Forwarder((where,), Random(1), patience=patience)
    forwarder.forward(query, answers.put_nowait)
    assert await answers.get() is Rcode.SERVFAIL
    first.answer = with_rcode(dns.rcode.NOERROR)
    forwarder.forward(query, answers.put_nowait)
    assert isinstance(await answers.get(), bytes)


async def test_too_many_questions_are_refused(upstreams: Upstreams) -> None:
    _, silent = await upstreams.start(silence)
    answers: list[object] = []
    forwarder = Forwarder((silent,), Random(1), exchanges_max=2)
    for number in range(3):
        forwarder.forward(bytes([0, number]) + b"\1" + b"\0" * 20, answers.append)
    assert answers == [Rcode.REFUSED]
    assert await forwarder.forward_stream(b"") is Rcode.REFUSED
    forwarder.close()
    assert forwarder.in_flight == 0


async def test_streams_are_forwarded_as_streams(sandboxes: Sandboxes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        response = with_rcode(dns.rcode.NXDOMAIN)(dns.message.from_wire(data))
        writer.write(len(response).to_bytes(2) + response)
        writer.close()

    async with await asyncio.start_server(answer, *LOOPBACK) as resolver:
        server = DnsServer(sandboxes.open, (resolver.sockets[0].getsockname(),), Random(1))
        await apply(server, PLAN)
        assert (await tcp(sandboxes.ports["in-red"], "x.org")).rcode() is dns.rcode.NXDOMAIN
    await server.close()
