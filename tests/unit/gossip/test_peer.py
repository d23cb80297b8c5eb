"""Peers over real loopback sockets: datagrams, streams in TLS and not, junk, and leaving."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gossip.memory import MemoryAuthority
from gossip.peer import (
    Address,
    GossipConfig,
    GossipKey,
    InvalidError,
    KeyState,
    Peer,
    State,
)

KEYS = (GossipKey(1, b"k" * 32, KeyState.PRIMARY),)
FAST = replace(
    GossipConfig.local(),
    probe_interval_s=0.05,
    probe_timeout_s=0.03,
    probe_timeout_min_s=0.01,
    suspicion_floor_s=0.1,
)
CALM = replace(GossipConfig.local(), probe_interval_s=2.0, probe_timeout_s=1.0)
LOOPBACK = ("127.0.0.1", 0)
Contexts = Callable[[], ssl.SSLContext]


def _peer(
    tmp_path: Path,
    name: str,
    *,
    config: GossipConfig = CALM,
    server_ssl: Contexts | None = None,
    client_ssl: Contexts | None = None,
) -> Peer:
    return Peer(
        node_id=name,
        cluster_id="c",
        data_address="127.0.0.1",
        config=config,
        keys=KEYS,
        identity=MemoryAuthority("c").identity(name),
        state_directory=tmp_path / name,
        rng=Random(name),
        server_ssl=server_ssl,
        client_ssl=client_ssl,
    )


@asynccontextmanager
async def _running(*peers: Peer) -> AsyncGenerator[list[asyncio.Task[None]]]:
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[None]] = []
        for peer in peers:
            tasks.append(group.create_task(peer.run(LOOPBACK, LOOPBACK)))
            await peer.ready.wait()
        for peer in peers[1:]:
            peer.join([_address(peers[0])])
        yield tasks
        for task in tasks:
            task.cancel()


def _address(peer: Peer) -> Address:
    assert peer.advertised is not None
    return peer.advertised


async def _wait_until(peers: Sequence[Peer], holds: Callable[[], bool]) -> None:
    """Wait for changes of `peers`, one after the other, until `holds()`."""
    for peer in peers:
        with peer.watch() as changed:
            while not holds():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):  # another peer's change may be the last
                        await changed.wait()
                changed.clear()


def _states(peer: Peer) -> dict[str, State]:
    return {view.node_id: view.state for view in peer.members()}


def _records(peer: Peer) -> dict[tuple[str, str], bytes]:
    return {(view.owner, view.key): view.value for view in peer.records("net")}


async def test_keys_are_known_by_the_time_of_their_state(tmp_path: Path) -> None:
    peer = _peer(tmp_path, "a")
    (first,) = peer.keys()
    fresh = GossipKey(2, b"n" * 32, KeyState.ACCEPT)
    peer.set_keys([*KEYS, fresh])
    kept, added = peer.keys()
    assert (kept, added.state) == (first, KeyState.ACCEPT)
    assert first.since is not None
    assert added.since is not None
    assert added.since > first.since

    peer.set_keys(
        [replace(KEYS[0], state=KeyState.RETIRED), replace(fresh, state=KeyState.PRIMARY)]
    )
    retired, primary = peer.keys()
    assert retired.since == primary.since != added.since


async def test_a_peer_that_is_behind_with_its_keys_says_so(tmp_path: Path) -> None:
    a, b = (_peer(tmp_path, name) for name in "ab")
    a.set_keys([GossipKey(2, b"n" * 32, KeyState.PRIMARY)])
    async with _running(b, a):  # a looks for b
        await b.keys_wanted.wait()
        assert _states(b) == {"b": State.ALIVE}
        b.set_keys([GossipKey(2, b"n" * 32, KeyState.PRIMARY)])
        await _wait_until([a, b], lambda: len(_states(a)) == len(_states(b)) == 2)


async def test_peers_meet_share_records_and_notice_a_death(tmp_path: Path) -> None:
    peers = [_peer(tmp_path, name, config=FAST) for name in "abc"]
    for peer in peers:
        peer.attach("net")
    peers[0].publish("net", "key", b"before it runs")
    async with _running(*peers) as tasks:
        await _wait_until(peers, lambda: all(len(_states(peer)) == 3 for peer in peers))
        truth = {("a", "key"): b"before it runs"}
        await _wait_until(peers, lambda: all(_records(peer) == truth for peer in peers))
        peers[0].withdraw("net", "key")
        peers[1].publish("net", "key", b"1")
        truth = {("b", "key"): b"1"}
        await _wait_until(peers, lambda: all(_records(peer) == truth for peer in peers))
        tasks[1].cancel()
        rest = [peers[0], peers[2]]
        await _wait_until(rest, lambda: all(_states(p)["b"] is State.DEAD for p in rest))
        assert all(_records(peer) == {} for peer in rest)


async def test_process_that_died_is_noticed_by_refused_packets(tmp_path: Path) -> None:
    """Without them it takes 4 s at least."""
    config = replace(GossipConfig.lan(), watch_interval_s=0.1, refused_suspicion_s=0.2)
    peers = [_peer(tmp_path, name, config=config) for name in "abcd"]
    async with _running(*peers) as tasks:
        await _wait_until(peers, lambda: all(len(_states(peer)) == 4 for peer in peers))
        tasks[1].cancel()
        rest = [peers[0], peers[2], peers[3]]
        async with asyncio.timeout(3.0):
            await _wait_until(rest, lambda: all(_states(p)["b"] is State.DEAD for p in rest))
        assert all(peer.stats().machine.counters.suspicions_refused >= 1 for peer in rest)


async def test_leaver_is_known_to_have_left(tmp_path: Path) -> None:
    a, b = _peer(tmp_path, "a"), _peer(tmp_path, "b")
    async with _running(a, b):
        await _wait_until([a, b], lambda: len(_states(a)) == len(_states(b)) == 2)
        await b.leave()
        await _wait_until([a], lambda: _states(a)["b"] is State.LEFT)


def _certificate() -> tuple[bytes, bytes]:
    """Return a certificate for the loopback address, its own issuer, and its key (PEM)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "node")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem, private


def _context(directory: Path, purpose: ssl.Purpose) -> ssl.SSLContext:
    context = ssl.create_default_context(purpose, cafile=str(directory / "crt"))
    context.load_cert_chain(directory / "crt", directory / "key")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _tls(directory: Path) -> tuple[Contexts, Contexts]:
    certificate, key = _certificate()
    (directory / "crt").write_bytes(certificate)
    (directory / "key").write_bytes(key)
    return (
        lambda: _context(directory, ssl.Purpose.CLIENT_AUTH),
        lambda: _context(directory, ssl.Purpose.SERVER_AUTH),
    )


@pytest.mark.parametrize("is_tls", [False, True])
async def test_much_goes_over_a_stream(tmp_path: Path, *, is_tls: bool) -> None:
    server_ssl, client_ssl = _tls(tmp_path) if is_tls else (None, None)
    a = _peer(tmp_path, "a", server_ssl=server_ssl, client_ssl=client_ssl)
    b = _peer(tmp_path, "b", server_ssl=server_ssl, client_ssl=client_ssl)
    for peer in (a, b):
        peer.attach("net")
    for number in range(1500):
        a.publish("net", f"key{number}", b"v" * 200)
    async with _running(a, b):
        await _wait_until([b], lambda: len(_records(b)) == 1500)
        assert a.stats().machine.counters.streams_out >= 1
        assert b.stats().shell.streams_in >= 1
        assert b.stats().shell.streams_broken == 0


@pytest.mark.parametrize("is_tls", [False, True])
async def test_junk_on_both_ports_is_counted_and_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, is_tls: bool
) -> None:
    server_ssl, client_ssl = _tls(tmp_path) if is_tls else (None, None)
    a = _peer(tmp_path, "a", server_ssl=server_ssl, client_ssl=client_ssl)
    b = _peer(tmp_path, "b", server_ssl=server_ssl, client_ssl=client_ssl)
    loop = asyncio.get_running_loop()
    rng = Random(1)
    async with _running(a, b):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            for size in range(0, 2000, 20):
                await loop.sock_sendto(sender, rng.randbytes(size), _address(a))
        for junk in (b"\0", b"\xff" * 50, b"\0\0\0\x10" + rng.randbytes(16), b"GET / HTTP/1.1\r\n"):
            _, writer = await asyncio.open_connection(*_address(a))
            writer.write(junk)
            await writer.drain()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        await _wait_until([a, b], lambda: len(_states(a)) == len(_states(b)) == 2)
        b.attach("net")
        b.publish("net", "key", b"1")
        a.attach("net")
        await _wait_until([a], lambda: _records(a) == {("b", "key"): b"1"})
        counters = a.stats().machine.counters
        assert counters.malformed + counters.unknown_key + counters.unauthentic >= 100
        while a.stats().shell.streams_broken < 3:
            await asyncio.sleep(0.01)
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_half_open_connections_are_limited(tmp_path: Path) -> None:
    a, b = _peer(tmp_path, "a"), _peer(tmp_path, "b")
    async with _running(a, b), contextlib.AsyncExitStack() as stack:
        closed = 0
        for _ in range(20):
            reader, writer = await asyncio.open_connection(*_address(a))
            stack.callback(writer.close)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    closed += await reader.read(1) == b""
        assert closed == 16
        assert a.stats().shell.streams_refused == 16
        with socket.socket() as other:  # those of another address are taken
            other.bind(("127.0.0.2", 0))
            other.connect(_address(a))
            await _wait_until([a], lambda: a.stats().shell.streams_in == 5)


async def test_address_that_cannot_be_reached_harms_nobody(tmp_path: Path) -> None:
    a, b = _peer(tmp_path, "a"), _peer(tmp_path, "b")
    async with _running(a, b):
        b.join([("::1", 9), ("255.255.255.255", 9), _address(a)])
        await _wait_until([a, b], lambda: len(_states(a)) == len(_states(b)) == 2)
        assert b.stats().shell.send_errors >= 1


async def test_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    a, b = _peer(tmp_path, "a"), _peer(tmp_path, "b")
    async with _running(a):
        with pytest.raises(OSError, match="in use"):
            await b.run(_address(a), _address(a))


async def test_watch_is_silent_when_nothing_changes(tmp_path: Path) -> None:
    a = _peer(tmp_path, "a")
    async with _running(a):
        a.attach("net")
        with a.watch() as changed:
            a.publish("net", "key", b"1")
            assert changed.is_set()
            changed.clear()
            a.publish("net", "key", b"1")
            a.attach("net")
            a.join([])
            assert not changed.is_set()


def test_unusable_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidError):
        _peer(tmp_path, "n" * 33)
    with pytest.raises(InvalidError):
        _peer(tmp_path, "a").join([("localhost", 1)])
