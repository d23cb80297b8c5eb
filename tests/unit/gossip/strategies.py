"""Hypothesis strategies for what nodes say to each other."""

from __future__ import annotations

from hypothesis import strategies as st

from gossip.wire import (
    Ack,
    CertificateOffer,
    CertificateRequest,
    Challenge,
    Claim,
    Delta,
    Digest,
    DigestEntry,
    Head,
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

u64 = st.integers(0, 2**64 - 1)
u32 = st.integers(0, 2**32 - 1)
node_ids = st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=32)
scopes = st.text(min_size=1, max_size=16)
keys = st.text(min_size=1, max_size=30)
hosts = st.ip_addresses().map(str)
ports = st.integers(1, 65535)
signatures = st.binary(max_size=64)
fingerprints = st.binary(max_size=16)
stamps = st.builds(Stamp, u64, u64)
node_records = st.builds(
    NodeRecord,
    node_ids,
    u64,
    u32,
    hosts,
    ports,
    hosts,
    u64,
    fingerprints,
    u64,
    signatures,
)
claims = st.builds(
    Claim,
    st.sampled_from([State.SUSPECT, State.DEAD, State.LEFT]),
    node_ids,
    u64,
    u32,
    node_ids,
    u64,
    fingerprints,
    signatures,
)
values = st.none() | st.binary(max_size=1024)
records = st.builds(Record, keys, st.integers(1, 1000), u64, values, signatures)
entries = st.builds(DigestEntry, node_ids, stamps, u64, u64, u64, u64)
heads = st.builds(Head, u64, u64, u64, st.binary(max_size=32), u64, signatures)
digests = st.builds(
    Digest,
    scopes,
    st.sampled_from(Stage),
    u64,
    st.binary(max_size=512),
    st.lists(entries, max_size=4).map(tuple),
)
deltas = st.builds(
    Delta,
    scopes,
    node_ids,
    stamps,
    st.just(0),
    st.integers(1000, 2**64 - 1),
    u64,
    st.lists(records, max_size=4).map(tuple),
    st.none() | heads,
    st.none() | node_records,
    st.none() | claims,
)
messages = st.one_of(
    st.builds(Ping, u64, node_ids),
    st.builds(Ack, u64, u32),
    st.builds(PingRequest, u64, node_ids, hosts, ports),
    st.builds(Nack, u64, st.sampled_from(NackReason)),
    st.builds(Challenge, u64, node_ids, u64),
    st.builds(Response, u64, u64, signatures),
    node_records,
    claims,
    st.builds(Update, scopes, node_ids, stamps, records),
    digests,
    deltas,
    st.builds(CertificateRequest, st.lists(fingerprints, max_size=16).map(tuple)),
    st.builds(CertificateOffer, st.binary(max_size=1200)),
)
