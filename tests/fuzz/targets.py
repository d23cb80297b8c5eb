"""What is fuzzed: each target takes any bytes and raises nothing but a failed expectation.

A target suppresses the one error that its decoder documents; whatever else comes out is a finding.
Where something was decoded, the target also holds it to what its callers rely on.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Address
from pathlib import Path
from random import Random
from types import MappingProxyType

import msgpack
import msgspec

from cluster.agent.applied import decode_applied_untrusted, encode_applied
from cluster.allocation import records
from cluster.api.docker_json.cluster import read_cluster_spec, read_init, read_join
from cluster.api.docker_json.fields import decode_object_untrusted
from cluster.api.docker_json.network import read_network_spec
from cluster.api.docker_json.service_spec import read_service_spec
from cluster.api.docker_json.service_view import spec_view
from cluster.api.filters import read_filters_untrusted
from cluster.api.logs import read_options_untrusted
from cluster.ca.certificates import (
    CertificateError,
    canonical_pem_untrusted,
    new_request,
    new_root_ca,
    read_identity_untrusted,
    request_digest_untrusted,
    verify_untrusted,
)
from cluster.ca.tokens import format_token, new_token, parse_token_untrusted
from cluster.consensus import frames
from cluster.consensus import messages as raft
from cluster.consensus.errors import MalformedMessageError, StorageFailure
from cluster.consensus.snapshots import decode_image_untrusted
from cluster.dispatch import messages as session
from cluster.dispatch import requests
from cluster.model.cluster import ClusterSpec
from cluster.model.errors import ClusterError
from cluster.model.ids import NodeId, ServiceId, TaskId
from dataplane.dns import codec as dns
from dataplane.dns.zone import Forward, Zone
from dataplane.kernel import netlink
from dataplane.plan import Protocol
from gossip import message as gossip
from gossip.config import GossipConfig
from gossip.keyring import GossipKey, Keyring, KeyState, RejectedPacketError
from gossip.wire import (
    Ack,
    Challenge,
    Claim,
    Delta,
    Digest,
    DigestEntry,
    MalformedPacketError,
    Message,
    Nack,
    NackReason,
    NodeRecord,
    Ping,
    PingRequest,
    Record,
    Response,
    Stage,
    Stamp,
    State,
    Update,
)
from tests.unit.consensus.test_messages import EXAMPLES as RAFT_MESSAGES
from tests.unit.dispatch.test_messages import FROM_MANAGER, FROM_NODE
from tests.unit.gossip.forger import Forger
from tests.unit.gossip.pair import exchange, make_machine, meet
from tests.unit.gossip.pair import records as seen

FOUND = Path(__file__).parent / "found"
_NOW = 1_800_000_000.0
_ROOT = new_root_ca(_NOW)
_REQUEST = new_request()


@dataclass(frozen=True, slots=True)
class Target:
    """One decoder, or several that read the same thing."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    """Sound inputs to start from."""

    def inputs(self, name: str) -> list[bytes]:
        """Return the seeds and what was found earlier."""
        found = FOUND / name
        kept = [path.read_bytes() for path in sorted(found.iterdir())] if found.is_dir() else []
        return [*self.seeds, *kept]


def _gossip_body(data: bytes) -> None:
    try:
        said = gossip.unpack_untrusted(data)
    except MalformedPacketError:
        return
    assert gossip.unpack_untrusted(gossip.pack([gossip.encode(m) for m in said])) == said


def _gossip_fields(data: bytes) -> None:
    """Feed sound msgpack with any fields, which random bytes seldom are."""
    _gossip_body(msgpack.packb([_value(data, at) for at in range(0, len(data), _PIECE_BYTES)]))


_PIECE_BYTES = 48
_WORDS = (
    "",
    "a",
    "b",
    "c",
    "net",
    "10.0.0.1",
    "::1",
    "fe80::1%a",
    "x" * 65,
    "k\0",
    "\ud7ff",
    "_nodes",
)


def _value(data: bytes, at: int) -> list[object]:
    """Return a message out of one piece of `data`: its kind, then two bytes make a field."""
    fields: list[object] = [data[at] % _KINDS]
    stack = [fields]
    piece = data[at + 1 : at + _PIECE_BYTES]
    for kind, value in zip(piece[::2], piece[1::2], strict=False):
        match kind % 8:
            case 0 | 1:
                stack[-1].append(value)
            case 2:
                stack[-1].append((1 << value % 64) - kind // 128)
            case 3:
                stack[-1].append(_WORDS[value % len(_WORDS)])
            case 4:
                stack[-1].append(bytes(value * 9))
            case 5:
                stack[-1].append((None, True, -1, 1.5)[value % 4])
            case 6 if len(stack) < _DEPTH_MAX:
                inner: list[object] = []
                stack[-1].append(inner)
                stack.append(inner)
            case _:
                if len(stack) > 1:
                    stack.pop()
    return fields


_DEPTH_MAX = 6
_KINDS = 16
"""More than there are kinds of messages."""
_KEYS = (GossipKey(1, b"k" * 32, KeyState.PRIMARY),)
_SEALED = Keyring(cluster_id="c", node_id="a", epoch=1, keys=_KEYS).seal(b"\x90")


def _gossip_packet(data: bytes) -> None:
    ring = Keyring(cluster_id="c", node_id="b", epoch=1, keys=_KEYS)
    with contextlib.suppress(RejectedPacketError):
        ring.open_untrusted(data)


def _gossip_machine(data: bytes) -> None:
    """Let a stranger with the gossip key say anything, in another's name and from there as well.

    Others' rows stay, packets stay short, and nobody is silenced.
    """
    one, two = make_machine("a"), make_machine("b")
    meet(one, two)
    for machine in (one, two):
        machine.attach("net", now=0.1)
        machine.publish("net", "k", machine.me.node_id.encode(), now=0.1)
    exchange(one, two, now=0.2)
    before = seen(two, "net")
    stranger = Keyring(cluster_id="c", node_id="c", epoch=1000, keys=_KEYS)
    forger = Forger("a", one.me.epoch, _KEYS[0])
    for number, at in enumerate(
        range(0, min(len(data), _PACKETS_MAX * _PIECE_BYTES), _PIECE_BYTES)
    ):
        body = msgpack.packb([_value(data, at)])
        packet = stranger.seal(body)
        now = 0.3 + number / 100
        if number % 3 == 0:
            two.receive_datagram(forger.seal_body(data[at] << 56, body), one.me.address, now=now)
        elif number % 3 == 1:
            two.receive_frame(packet, ("10.0.0.3", 7946), peer="c", now=now)
        else:
            two.receive_datagram(packet, ("10.0.0.3", 7946), now=now)
        two.handle_timer(now=now)
        two.events()
        assert all(
            len(sent) <= GossipConfig().packet_bytes_max for sent, _ in two.datagrams_to_send()
        )
        two.streams_to_send()
    after = seen(two, "net")
    assert {row: value for row, value in after.items() if row in before} == before
    for number in range(3):
        one.publish("net", "k", b"%d" % number, now=1.0 + number)
        for machine in (one, two):
            machine.handle_timer(now=1.0 + number + 0.03)
        exchange(one, two, now=1.0 + number + 0.03)
    assert seen(two, "net")["a", "k"] == b"2"


_PACKETS_MAX = 40


def _agent_record(data: bytes) -> None:
    with contextlib.suppress(records.MalformedRecord):
        sealed = records.decode_untrusted(data)
        again = records.encode(sealed.phase, sealed.body, sealed.token)
        assert records.decode_untrusted(again) == sealed
        record = records.decode_body_untrusted(sealed.body, sealed.phase)
        body = records.encode_body(record)
        assert records.decode_body_untrusted(body, sealed.phase) == record
    with contextlib.suppress(records.MalformedRecord):
        decode_applied_untrusted(data)


def _dispatch_from_node(data: bytes) -> None:
    with contextlib.suppress(session.MalformedMessage):
        message = session.decode_from_node_untrusted(data)
        session.encode(message)


def _dispatch_from_manager(data: bytes) -> None:
    with contextlib.suppress(session.MalformedMessage):
        message = session.decode_from_manager_untrusted(data)
        assert session.decode_from_manager_untrusted(session.encode(message)) == message


def _dispatch_request(data: bytes) -> None:
    for kind in (
        requests.JoinRequest, requests.JoinResponse, requests.RenewRequest,
        requests.RaftJoinRequest, requests.SightingReport, requests.LogQuery, requests.ErrorBody,
    ):  # fmt: skip
        with contextlib.suppress(session.MalformedMessage):
            requests.decode_untrusted(data, kind)


def _raft_message(data: bytes) -> None:
    with contextlib.suppress(MalformedMessageError):
        message = raft.decode_untrusted(data)
        (body,) = raft.FrameBuffer().feed_untrusted(raft.encode(message))
        raft.decode_untrusted(body)


def _raft_stream(data: bytes) -> None:
    """Hold that a stream cut in two anywhere gives the same frames as in one piece."""
    at = data[0] if data else 0
    whole, parts = raft.FrameBuffer(frame_bytes_max=64), raft.FrameBuffer(frame_bytes_max=64)
    with contextlib.suppress(MalformedMessageError):
        bodies = whole.feed_untrusted(data)
        assert parts.feed_untrusted(data[:at]) + parts.feed_untrusted(data[at:]) == bodies


def _raft_log(data: bytes) -> None:
    with contextlib.suppress(StorageFailure):
        list(frames.read_frames(data, 0))


def _raft_snapshot(data: bytes) -> None:
    decode_image_untrusted(sha256(data).digest() + data)


def _certificate(data: bytes) -> None:
    for read in (read_identity_untrusted, canonical_pem_untrusted, request_digest_untrusted):
        with contextlib.suppress(CertificateError):
            read(data)
    with contextlib.suppress(CertificateError):
        verify_untrusted(data, _ROOT.certificate, _NOW)


def _join_token(data: bytes) -> None:
    text = data.decode(errors="replace")
    with contextlib.suppress(ClusterError):
        token = parse_token_untrusted(text)
        assert parse_token_untrusted(format_token(token)) == token


def _dns_query(data: bytes) -> None:
    dns.rcode_of_untrusted(data)
    with contextlib.suppress(dns.MalformedQuery):
        query = dns.decode_query_untrusted(data)
        reply = Zone().answer(query, Random(1))
        if not isinstance(reply, Forward):
            sent = dns.encode_response(query, reply.rcode, reply.answer, bytes_max=512)
            assert dns.rcode_of_untrusted(sent) == reply.rcode & 0xF


def _netlink(data: bytes) -> None:
    with contextlib.suppress(netlink.MalformedNetlinkError):
        for message in netlink.unpack_messages(data):
            netlink.unpack_attributes(message.body)


def _service_json(data: bytes) -> None:
    with contextlib.suppress(ClusterError):
        spec = read_service_spec(decode_object_untrusted(data))
        assert read_service_spec(spec_view(spec)).task == spec.task


def _other_json(data: bytes) -> None:
    for read in (read_network_spec, read_init, read_join):
        with contextlib.suppress(ClusterError):
            read(decode_object_untrusted(data))
    with contextlib.suppress(ClusterError):
        read_cluster_spec(decode_object_untrusted(data), ClusterSpec())


def _api_query(data: bytes) -> None:
    text = data.decode(errors="replace")
    with contextlib.suppress(ClusterError):
        read_filters_untrusted(text, frozenset({"name", "id", "label"}))
    with contextlib.suppress(ClusterError):
        read_options_untrusted({"stdout": "1", "since": text, "tail": text})


_SERVICE = msgspec.json.encode(
    {
        "Name": "web",
        "Labels": {"a": "b"},
        "TaskTemplate": {
            "ContainerSpec": {"Image": "host", "Args": ["sleep", "1"], "Env": ["A=1"]},
            "Resources": {"Limits": {"NanoCPUs": 1, "MemoryBytes": 4194304}},
            "RestartPolicy": {"Condition": "any", "Delay": 5000000000},
            "Placement": {"Constraints": ["node.role==worker"]},
            "Networks": [{"Target": "n", "Aliases": ["x"]}],
        },
        "Mode": {"Replicated": {"Replicas": 2}},
        "EndpointSpec": {
            "Mode": "vip",
            "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080}],
        },
    }
)
_NETWORK = (
    b'{"Name":"n","Driver":"overlay","Attachable":true,"IPAM":{"Config":[{"Subnet":"10.9.0.0/24",'
    b'"Gateway":"10.9.0.1"}]},"Options":{},"Labels":{}}'
)
_SWARM = (
    b'{"ListenAddr":"0.0.0.0:2377","AdvertiseAddr":"127.0.0.1","DataPathPort":4789,"Spec":{},'
    b'"DefaultAddrPool":["10.0.0.0/8"],"SubnetSize":24,"RemoteAddrs":["127.0.0.1:2377"],'
    b'"JoinToken":"x","Availability":"active"}'
)
_QUERY = (
    bytes.fromhex("000701000001000000000001") + b"\3web\0" + bytes.fromhex("0001000100002904d000")
)
_ROUTE = netlink.pack_message(
    netlink.Message(16, 0, b"\0" * 16 + netlink.attribute_text(3, "eth0")), 1, 0
)

_SAID: tuple[Message, ...] = (
    Ping(7, "a"),
    Ack(7, 2),
    PingRequest(8, "b", "10.0.0.2", 7946),
    Nack(8, NackReason.REFUSED),
    Challenge(8, "b", 9),
    Response(8, 9, b"s" * 64),
    NodeRecord("a", 9, 1, "10.0.0.1", 7946, "10.0.0.1", 0, b"f" * 32, 5, b"s" * 64),
    Claim(State.SUSPECT, "b", 9, 1, "a", 8, b"s" * 64),
    Update("net", "a", Stamp(8, 1), Record("k", 3, 5, b"v", b"s" * 64)),
    Digest("net", Stage.COMPARE, 0, b"h" * 8),
    Digest("net", Stage.PULL, 0, b"", (DigestEntry("a", Stamp(8, 1), 3, 0),)),
    Delta("net", "a", Stamp(8, 1), 0, 3, 0, (Record("k", 3, 5, None),)),
)
_ENDPOINT = records.EndpointRecord(
    TaskId("t1"), "web.1.t1", ServiceId("s1"), "web", records.Phase.SERVING, 7, 8,
    address=IPv4Address("10.0.1.3"), vip=IPv4Address("10.0.1.2"),
    aliases=("x",), ports=(records.RecordPort(Protocol.TCP, 8080, 80),),
)  # fmt: skip
_REQUESTS: tuple[requests.Body, ...] = (
    requests.ErrorBody("Invalid", "no"),
    requests.RaftJoinRequest("127.0.0.1:2377"),
    requests.SightingReport((requests.ReportedSighting(NodeId("n1"), 1.5, is_connected=True),)),
)

TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "gossip_body": Target(
            _gossip_body,
            tuple(gossip.pack([gossip.encode(message)]) for message in _SAID),
        ),
        "gossip_fields": Target(_gossip_fields, (bytes(range(96)),)),
        "gossip_machine": Target(_gossip_machine, (bytes(range(256)),)),
        "gossip_packet": Target(_gossip_packet, (_SEALED,)),
        "agent_record": Target(
            _agent_record,
            (
                records.encode(_ENDPOINT.phase, records.encode_body(_ENDPOINT), bytes(64)),
                encode_applied(["t1", "t2"]),
            ),
        ),
        "dispatch_from_node": Target(_dispatch_from_node, tuple(map(session.encode, FROM_NODE))),
        "dispatch_from_manager": Target(
            _dispatch_from_manager, tuple(map(session.encode, FROM_MANAGER))
        ),
        "dispatch_request": Target(_dispatch_request, tuple(map(requests.encode_body, _REQUESTS))),
        "raft_message": Target(_raft_message, tuple(raft.encode(m)[4:] for m in RAFT_MESSAGES)),
        "raft_stream": Target(_raft_stream, (raft.encode(RAFT_MESSAGES[0]),)),
        "raft_log": Target(
            _raft_log, (frames.encode_frame(0, b"a" * 700) + frames.encode_frame(1, b""),)
        ),
        "raft_snapshot": Target(_raft_snapshot, (zlib.compress(b"\x90"),)),
        "certificate": Target(_certificate, (_ROOT.certificate, _REQUEST.csr)),
        "join_token": Target(_join_token, (new_token(_ROOT.certificate).encode(),)),
        "dns_query": Target(_dns_query, (_QUERY,)),
        "netlink": Target(_netlink, (_ROUTE,)),
        "service_json": Target(_service_json, (_SERVICE,)),
        "other_json": Target(_other_json, (_NETWORK, _SWARM)),
        "api_query": Target(
            _api_query, (b'{"name":["a"],"label":{"a=b":true}}', b"2026-11-25T22:03:25Z", b"1.5")
        ),
    }
)
