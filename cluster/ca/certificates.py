"""Making, reading and checking certificates: ECDSA P-256 throughout.

A cluster has one self-signed root. A node's certificate says who it is (CN and a DNS name: node
id), what it may do (OU: role) and where (O: cluster id). Everything but the public key of a request
is decided by the authority, so a request's subject and extensions are ignored.

Invariants: functions ending in `_untrusted` raise CertificateError whatever they are given, and
nothing else; no private key is ever part of a message or a `repr`.

Source of the constants: swarmkit ca/certificates.go.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cluster.model.ids import ClusterId, NodeId, is_id
from cluster.model.node import Role

ROOT_VALIDITY_S = 20 * 365 * 24 * 3600
NODE_VALIDITY_S_MIN = 3600
BACKDATE_S = 3600
"""Certificates start this long before they are made, for nodes whose clock is behind."""
PEM_BYTES_MAX = 16 * 1024
"""Largest certificate or request that is read at all; ours have about 1 KiB."""
_ORGANIZATIONAL_UNITS = {Role.MANAGER: "hivewire-manager", Role.WORKER: "hivewire-worker"}
_ROLES = {unit: role for role, unit in _ORGANIZATIONAL_UNITS.items()}


class CertificateError(Exception):
    """A certificate, key or request that must not be used; the text says why."""


class CertificateExpired(CertificateError):
    """Everything but its time is right."""


_PARSE_ERRORS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    x509.AttributeNotFound,
)


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """What a node's certificate says of it."""

    node: NodeId
    role: Role
    cluster: ClusterId
    not_before: float
    """Unix time, seconds; BACKDATE_S before it was issued."""
    not_after: float


@dataclass(frozen=True, slots=True)
class RootCa:
    """A cluster's root certificate and its key, PEM."""

    certificate: bytes
    key: bytes = field(repr=False)
    """PKCS#8, not encrypted."""


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A new key of a node and the request for its certificate, PEM."""

    csr: bytes
    key: bytes = field(repr=False)


def new_root_ca(now: float) -> RootCa:
    """Return a new root that is valid for 20 years from `now` (unix time)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hivewire-ca")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(now - BACKDATE_S))
        .not_valid_after(_moment(now + ROOT_VALIDITY_S))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return RootCa(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def new_request() -> CertificateRequest:
    """Return a new key and the request for its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = csr.sign(key, hashes.SHA256())
    return CertificateRequest(signed.public_bytes(serialization.Encoding.PEM), _key_pem(key))


def issue(
    root: RootCa,
    csr: bytes,
    *,
    node: NodeId,
    role: Role,
    cluster: ClusterId,
    now: float,
    validity_s: float,
) -> bytes:
    """Return a certificate (PEM) for the key of the untrusted request `csr`.

    Raises:
        CertificateError: the request is malformed or its key is not ours to certify.
    """
    public_key = _request_key_untrusted(csr)
    ca = x509.load_pem_x509_certificate(root.certificate)
    expires = min(
        _moment(now + max(validity_s, NODE_VALIDITY_S_MIN)),
        ca.not_valid_after_utc,
    )
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, _ORGANIZATIONAL_UNITS[role]),
            x509.NameAttribute(NameOID.COMMON_NAME, node),
        ]
    )
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    authority_key = x509.SubjectKeyIdentifier.from_public_key(_ec_public_key(ca))
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(now - BACKDATE_S))
        .not_valid_after(expires)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(node)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_key),
            critical=False,
        )
    )
    return _pem(builder.sign(_load_key(root.key), hashes.SHA256()))


def request_digest_untrusted(csr: bytes) -> bytes:
    """Return the SHA-256 (32 bytes) of the public key of `csr`, whose owner has signed it."""
    key = _request_key_untrusted(csr)
    return sha256(
        key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    ).digest()


def certificate_digest_untrusted(pem: bytes) -> bytes:
    """Return the SHA-256 (32 bytes) of the one certificate in `pem`, in DER."""
    return sha256(_load_untrusted(pem).public_bytes(serialization.Encoding.DER)).digest()


def canonical_pem_untrusted(pem: bytes) -> bytes:
    """Return only the certificate of `pem`, whatever else stands around it."""
    return _pem(_load_untrusted(pem))


def read_identity_untrusted(certificate: bytes) -> PeerIdentity:
    """Return what a certificate (PEM or DER) claims; who signed it is not looked at."""
    return _identity(_load_untrusted(certificate))


def _identity(parsed: x509.Certificate) -> PeerIdentity:
    try:
        subject = parsed.subject
        unit = _only_value(subject, NameOID.ORGANIZATIONAL_UNIT_NAME)
        node = _only_value(subject, NameOID.COMMON_NAME)
        cluster = _only_value(subject, NameOID.ORGANIZATION_NAME)
        start, end = parsed.not_valid_before_utc, parsed.not_valid_after_utc
    except _PARSE_ERRORS as error:
        raise CertificateError(f"the certificate cannot be read: {error}") from error
    if unit not in _ROLES:
        raise CertificateError(f"the certificate names no role that we know: OU={unit!r}")
    if not is_id(node):
        raise CertificateError(f"the certificate names no node: CN={node!r}")
    return PeerIdentity(
        NodeId(node), _ROLES[unit], ClusterId(cluster), start.timestamp(), end.timestamp()
    )


def verify_untrusted(certificate: bytes, ca_certificate: bytes, now: float) -> PeerIdentity:
    """Return the identity in `certificate` once it is known to be `ca_certificate`'s word.

    Raises:
        CertificateExpired: it is of this CA but its time is over, or has not come.
        CertificateError: anything else.
    """
    identity = verify_at_any_time_untrusted(certificate, ca_certificate)
    check_time(identity, now)
    return identity


def verify_at_any_time_untrusted(certificate: bytes, ca_certificate: bytes) -> PeerIdentity:
    """As `verify_untrusted`, but its time may be over, or may not have come."""
    parsed = _load_untrusted(certificate)
    identity = _identity(parsed)
    try:
        parsed.verify_directly_issued_by(_load_untrusted(ca_certificate))
    except InvalidSignature as error:
        raise CertificateError(
            f"the certificate of node {identity.node} was not signed by this cluster's CA"
        ) from error
    except _PARSE_ERRORS as error:
        raise CertificateError(
            f"the certificate of node {identity.node} was not issued by this cluster's CA: {error}"
        ) from error
    return identity


def check_time(identity: PeerIdentity, now: float) -> None:
    """Return when the certificate is valid at `now`.

    Raises:
        CertificateExpired: it is not.
    """
    if now > identity.not_after:
        raise CertificateExpired(
            f"the certificate of node {identity.node} expired on {_moment(identity.not_after)}"
        )
    if now < identity.not_before:
        raise CertificateExpired(
            f"the certificate of node {identity.node} is valid only from "
            f"{_moment(identity.not_before)} on: one of the clocks is wrong"
        )


def is_key_of(key: bytes, certificate: bytes) -> bool:
    """Return whether the private key (PEM) belongs to the certificate (PEM).

    Raises:
        CertificateError: one of them cannot be read.
    """
    return _ec_public_key(_load_untrusted(certificate)) == _load_key(key).public_key()


def _load_untrusted(data: bytes) -> x509.Certificate:
    if len(data) > PEM_BYTES_MAX:
        raise CertificateError(f"a certificate of {len(data)} bytes is too long")
    try:
        # What RFC 5280 forbids, such as a negative serial number, only makes the library warn.
        with warnings.catch_warnings(action="error", category=CryptographyDeprecationWarning):
            if b"-----BEGIN" in data:
                return x509.load_pem_x509_certificate(data)
            return x509.load_der_x509_certificate(data)
    except (*_PARSE_ERRORS, CryptographyDeprecationWarning) as error:
        raise CertificateError(f"the certificate cannot be read: {error}") from error


def _request_key_untrusted(csr: bytes) -> ec.EllipticCurvePublicKey:
    if len(csr) > PEM_BYTES_MAX:
        raise CertificateError(f"a certificate request of {len(csr)} bytes is too long")
    try:
        request = x509.load_pem_x509_csr(csr)
        key = request.public_key()
        is_signed = request.is_signature_valid
    except _PARSE_ERRORS as error:
        raise CertificateError(f"the certificate request cannot be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CertificateError("the certificate request has another key than ECDSA P-256")
    if not is_signed:
        raise CertificateError("the certificate request is not signed by its own key")
    return key


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except _PARSE_ERRORS as error:
        raise CertificateError("the private key cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError("the private key is not an elliptic curve key")
    return key


def _ec_public_key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    try:
        key = certificate.public_key()
    except _PARSE_ERRORS as error:
        raise CertificateError(f"the certificate's key cannot be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise CertificateError("the certificate's key is not an elliptic curve key")
    return key


def _only_value(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    values = name.get_attributes_for_oid(oid)
    if len(values) != 1 or not isinstance(values[0].value, str):
        raise ValueError(f"the subject has not exactly one {oid.dotted_string}")
    return values[0].value


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _moment(unix_time: float) -> datetime:
    return datetime.fromtimestamp(int(unix_time), UTC)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
