"""Streams in TLS with a cluster's real certificates: whose they are, the certificate says."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path

from cluster.ca.certificates import issue, new_request, new_root_ca
from cluster.ca.files import CertificateDirectory, Credentials
from cluster.ca.tls import tls_contexts
from cluster.model.ids import ClusterId, NodeId
from cluster.model.node import Role
from cluster.node.identity import NodeIdentity
from gossip.keyring import Keyring
from gossip.message import pack
from gossip.peer import Peer
from gossip.wire import Digest, NodeRecord, Stage
from tests.unit.gossip.peers import (
    CLUSTER,
    KEYS,
    MANY,
    Contexts,
    address_of,
    fill,
    make_peer,
    records_of,
    running,
    send_junk,
    send_stream,
    states_of,
    wait_until,
)
from tests.unit.gossip.stranger import Stranger

NOW = datetime.now(tz=UTC).timestamp()
ROOT = new_root_ca(NOW)
A, B, Z = ("a" * 25, "b" * 25, "z" * 25)
ALL = Digest("net", Stage.COMPARE, 2**64 - 1)
"""Asks for everything there is."""


def _certified(
    directory: Path, name: str, *, cluster: str = CLUSTER
) -> tuple[NodeIdentity, Contexts]:
    """Return the identity of a node, and the contexts that show its certificate."""
    request = new_request()
    certificate = issue(
        ROOT, request.csr, node=NodeId(name), role=Role.WORKER, cluster=ClusterId(cluster),
        now=NOW, validity_s=86_400,
    )  # fmt: skip
    credentials = Credentials(ROOT.certificate, certificate, request.key)
    certificates = CertificateDirectory(directory / f"{cluster} {name}")
    certificates.save(credentials)
    identity = NodeIdentity(
        credentials, cluster=ClusterId(cluster), roots=lambda: [ROOT.certificate]
    )
    contexts = tls_contexts(certificates, ClusterId(cluster))
    return identity, (contexts.gossip_server, contexts.gossip_client)


def _peer(directory: Path, name: str) -> Peer:
    identity, contexts = _certified(directory, name)
    return make_peer(directory, name, identity=identity, contexts=contexts)


def _client(directory: Path, name: str, *, cluster: str = CLUSTER) -> ssl.SSLContext:
    return _certified(directory, name, cluster=cluster)[1][1]


def _frame(name: str) -> bytes:
    """Return a frame that says nothing, sealed in the name of a node."""
    body = Keyring(cluster_id=CLUSTER, node_id=name, epoch=2**62, keys=KEYS).seal(pack([]))
    return len(body).to_bytes(4, "big") + body


async def test_much_goes_over_a_stream(tmp_path: Path) -> None:
    a, b = _peer(tmp_path, A), _peer(tmp_path, B)
    fill(a, b)
    async with running(a, b):
        await wait_until([b], lambda: len(records_of(b)) == MANY)
        assert a.stats().machine.counters.streams_out >= 1
        assert b.stats().shell.streams_in >= 1
        assert b.stats().shell.streams_broken == 0
        assert b.stats().machine.counters.impostors == 0


async def test_junk_in_and_outside_tls_harms_nobody(tmp_path: Path) -> None:
    a, b = _peer(tmp_path, A), _peer(tmp_path, B)
    async with running(a, b):
        for context in (None, _client(tmp_path, Z)):
            await send_junk(address_of(a), context=context)
        await wait_until([a, b], lambda: len(states_of(a)) == len(states_of(b)) == 2)
        while a.stats().shell.streams_broken < 7:
            await asyncio.sleep(0.01)


async def test_a_frame_counts_only_in_the_name_of_its_streams_certificate(tmp_path: Path) -> None:
    """Who holds the gossip key can seal in any name; certificates are their bearers' alone."""
    a, b = _peer(tmp_path, A), _peer(tmp_path, B)
    async with running(a, b):
        await wait_until([a, b], lambda: len(states_of(a)) == len(states_of(b)) == 2)
        context = _client(tmp_path, Z)
        await send_stream(address_of(a), _frame(B), context=context)
        while not a.stats().machine.counters.impostors:
            await asyncio.sleep(0.01)
        assert a.stats().shell.streams_broken == 1
        opened = a.keys()[0].opened
        await send_stream(address_of(a), _frame(Z), context=context)
        while a.keys()[0].opened == opened:
            await asyncio.sleep(0.01)
        assert a.stats().machine.counters.impostors == 1
        assert a.stats().shell.streams_broken == 1


async def test_a_certificate_of_another_cluster_opens_nothing(tmp_path: Path) -> None:
    """Even one that the same authority has signed."""
    a = _peer(tmp_path, A)
    async with running(a):
        await send_stream(address_of(a), _frame(Z), context=_client(tmp_path, Z, cluster="other"))
        while not a.stats().shell.streams_broken:
            await asyncio.sleep(0.01)
        assert a.stats().machine.counters.refused_foreign == 1
        assert a.keys()[0].opened == 0


async def test_a_stream_goes_only_to_the_node_that_it_is_for(tmp_path: Path) -> None:
    """A liar says that it is where another listens, and asks for much."""
    a, b = _peer(tmp_path, A), _peer(tmp_path, B)
    fill(a, b)
    async with running(a, b):
        await wait_until([b], lambda: len(records_of(b)) == MANY)
        before = b.stats().machine.counters.bytes_in
        z = Stranger(Z, 2**41, identity=_certified(tmp_path, Z)[0], cluster_id=CLUSTER, keys=KEYS)
        hlc = time.time_ns() // 1_000_000
        lie = NodeRecord(Z, 2**41, 0, *address_of(b), "127.0.0.1", hlc=hlc)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(z.seal(z.offer, z.trust.sign_node(lie)), address_of(a))
            await wait_until([a], lambda: len(states_of(a)) == 3)
            sender.sendto(z.seal(ALL), address_of(a))
        while not a.stats().shell.streams_astray:
            await asyncio.sleep(0.01)
        assert a.stats().machine.counters.streams_failed >= 1
        assert b.stats().machine.counters.bytes_in < before + 100_000
