"""The DNS codec, with dnspython as the oracle, and junk."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.dns.codec import (
    Answer,
    MalformedQuery,
    Query,
    Rcode,
    decode_query_untrusted,
    encode_response,
    rcode_of_untrusted,
    reverse_address,
)

labels = st.binary(min_size=1, max_size=20)
names = st.lists(labels, min_size=0, max_size=6).map(lambda parts: dns.name.Name([*parts, b""]))
types = st.sampled_from(["A", "AAAA", "MX", "PTR", "TXT", "ANY"])
LABEL = b"\x3f" + b"a" * 63
addresses = st.lists(st.integers(0, 2**32 - 1).map(IPv4Address), max_size=60).map(tuple)


def query_bytes(
    name: dns.name.Name | str, type_: str = "A", *, edns: int | None = None
) -> tuple[dns.message.Message, bytes]:
    message = dns.message.make_query(name, type_, use_edns=edns is not None, payload=edns or 0)
    return message, message.to_wire()


def texts(rrset: dns.rrset.RRset) -> list[str]:
    """Return the data of each record, as in a zone file."""
    return [line.split(" ", 4)[4] for line in rrset.to_text().splitlines()]


def decoded(name: str, type_: str = "A", *, edns: int | None = None) -> Query:
    return decode_query_untrusted(query_bytes(name, type_, edns=edns)[1])


@given(names, types, st.none() | st.integers(0, 65535))
def test_queries_are_read_as_dnspython_wrote_them(
    name: dns.name.Name, type_: str, edns: int | None
) -> None:
    message, data = query_bytes(name, type_, edns=edns)
    query = decode_query_untrusted(data)
    assert query.id == message.id
    assert query.type == dns.rdatatype.from_text(type_)
    assert query.edns_bytes_max == edns
    parts = [part.lower().decode("latin-1") for part in name.labels[:-1]]
    escaped = [part.replace("\\", "\\\\").replace(".", "\\.") for part in parts]
    assert query.name == ".".join(escaped)


@given(names, addresses, st.none() | st.integers(0, 4096))
def test_responses_are_read_by_dnspython(
    name: dns.name.Name, values: tuple[IPv4Address, ...], edns: int | None
) -> None:
    message, data = query_bytes(name, edns=edns)
    query = decode_query_untrusted(data)
    wire = encode_response(query, Rcode.NOERROR, Answer(values, 600), bytes_max=query.udp_bytes_max)
    assert len(wire) <= query.udp_bytes_max
    response = dns.message.from_wire(wire, ignore_trailing=False, raise_on_truncation=False)
    assert message.is_response(response)
    assert (response.edns == 0) is (edns is not None)
    found = {text for rrset in response.answer for text in texts(rrset)}
    is_cut = bool(response.flags & dns.flags.TC)
    assert found <= set(map(str, values))
    assert is_cut or found == set(map(str, values))
    assert all(rrset.name == name and rrset.ttl == 600 for rrset in response.answer)
    assert response.flags & dns.flags.RA


def test_truncation_keeps_what_fits() -> None:
    query = decoded("tasks.web")
    answer = Answer(tuple(IPv4Address(number) for number in range(100)), 5)
    wire = encode_response(query, Rcode.NOERROR, answer, bytes_max=512)
    assert (len(wire), wire[2] & 2, wire[7]) == (507, 2, 30)
    whole = encode_response(query, Rcode.NOERROR, answer, bytes_max=65535)
    assert (whole[2] & 2, whole[7]) == (0, 100)


def test_letter_case_of_the_question_is_kept() -> None:
    query = decoded("wEb.MyNet")
    assert query.name == "web.mynet"
    assert b"\x03wEb\x05MyNet\0" in encode_response(query, Rcode.NOERROR, bytes_max=512)


def test_pointer_answers_and_codes() -> None:
    query = decoded("4.3.2.10.in-addr.arpa", "PTR")
    wire = encode_response(query, Rcode.NOERROR, Answer(("web.1.abc.net",), 5), bytes_max=512)
    (rrset,) = dns.message.from_wire(wire).answer
    assert texts(rrset) == ["web.1.abc.net."]
    for rcode in Rcode:
        edns = decoded("x", edns=1232)
        response = dns.message.from_wire(encode_response(edns, rcode, bytes_max=512))
        assert response.rcode() == dns.rcode.Rcode(rcode)


def test_cookies_and_padding_do_not_hide_the_payload_size() -> None:
    option = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")
    options: list[dns.edns.Option] = [option]
    data = dns.message.make_query("web", "A", payload=1232, options=options).to_wire()
    assert decode_query_untrusted(data).edns_bytes_max == 1232


def test_reverse_names() -> None:
    assert reverse_address("4.3.2.10.in-addr.arpa") == IPv4Address("10.2.3.4")
    for name in ("3.2.10.in-addr.arpa", "x.3.2.10.in-addr.arpa", "web", "4.3.2.10.in-addr.arpa.x"):
        assert reverse_address(name) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 11,
        b"\0\1\x80\0\0\1\0\0\0\0\0\0\0\0\1\0\1",  # a response
        b"\0\1\0\0\0\0\0\0\0\0\0\0",  # no question
        b"\0\1\0\0\0\2\0\0\0\0\0\0\0\0\1\0\1\0\0\1\0\1",  # two
        b"\0\1\0\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1",  # a name that points to itself
        b"\0\1\0\0\0\1\0\0\0\0\0\0\x03web",
        b"\0\1\0\0\0\1\0\0\0\0\0\0\x03web\0\0\1",
        b"\0\1\0\0\0\1\0\0\0\0\0\1\x03web\0\0\1\0\1",  # its record is missing
        b"\0\1\0\0\0\1\0\0\0\0\0\0" + LABEL * 4 + b"\0\0\1\0\1",
    ],
)
def test_malformed_queries(data: bytes) -> None:
    with pytest.raises(MalformedQuery):
        decode_query_untrusted(data)


@given(st.binary(max_size=300))
def test_junk_raises_only_malformed(data: bytes) -> None:
    rcode_of_untrusted(data)
    with contextlib.suppress(MalformedQuery):
        query = decode_query_untrusted(data)
        assert len(encode_response(query, Rcode.NXDOMAIN, bytes_max=512)) <= 512


@given(names, st.integers(0, 255), st.integers(0, 60), st.integers(0, 60))
def test_mutated_queries_raise_only_malformed(
    name: dns.name.Name, value: int, at: int, cut: int
) -> None:
    data = bytearray(query_bytes(name, edns=1232)[1])
    data[at % len(data)] = value
    del data[len(data) - cut % len(data) :]
    with contextlib.suppress(MalformedQuery):
        decode_query_untrusted(bytes(data))
