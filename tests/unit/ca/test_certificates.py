"""Certificates: what is issued, and that nothing untrusted is taken or escapes as another error."""

from __future__ import annotations

import contextlib
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.ca.certificates import (
    BACKDATE_S,
    CertificateError,
    CertificateExpired,
    PeerIdentity,
    RootCa,
    canonical_pem_untrusted,
    certificate_digest_untrusted,
    check_time,
    is_key_of,
    issue,
    new_request,
    new_root_ca,
    read_identity_untrusted,
    request_digest_untrusted,
    verify_untrusted,
)
from cluster.model.ids import ClusterId, NodeId, new_id
from cluster.model.node import Role

NOW = 1_800_000_000.0
DAY_S = 24 * 3600.0
NODE = NodeId(new_id(Random(1)))
CLUSTER = ClusterId(new_id(Random(2)))
ROOT = new_root_ca(NOW)
REQUEST = new_request()


def certificate(
    *,
    root: RootCa = ROOT,
    csr: bytes = REQUEST.csr,
    role: Role = Role.WORKER,
    now: float = NOW,
    validity_s: float = 90 * DAY_S,
) -> bytes:
    return issue(root, csr, node=NODE, role=role, cluster=CLUSTER, now=now, validity_s=validity_s)


@pytest.mark.parametrize("role", Role)
def test_an_issued_certificate_says_who_what_and_where(role: Role) -> None:
    identity = verify_untrusted(certificate(role=role), ROOT.certificate, NOW)
    assert identity == PeerIdentity(NODE, role, CLUSTER, NOW - BACKDATE_S, NOW + 90 * DAY_S)


def test_the_certificate_has_what_tls_asks_for() -> None:
    parsed = x509.load_pem_x509_certificate(certificate())
    names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NODE]
    assert not parsed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    unit = parsed.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATIONAL_UNIT_NAME)[0].value
    assert unit == "hivewire-worker"


def test_validity_is_at_least_an_hour_and_never_beyond_the_root() -> None:
    short = read_identity_untrusted(certificate(validity_s=1.0))
    assert short.not_after == NOW + 3600
    long = read_identity_untrusted(certificate(validity_s=100 * 365 * DAY_S))
    assert long.not_after == NOW + 20 * 365 * DAY_S


def test_time_is_checked_both_ways() -> None:
    pem = certificate()
    with pytest.raises(CertificateExpired, match=r"expired on 2027-04-15"):
        verify_untrusted(pem, ROOT.certificate, NOW + 91 * DAY_S)
    with pytest.raises(CertificateExpired, match="one of the clocks is wrong"):
        verify_untrusted(pem, ROOT.certificate, NOW - 2 * BACKDATE_S)
    check_time(read_identity_untrusted(pem), NOW - BACKDATE_S / 2)


def test_another_ca_is_not_ours_even_with_our_name() -> None:
    with pytest.raises(CertificateError, match="was not signed by this cluster's CA"):
        verify_untrusted(certificate(root=new_root_ca(NOW)), ROOT.certificate, NOW)


def test_a_worker_cannot_issue() -> None:
    """A node's own certificate does not count as a CA for another."""
    node_as_root = RootCa(certificate(), REQUEST.key)
    with pytest.raises(CertificateError):
        verify_untrusted(certificate(root=node_as_root), ROOT.certificate, NOW)


def test_requests_with_other_keys_are_refused() -> None:
    keys = (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1()))
    for key in keys:
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        csr = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        with pytest.raises(CertificateError, match="another key than ECDSA P-256"):
            certificate(csr=csr)


def test_a_request_must_be_signed_by_its_key() -> None:
    der = bytearray(x509.load_pem_x509_csr(REQUEST.csr).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    broken = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(CertificateError, match="not signed by its own key"):
        certificate(csr=broken)


def test_requests_are_told_apart_by_key_alone() -> None:
    assert request_digest_untrusted(REQUEST.csr) == request_digest_untrusted(b"\n" + REQUEST.csr)
    assert request_digest_untrusted(REQUEST.csr) != request_digest_untrusted(new_request().csr)


def test_key_and_certificate_belong_together() -> None:
    assert is_key_of(REQUEST.key, certificate())
    assert not is_key_of(new_request().key, certificate())
    with pytest.raises(CertificateError, match="private key cannot be read"):
        is_key_of(b"nothing", certificate())


def test_the_digest_ignores_what_stands_around_the_certificate() -> None:
    padded = b"comment\n" + ROOT.certificate + b"\n" + certificate()
    assert certificate_digest_untrusted(padded) == certificate_digest_untrusted(ROOT.certificate)
    assert canonical_pem_untrusted(padded) == ROOT.certificate


def test_secrets_are_not_printed() -> None:
    assert "PRIVATE" not in repr(ROOT)
    assert "PRIVATE" not in repr(REQUEST)


def test_certificates_without_our_subject_are_refused() -> None:
    with pytest.raises(CertificateError):
        read_identity_untrusted(ROOT.certificate)


CERTIFICATE_DER = x509.load_pem_x509_certificate(certificate()).public_bytes(
    serialization.Encoding.DER
)


@settings(max_examples=200)
@given(st.integers(0, len(CERTIFICATE_DER) - 1), st.integers(0, 255))
@example(15, 128)  # a negative serial number
def test_mutated_certificates_raise_only_certificate_error(at: int, value: int) -> None:
    data = bytearray(CERTIFICATE_DER)
    data[at] = value
    with contextlib.suppress(CertificateError):
        read_identity_untrusted(bytes(data))
    with contextlib.suppress(CertificateError):
        verify_untrusted(bytes(data), ROOT.certificate, NOW)
    with contextlib.suppress(CertificateError):
        is_key_of(REQUEST.key, bytes(data))


CSR_DER = x509.load_pem_x509_csr(REQUEST.csr).public_bytes(serialization.Encoding.DER)


@settings(max_examples=100)
@given(st.integers(0, len(CSR_DER) - 1), st.integers(0, 255), st.binary(max_size=50))
def test_mutated_requests_raise_only_certificate_error(at: int, value: int, junk: bytes) -> None:
    mutated = bytearray(REQUEST.csr)
    mutated[at % len(mutated)] = value
    for data in (bytes(mutated), junk, b"-----BEGIN" + junk):
        with contextlib.suppress(CertificateError):
            request_digest_untrusted(data)
        with contextlib.suppress(CertificateError):
            read_identity_untrusted(data)
