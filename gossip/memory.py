"""Identities that cost next to nothing, for the simulator and for tests (pure).

They check who signed as real ones do, but an authority's secret opens everything: a signature is a
keyed hash, and whoever holds the authority can make any. Sizes are those of real certificates and
signatures, so that packets hold as much.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from gossip.identity import (
    SIGNATURE_BYTES,
    Certificate,
    ForeignCertificateError,
    fingerprint,
)

_CERTIFICATE_BYTES = 550
_SEAL_BYTES = 16
_SEPARATOR = "\n"


@dataclass(frozen=True, slots=True)
class MemoryAuthority:
    """Gives out identities of one cluster."""

    cluster_id: str
    secret: bytes = field(default=b"authority", repr=False)

    def identity(
        self,
        node_id: str,
        *,
        is_manager: bool = True,
        serial: int = 0,
        not_before: float = 0.0,
        not_after: float = float(1 << 40),
    ) -> MemoryIdentity:
        """Return an identity; `serial` tells a node's certificates apart."""
        fields = (self.cluster_id, node_id, int(is_manager), serial, not_before, not_after)
        body = _SEPARATOR.join(map(str, fields)).encode()
        padded = body.ljust(_CERTIFICATE_BYTES - _SEAL_BYTES)
        return MemoryIdentity(self, self.read_certificate_untrusted(padded + self._seal(padded)))

    def read_certificate_untrusted(self, der: bytes) -> Certificate:
        """Return the certificate in `der`. Raises ForeignCertificateError."""
        padded, seal = der[:-_SEAL_BYTES], der[-_SEAL_BYTES:]
        if not hmac.compare_digest(seal, self._seal(padded)):
            raise ForeignCertificateError("not this authority's")
        cluster_id, node_id, is_manager, _, start, end = padded.decode().split(_SEPARATOR)
        if cluster_id != self.cluster_id:
            raise ForeignCertificateError(f"of cluster {cluster_id}, this is {self.cluster_id}")
        key = hashlib.blake2b(padded, key=self.secret, person=b"node key").digest()
        name = fingerprint(der)
        return Certificate(der, name, node_id, is_manager == "1", float(start), float(end), key)

    def _seal(self, body: bytes) -> bytes:
        return hashlib.blake2b(
            body, key=self.secret, digest_size=_SEAL_BYTES, person=b"certificate"
        ).digest()


@dataclass(frozen=True, slots=True)
class MemoryIdentity:
    """One node's identity; see `gossip.identity.Identity`."""

    authority: MemoryAuthority
    certificate: Certificate

    def sign(self, data: bytes) -> bytes:
        """Return a signature."""
        return _sign(self.certificate, data)

    def verify(self, certificate: Certificate, signature: bytes, data: bytes) -> bool:
        """Tell whether the node of `certificate` signed `data`."""
        return hmac.compare_digest(signature, _sign(certificate, data))

    def read_certificate_untrusted(self, der: bytes) -> Certificate:
        """Return the certificate in `der`. Raises ForeignCertificateError."""
        return self.authority.read_certificate_untrusted(der)


def _sign(certificate: Certificate, data: bytes) -> bytes:
    if not isinstance(certificate.key, bytes):
        raise TypeError("a certificate of another kind of identity")
    return hashlib.blake2b(data, key=certificate.key, digest_size=SIGNATURE_BYTES).digest()
