"""Who this node is to gossip: its certificate and key, and the roots that it trusts.

The implementation of `gossip.identity.Identity` for real clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cluster.ca.certificates import (
    CertificateError,
    PeerIdentity,
    read_identity_untrusted,
    verify_at_any_time_untrusted,
)
from cluster.ca.files import Credentials
from cluster.ca.signatures import Signer, Verifier, der_of
from cluster.model.ids import ClusterId
from cluster.model.node import Role
from gossip.identity import (
    CERTIFICATE_BYTES_MAX,
    Certificate,
    ForeignCertificateError,
    fingerprint,
)


class NodeIdentity:
    """One node's certificate and key; a renewed certificate makes a new identity."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        cluster: ClusterId,
        roots: Callable[[], Sequence[bytes]],
    ) -> None:
        """`roots`: the CA certificates (PEM) trusted now; two while the cluster changes its root.

        Raises CertificateError if the node's own certificate or key cannot be read.
        """
        self._cluster = cluster
        self._roots = roots
        self._signer = Signer(credentials.key)
        der = der_of(credentials.certificate)
        self.certificate = _certificate(der, read_identity_untrusted(der))

    def sign(self, data: bytes) -> bytes:
        """Return this node's signature of `data`, 64 bytes."""
        return self._signer.sign(data)

    def verify(self, certificate: Certificate, signature: bytes, data: bytes) -> bool:
        """Tell whether the node of `certificate` signed `data`, whatever `signature` is."""
        key = certificate.key
        return isinstance(key, Verifier) and key.is_signed_untrusted(signature, data)

    def read_certificate_untrusted(self, der: bytes) -> Certificate:
        """Return what `der` holds, at whatever time; raises ForeignCertificateError."""
        if len(der) > CERTIFICATE_BYTES_MAX:
            raise ForeignCertificateError("the certificate is too long")
        try:
            identity = self._identity_untrusted(der)
            if identity.cluster != self._cluster:
                raise ForeignCertificateError(f"the certificate is of {identity.cluster}")
            return _certificate(der, identity)
        except CertificateError as error:
            raise ForeignCertificateError(str(error)) from error

    def _identity_untrusted(self, der: bytes) -> PeerIdentity:
        if b"-----BEGIN" in der:
            raise CertificateError("the certificate is not in DER")
        refusal = CertificateError("there is no root to trust")
        for root in self._roots():
            try:
                return verify_at_any_time_untrusted(der, root)
            except CertificateError as error:
                refusal = error
        raise refusal


def _certificate(der: bytes, identity: PeerIdentity) -> Certificate:
    return Certificate(
        der,
        fingerprint(der),
        identity.node,
        identity.role is Role.MANAGER,
        identity.not_before,
        identity.not_after,
        Verifier(der),
    )
