"""A node's identity for gossip, with real certificates and keys."""

from __future__ import annotations

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from cluster.ca.certificates import RootCa, issue, new_request, new_root_ca
from cluster.ca.files import Credentials
from cluster.model.ids import ClusterId, NodeId
from cluster.model.node import Role
from cluster.node.identity import NodeIdentity
from gossip.identity import CERTIFICATE_BYTES_MAX, SIGNATURE_BYTES, ForeignCertificateError
from gossip.wire import InvalidError
from tests.unit.gossip.pair import exchange, make_machine, meet, records

NOW = 1_700_000_000.0
CLUSTER = ClusterId("c" * 25)
ROOT = new_root_ca(NOW)


def _identity(
    name: str,
    role: Role = Role.WORKER,
    *,
    root: RootCa = ROOT,
    cluster: ClusterId = CLUSTER,
    trusted: tuple[RootCa, ...] = (ROOT,),
) -> NodeIdentity:
    request = new_request()
    certificate = issue(
        root,
        request.csr,
        node=NodeId(name * 25),
        role=role,
        cluster=cluster,
        now=NOW,
        validity_s=86_400,
    )
    credentials = Credentials(root.certificate, certificate, request.key)
    return NodeIdentity(
        credentials, cluster=CLUSTER, roots=lambda: [r.certificate for r in trusted]
    )


A, B = _identity("a"), _identity("b", Role.MANAGER)


def test_a_certificate_says_who_and_what_a_node_is() -> None:
    found = A.read_certificate_untrusted(B.certificate.der)
    assert (found.node_id, found.is_manager) == ("b" * 25, True)
    assert found.fingerprint == B.certificate.fingerprint
    assert found.not_after == NOW + 86_400
    assert not B.read_certificate_untrusted(A.certificate.der).is_manager
    assert len(found.der) <= CERTIFICATE_BYTES_MAX


def test_only_the_signer_of_just_these_bytes_is_believed() -> None:
    signature = B.sign(b"data")
    assert len(signature) == SIGNATURE_BYTES
    certificate = A.read_certificate_untrusted(B.certificate.der)
    assert A.verify(certificate, signature, b"data")
    assert not A.verify(certificate, signature, b"date")
    assert not A.verify(A.certificate, signature, b"data")


@given(st.binary(max_size=80))
def test_any_bytes_may_stand_for_a_signature(signature: bytes) -> None:
    assert not A.verify(B.certificate, signature, b"data")


@pytest.mark.parametrize("signature", [b"", bytes(64), b"\xff" * 64, b"x" * 63])
def test_odd_signatures_are_no_signatures(signature: bytes) -> None:
    assert not A.verify(B.certificate, signature, b"data")


def test_certificates_of_others_are_foreign() -> None:
    other_root = _identity("d", root=new_root_ca(NOW))
    other_cluster = _identity("d", cluster=ClusterId("o" * 25))
    for stranger in (other_root, other_cluster):
        with pytest.raises(ForeignCertificateError):
            A.read_certificate_untrusted(stranger.certificate.der)


def test_two_roots_are_trusted_while_the_root_changes() -> None:
    new = new_root_ca(NOW)
    node = _identity("d", root=new, trusted=(ROOT, new))
    assert node.read_certificate_untrusted(A.certificate.der).node_id == "a" * 25
    assert node.read_certificate_untrusted(node.certificate.der).node_id == "d" * 25


@given(st.binary(max_size=2000))
def test_junk_is_foreign(junk: bytes) -> None:
    with pytest.raises(ForeignCertificateError):
        A.read_certificate_untrusted(junk)


def test_a_changed_certificate_is_foreign_or_says_the_same() -> None:
    """What is signed cannot change; the signature itself has more than one encoding."""
    der = B.certificate.der
    signed_end = 4 + len(x509.load_der_x509_certificate(der).tbs_certificate_bytes)
    for at in range(len(der)):
        changed = der[:at] + bytes([der[at] ^ 1]) + der[at + 1 :]
        try:
            found = A.read_certificate_untrusted(changed)
        except ForeignCertificateError:
            continue
        assert at >= signed_end
        assert (found.node_id, found.is_manager) == ("b" * 25, True)
        assert A.verify(found, B.sign(b"data"), b"data")


def test_machines_believe_real_signatures_and_a_renewed_certificate() -> None:
    a, b = (
        make_machine(i.certificate.node_id, cluster_id=CLUSTER, identity=i, unix_s=NOW)
        for i in (A, B)
    )
    for machine in (a, b):
        machine.attach("net", now=0.0)
        machine.publish("net", "key", b"1", now=0.0)
    meet(a, b)
    renewed = _identity("a")
    a.set_identity(renewed, now=0.5)
    a.publish("net", "key", b"2", now=0.5)
    for now in (0.7, 1.5, 2.5):
        for machine in (a, b):
            machine.handle_timer(now=now)
        exchange(a, b, now=now)

    expected = {("a" * 25, "key"): b"2", ("b" * 25, "key"): b"1"}
    assert records(a, "net") == records(b, "net") == expected
    assert b.counters.refused_forged == 0
    with pytest.raises(InvalidError):
        a.set_identity(B, now=3.0)
