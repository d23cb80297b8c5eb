"""Who a node is, as far as this room must know: it signs, and checks what others signed (pure).

The room knows neither certificate formats nor authorities. An `Identity` comes in from outside;
`gossip.memory` has one that costs nothing, for the simulator and for tests.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Protocol

from gossip.wire import GossipError

SIGNATURE_BYTES = 64
FINGERPRINT_BYTES = 16
CERTIFICATE_BYTES_MAX = 1200
"""A certificate travels in one datagram; one of P-256 with our names has about 550 bytes."""


class ForeignCertificateError(GossipError):
    """Bytes from the network are no certificate of a node of this cluster; the text says why."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that this cluster's authority has signed."""

    der: bytes = field(repr=False)
    fingerprint: bytes
    node_id: str
    is_manager: bool
    """Whether its node may speak of the departure of others."""
    not_before: float
    """Unix time, seconds."""
    not_after: float
    key: object = field(repr=False, compare=False)
    """The public key, for `Identity.verify`; nothing else looks at it."""


class Identity(Protocol):
    """This node's key and certificate, and whom it trusts."""

    @property
    def certificate(self) -> Certificate:
        """This node's own."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Return a signature of `SIGNATURE_BYTES` bytes."""
        ...

    def verify(self, certificate: Certificate, signature: bytes, data: bytes) -> bool:
        """Tell whether the node of `certificate` signed `data`, whatever `signature` is."""
        ...

    def read_certificate_untrusted(self, der: bytes) -> Certificate:
        """Return what `der` holds once this cluster's authority is known to have signed it.

        Its time is the caller's to check. Raises ForeignCertificateError, whatever it is given.
        """
        ...


def fingerprint(der: bytes) -> bytes:
    """Return the `FINGERPRINT_BYTES` that stand for a certificate in records."""
    return hashlib.sha256(der).digest()[:FINGERPRINT_BYTES]
