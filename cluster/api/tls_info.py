"""What clients are shown of the cluster's CA certificate (pure)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


@lru_cache(maxsize=4)
def tls_info(certificate_pem: bytes) -> Mapping[str, str]:
    """Return Docker's TLSInfo of a CA certificate; of an unreadable one only the PEM."""
    trust = {"TrustRoot": certificate_pem.decode("ascii", "replace")}
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
    except ValueError:
        return trust
    public_key = certificate.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    return {
        **trust,
        "CertIssuerSubject": base64.b64encode(certificate.subject.public_bytes()).decode(),
        "CertIssuerPublicKey": base64.b64encode(public_key).decode(),
    }
