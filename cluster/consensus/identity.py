"""Who is at the other end of a TLS connection, by its certificate."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

ROLE_MANAGER_OU = "hivewire-manager"


@dataclass(frozen=True, slots=True)
class CertificateIdentity:
    """What a peer's verified certificate says."""

    node_id: str
    role: str
    cluster_id: str


def certificate_identity(transport: asyncio.BaseTransport) -> CertificateIdentity | None:
    """Return the identity of a connection's peer, or None if it showed no certificate."""
    certificate: dict[str, Any] | None = transport.get_extra_info("peercert")
    if not certificate:
        return None
    subject = {key: value for part in certificate.get("subject", ()) for key, value in part}
    return CertificateIdentity(
        node_id=subject.get("commonName", ""),
        role=subject.get("organizationalUnitName", ""),
        cluster_id=subject.get("organizationName", ""),
    )


def is_manager_of(identity: CertificateIdentity | None, cluster_id: str) -> bool:
    """Tell whether this is a manager of the cluster."""
    return (
        identity is not None
        and identity.role == ROLE_MANAGER_OU
        and identity.cluster_id == cluster_id
        and identity.node_id != ""
    )
