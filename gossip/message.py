"""The wire form of gossip messages: a packet's body is a msgpack array of arrays (pure).

Each message is an array that starts with its kind. Messages are encoded one by one and joined by
`pack`, so that a queued update is encoded once however often it is sent.

Functions ending in `_untrusted` take bytes from the network. Whatever they are given, they return a
value or raise MalformedPacketError; containers are bounded by the size of the input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import assert_never

import msgpack

from gossip import checks
from gossip.wire import (
    KEY_BYTES_MAX,
    RECORDS_PER_LOG_MAX,
    VALUE_BYTES_MAX,
    Ack,
    CertificateOffer,
    CertificateRequest,
    Challenge,
    Claim,
    Delta,
    Digest,
    DigestEntry,
    Head,
    MalformedPacketError,
    Message,
    Nack,
    NackReason,
    NodeRecord,
    Ping,
    PingRequest,
    Probe,
    Record,
    Response,
    Stage,
    Stamp,
    State,
    Update,
)

PACK_OVERHEAD_BYTES = 3
"""Most that `pack` adds to its messages in a datagram."""
_FIXARRAY_MAX = 15
_SIGNATURE_BYTES_MAX = 64
_FINGERPRINT_BYTES_MAX = 16
_CERTIFICATE_BYTES_MAX = 1200
_REQUESTED_MAX = 16
"""Certificates that one request asks for."""
_ROOT_BYTES_MAX = 32
_HASHES_BYTES_MAX = 64 * 8
_U32 = 2**32 - 1
_ARRAY_MAX = RECORDS_PER_LOG_MAX
"""Messages of one frame, or records of one message."""
_VALUES_MAX = 16 * RECORDS_PER_LOG_MAX
"""Arrays, and values in them, of one frame. A record is seven of them and takes up to 12 us,
whatever its length: 4 MiB of the shortest ones would stop a node for seconds. An honest frame has
two thirds as many (`sync`); where there are fewer bytes there are fewer values, and nobody counts.
"""
_CLAIM_KINDS = {State.SUSPECT: 5, State.DEAD: 6, State.LEFT: 7}


def encode(message: Message) -> bytes:
    """Return the wire form of one message."""
    return msgpack.packb(_fields(message))


def encode_unsigned(record: Record) -> bytes:
    """Return the wire form of a record without its signature."""
    return msgpack.packb(_record_fields(record)[:-1])


def pack(messages: Sequence[bytes]) -> bytes:
    """Return a packet's body out of encoded messages."""
    count = len(messages)
    # fixarray or array 16 (msgpack specification)
    head = bytes([0x90 | count]) if count <= _FIXARRAY_MAX else b"\xdc" + count.to_bytes(2, "big")
    return head + b"".join(messages)


def unpack_untrusted(body: bytes) -> list[Message]:
    """Return the messages of a packet's body."""
    try:
        raw = msgpack.unpackb(
            body,
            max_map_len=0,
            max_ext_len=0,
            max_array_len=_ARRAY_MAX,
            list_hook=_counted() if len(body) > _VALUES_MAX else None,
        )
        return [_decode(fields) for fields in checks.array(raw)]
    except (ValueError, TypeError, IndexError, OverflowError, msgpack.UnpackException) as exc:
        raise MalformedPacketError(str(exc)) from exc


def _counted() -> Callable[[list[object]], list[object]]:
    """Return what is called with each array; it raises ValueError after `_VALUES_MAX` values."""
    count = 0

    def take(array: list[object]) -> list[object]:
        nonlocal count
        count += 1 + len(array)
        if count > _VALUES_MAX:
            raise ValueError("too many values")
        return array

    return take


def _fields(message: Message) -> tuple[object, ...]:
    fields: tuple[object, ...]
    match message:
        case Ping() | Ack() | PingRequest() | Nack() | Challenge() | Response():
            fields = _probe_fields(message)
        case NodeRecord():
            fields = (4, *_node_fields(message))
        case Claim():
            fields = (_CLAIM_KINDS[message.state], *_claim_fields(message))
        case Update():
            m = message
            fields = (8, m.scope, m.owner, *m.stamp, *_record_fields(m.record))
        case Digest():
            entries = [_digest_entry_fields(entry) for entry in message.entries]
            fields = (9, message.scope, int(message.stage), message.mask, message.hashes, entries)
        case Delta():
            fields = _delta_fields(message)
        case CertificateRequest():
            fields = (11, list(message.fingerprints))
        case CertificateOffer():
            fields = (12, message.der)
        case _:
            assert_never(message)
    return fields


def _probe_fields(probe: Probe) -> tuple[object, ...]:
    match probe:
        case Ping():
            return (0, probe.sequence, probe.target)
        case Ack():
            return (1, probe.sequence, probe.incarnation)
        case PingRequest():
            return (2, probe.sequence, probe.target, probe.host, probe.port)
        case Nack():
            return (3, probe.sequence, int(probe.reason))
        case Challenge():
            return (13, probe.sequence, probe.target, probe.nonce)
        case Response():
            return (14, probe.sequence, probe.epoch, probe.signature)


def _node_fields(n: NodeRecord) -> tuple[object, ...]:
    where = (n.host, n.port, n.data_address)
    seal = (n.flags, n.fingerprint, n.hlc, n.signature)
    return (n.node_id, n.epoch, n.incarnation, *where, *seal)


def _claim_fields(c: Claim) -> tuple[object, ...]:
    seal = (c.fingerprint, c.signature)
    return (c.subject, c.epoch, c.incarnation, c.accuser, c.accuser_epoch, *seal)


def _record_fields(r: Record) -> tuple[object, ...]:
    return (r.key, r.version, r.hlc, r.value, r.signature)


def _digest_entry_fields(e: DigestEntry) -> tuple[object, ...]:
    return (e.owner, *e.stamp, e.maximum, e.gc, e.mark, e.proved)


def _head_fields(h: Head) -> tuple[object, ...]:
    return (h.maximum, h.gc, h.count, h.root, h.hlc, h.signature)


def _delta_fields(d: Delta) -> tuple[object, ...]:
    records = [_record_fields(r) for r in d.records]
    head = None if d.head is None else _head_fields(d.head)
    node = None if d.node is None else _node_fields(d.node)
    claim = None if d.claim is None else (int(d.claim.state), *_claim_fields(d.claim))
    span = (d.start, d.end, d.gc)
    return (10, d.scope, d.owner, *d.stamp, *span, records, head, node, claim)


def _decode(raw: object) -> Message:
    kind, *fields = checks.array(raw)
    return _DECODERS[checks.count(kind, len(_DECODERS) - 1)](*fields)


def _ping(sequence: object, target: object) -> Ping:
    return Ping(checks.count(sequence), checks.name(target))


def _ack(sequence: object, incarnation: object) -> Ack:
    return Ack(checks.count(sequence), checks.count(incarnation, _U32))


def _ping_request(sequence: object, target: object, host: object, port: object) -> PingRequest:
    return PingRequest(
        checks.count(sequence), checks.name(target), checks.host(host), checks.port(port)
    )


def _nack(sequence: object, reason: object) -> Nack:
    return Nack(checks.count(sequence), NackReason(checks.count(reason)))


def _challenge(sequence: object, target: object, nonce: object) -> Challenge:
    return Challenge(checks.count(sequence), checks.name(target), checks.count(nonce))


def _response(sequence: object, epoch: object, signature: object) -> Response:
    proof = checks.blob(signature, _SIGNATURE_BYTES_MAX)
    return Response(checks.count(sequence), checks.count(epoch), proof)


def _node(  # noqa: PLR0917 - one parameter for each field on the wire
    node_id: object,
    epoch: object,
    incarnation: object,
    host: object,
    port: object,
    data_address: object,
    flags: object,
    fingerprint: object,
    hlc: object,
    signature: object,
) -> NodeRecord:
    return NodeRecord(
        checks.name(node_id),
        checks.count(epoch),
        checks.count(incarnation, _U32),
        checks.host(host),
        checks.port(port),
        checks.host(data_address),
        checks.count(flags),
        checks.blob(fingerprint, _FINGERPRINT_BYTES_MAX),
        checks.count(hlc),
        checks.blob(signature, _SIGNATURE_BYTES_MAX),
    )


def _claim(state: State, fields: Sequence[object]) -> Claim:
    subject, epoch, incarnation, accuser, accuser_epoch, fingerprint, signature = fields
    return Claim(
        state,
        checks.name(subject),
        checks.count(epoch),
        checks.count(incarnation, _U32),
        checks.name(accuser),
        checks.count(accuser_epoch),
        checks.blob(fingerprint, _FINGERPRINT_BYTES_MAX),
        checks.blob(signature, _SIGNATURE_BYTES_MAX),
    )


def _suspect(*fields: object) -> Claim:
    return _claim(State.SUSPECT, fields)


def _dead(*fields: object) -> Claim:
    return _claim(State.DEAD, fields)


def _left(*fields: object) -> Claim:
    return _claim(State.LEFT, fields)


def _record(key: object, version: object, hlc: object, value: object, signature: object) -> Record:
    if not isinstance(key, str) or not key or len(key.encode()) > KEY_BYTES_MAX:
        raise MalformedPacketError("bad key")
    number = checks.count(version)
    if number == 0:
        raise MalformedPacketError("versions start at 1")
    content = None if value is None else checks.blob(value, VALUE_BYTES_MAX)
    return Record(
        key, number, checks.count(hlc), content, checks.blob(signature, _SIGNATURE_BYTES_MAX)
    )


def _update(
    scope: object, owner: object, epoch: object, attachment: object, *record: object
) -> Update:
    stamp = Stamp(checks.count(epoch), checks.count(attachment))
    return Update(checks.scope(scope), checks.name(owner), stamp, _record(*record))


def _digest(scope: object, stage: object, mask: object, hashes: object, entries: object) -> Digest:
    return Digest(
        checks.scope(scope),
        Stage(checks.count(stage)),
        checks.count(mask),
        checks.blob(hashes, _HASHES_BYTES_MAX),
        tuple(_digest_entry(*checks.array(entry)) for entry in checks.array(entries)),
    )


def _digest_entry(  # noqa: PLR0917 - as `_node`
    owner: object,
    epoch: object,
    attachment: object,
    maximum: object,
    gc: object,
    mark: object,
    proved: object,
) -> DigestEntry:
    stamp = Stamp(checks.count(epoch), checks.count(attachment))
    counts = (checks.count(maximum), checks.count(gc), checks.count(mark), checks.count(proved))
    return DigestEntry(checks.name(owner), stamp, *counts)


def _head(  # noqa: PLR0917 - as `_node`
    maximum: object, gc: object, count: object, root: object, hlc: object, signature: object
) -> Head:
    return Head(
        checks.count(maximum),
        checks.count(gc),
        checks.count(count),
        checks.blob(root, _ROOT_BYTES_MAX),
        checks.count(hlc),
        checks.blob(signature, _SIGNATURE_BYTES_MAX),
    )


def _delta(  # noqa: PLR0917 - as `_node`
    scope: object,
    owner: object,
    epoch: object,
    attachment: object,
    start: object,
    end: object,
    gc: object,
    records: object,
    head: object,
    node: object,
    claim: object,
) -> Delta:
    raw = checks.array(records)
    if len(raw) > RECORDS_PER_LOG_MAX:
        raise MalformedPacketError("too many records")
    first, last = checks.count(start), checks.count(end)
    if first > last:
        raise MalformedPacketError("a delta ends before it starts")
    entries = tuple(_record(*checks.array(record)) for record in raw)
    if any(not first < record.version <= last for record in entries):
        raise MalformedPacketError("a record lies outside its delta")
    return Delta(
        checks.scope(scope),
        checks.name(owner),
        Stamp(checks.count(epoch), checks.count(attachment)),
        first,
        last,
        checks.count(gc),
        entries,
        None if head is None else _head(*checks.array(head)),
        None if node is None else _node(*checks.array(node)),
        None if claim is None else _any_claim(*checks.array(claim)),
    )


def _any_claim(state: object, *fields: object) -> Claim:
    which = State(checks.count(state))
    if which is State.ALIVE:
        raise MalformedPacketError("ALIVE is not a claim")
    return _claim(which, fields)


def _certificate_request(fingerprints: object) -> CertificateRequest:
    raw = checks.array(fingerprints)
    if len(raw) > _REQUESTED_MAX:
        raise MalformedPacketError("too many certificates asked for")
    return CertificateRequest(tuple(checks.blob(each, _FINGERPRINT_BYTES_MAX) for each in raw))


def _certificate_offer(der: object) -> CertificateOffer:
    return CertificateOffer(checks.blob(der, _CERTIFICATE_BYTES_MAX))


_DECODERS: tuple[Callable[..., Message], ...] = (
    _ping,
    _ack,
    _ping_request,
    _nack,
    _node,
    _suspect,
    _dead,
    _left,
    _update,
    _digest,
    _delta,
    _certificate_request,
    _certificate_offer,
    _challenge,
    _response,
)
