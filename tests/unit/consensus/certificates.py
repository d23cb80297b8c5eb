"""Certificates for tests: one authority, managers, workers and impostors."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cluster.consensus.identity import ROLE_MANAGER_OU
from cluster.consensus.transport import ALPN

CLUSTER = "cluster-1"
_NOW = datetime.datetime.now(datetime.UTC)
_DAY = datetime.timedelta(days=1)


def _name(common_name: str, role: str, cluster: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster),
        ]
    )


class Authority:
    """A certificate authority whose files are in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("authority", "hivewire-ca", CLUSTER)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_NOW - _DAY)
            .not_valid_after(_NOW + _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_path = directory / "ca.pem"
        self.ca_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        node_id: str,
        *,
        role: str = ROLE_MANAGER_OU,
        cluster: str = CLUSTER,
        subject: str | None = None,
        is_expired: bool = False,
    ) -> Path:
        """Return a file with a certificate for `node_id` (as DNS name) and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(subject or node_id, role, cluster))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_NOW - _DAY)
            .not_valid_after(_NOW + (-_DAY / 2 if is_expired else _DAY))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(node_id)]), critical=False)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        path = self.directory / f"{x509.random_serial_number():x}.pem"
        path.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return path


def client_context(authority: Authority, certificate: Path | None) -> ssl.SSLContext:
    """Return what a manager dials with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = True
    return _finish(context, authority, certificate)


def server_context(authority: Authority, certificate: Path) -> ssl.SSLContext:
    """Return what a manager accepts with."""
    return _finish(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), authority, certificate)


def _finish(
    context: ssl.SSLContext, authority: Authority, certificate: Path | None
) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.ca_path)
    if certificate is not None:
        context.load_cert_chain(certificate)
    context.set_alpn_protocols([ALPN])
    return context
