"""`python -m tests.e2e.liar DATA_ROOT NETWORK`: what takes a worker's place when it is broken into.

It has all that the node has: its certificate and key, the gossip keys, its allocations. It goes on
saying the truth of its own tasks, and lies besides, until it is killed. Told that the node was
removed, it begins a new life. Run it in the namespace of the node, whose daemon must be dead.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

from cluster.agent.endpoints import endpoint_records, endpoint_values
from cluster.agent.state_file import StateFile
from cluster.allocation.records import (
    INGRESS_SCOPE,
    EndpointRecord,
    Phase,
    Place,
    RecordPort,
    encode,
    encode_body,
)
from cluster.allocation.tokens import TOKEN_BYTES
from cluster.ca.files import CertificateDirectory
from cluster.ca.tls import tls_contexts
from cluster.model.assignment import Assignment, ClusterInfo
from cluster.model.ids import TaskId
from cluster.node import state_file
from cluster.node.identity import NodeIdentity
from dataplane.plan import Protocol
from gossip.config import GossipConfig
from gossip.keyring import KeyState
from gossip.peer import GossipKey, Peer, State

STOLEN_PORT = 9999
LATER = 10**9


def lies(network: str, truth: dict[Place, EndpointRecord]) -> Iterator[tuple[str, EndpointRecord]]:
    """Yield what it would like to be."""
    own = next(r for p, r in truth.items() if p.scope == network)
    offer = next(r for p, r in truth.items() if p.scope == INGRESS_SCOPE)
    own = replace(own, allocation=LATER, service_allocation=LATER)
    yield network, replace(own, task=TaskId("liar1"), address=IPv4Address("10.0.1.200"))
    yield network, replace(own, task=TaskId("liar2"), vip=IPv4Address("10.0.1.201"))
    for last in range(2, 20):  # everybody's address, the gateway's and the virtual one too
        yield network, replace(own, task=TaskId(f"l{last}"), address=IPv4Address(f"10.0.1.{last}"))
    for port in (STOLEN_PORT, offer.ports[0].published):
        ports = (RecordPort(Protocol.TCP, port, 7),)
        yield INGRESS_SCOPE, replace(offer, task=TaskId(f"liar-{port}"), ports=ports)


async def lie(data_root: Path, network: str) -> None:
    """Take the node's place in gossip until all say that it is gone."""
    record = state_file.load(data_root)
    state = StateFile(data_root / "worker").load()
    assert record is not None
    assert state.info is not None
    assert state.assignment is not None
    certificates = CertificateDirectory(data_root / "certificates")
    credentials, _ = certificates.load_at_any_time()
    contexts = tls_contexts(certificates, record.cluster)
    peer = Peer(
        node_id=record.node,
        cluster_id=record.cluster,
        data_address=record.data_address,
        config=GossipConfig.local(),
        keys=[GossipKey(k.id, k.secret, KeyState[k.state.name]) for k in state.info.gossip_keys],
        identity=NodeIdentity(credentials, cluster=record.cluster, roots=lambda: (credentials.ca,)),
        state_directory=data_root / "gossip",
        rng=secrets.SystemRandom(),
        server_ssl=lambda: contexts.gossip_server,
        client_ssl=lambda: contexts.gossip_client,
    )
    speak(peer, state.info, state.assignment, network)
    async with asyncio.TaskGroup() as group:
        speaking = group.create_task(peer.run(("0.0.0.0", 7946), (record.address, 7946)))
        with peer.watch() as changed:
            while peer.members()[0].state is not State.LEFT:
                changed.clear()
                await changed.wait()
        speaking.cancel()


def speak(peer: Peer, info: ClusterInfo, assignment: Assignment, network: str) -> None:
    phases = dict.fromkeys(assignment.allocations, Phase.SERVING)
    peer.join([(n.address, n.gossip_port) for n in info.nodes if n.id != peer.node_id])
    for scope in (INGRESS_SCOPE, network):
        peer.attach(scope)
    for place, value in endpoint_values(assignment, phases).items():
        peer.publish(place.scope, place.key, value)
    proof = next(a for given in assignment.allocations.values() for a in given)
    for scope, wish in lies(network, endpoint_records(assignment, phases)):
        for token in (proof.token, bytes(TOKEN_BYTES), b""):
            value = encode(Phase.SERVING, encode_body(wish), token)
            peer.publish(scope, f"{wish.task}.{token[:1].hex()}{len(token)}", value)


if __name__ == "__main__":
    while True:
        asyncio.run(lie(Path(sys.argv[1]), sys.argv[2]))
