"""TLS 1.3 contexts, and who is at the other end.

One server context serves port 2377: a peer without a certificate may come in (it has yet to join),
one with a foreign certificate may not. Protocols share the port by ALPN. A client asks for a node
by its id (`server_hostname`), and goes on only if a manager of its own cluster answers.

The server does not let OpenSSL check the time of client certificates: `identity_of` does, so that
a node that was off for longer than its certificate lived can still renew it (`max_expired_s`).

Invariants: no context accepts less than TLS 1.3; only `pinning_context` takes a certificate that
the cluster's CA has not signed, and nothing secret may be sent through it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from cluster.ca.certificates import (
    CertificateError,
    PeerIdentity,
    check_time,
    read_identity_untrusted,
)
from cluster.ca.files import CertificateDirectory
from cluster.model.ids import ClusterId
from cluster.model.node import Role

ALPN_HTTP = "http/1.1"
ALPN_RAFT = "hivewire-raft/1"
ALPN_GOSSIP = "hivewire-gossip/1"
_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL's x509_vfy.h; the ssl module has no name for it."""


class PeerRefused(ssl.SSLCertVerificationError):
    """The handshake went well, but the other end is not whom we want to talk to."""


@dataclass(frozen=True, slots=True)
class TlsContexts:
    """A node's contexts. They outlive its certificate: `reload` makes them use the new one."""

    server: ssl.SSLContext
    http: ssl.SSLContext
    """Client of a manager's HTTP endpoints and sessions."""
    raft: ssl.SSLContext
    """Client of another manager's Raft."""
    gossip_server: ssl.SSLContext
    """For any node of the cluster, and only with a certificate."""
    gossip_client: ssl.SSLContext
    """To any node of the cluster: whom it talks to follows from the sealed frames."""

    def reload(self, directory: CertificateDirectory) -> None:
        """Use the certificate that is in `directory` now, for connections made from now on."""
        for context in (
            self.server, self.http, self.raft, self.gossip_server, self.gossip_client
        ):  # fmt: skip
            context.load_cert_chain(directory.certificate_path, directory.key_path)


def tls_contexts(directory: CertificateDirectory, cluster: ClusterId) -> TlsContexts:
    """Return the contexts of the node whose (loaded and checked) credentials are in `directory`."""
    server = _context(ssl.PROTOCOL_TLS_SERVER)
    server.verify_mode = ssl.CERT_OPTIONAL
    server.verify_flags |= _NO_CHECK_TIME
    server.set_alpn_protocols([ALPN_RAFT, ALPN_HTTP])
    gossip_server = _context(ssl.PROTOCOL_TLS_SERVER)
    gossip_server.verify_mode = ssl.CERT_REQUIRED
    gossip_server.set_alpn_protocols([ALPN_GOSSIP])
    gossip_client = _client_context(ALPN_GOSSIP)
    gossip_client.check_hostname = False
    contexts = TlsContexts(
        server,
        _client_context(ALPN_HTTP),
        _client_context(ALPN_RAFT),
        gossip_server,
        gossip_client,
    )
    for context in (server, contexts.http, contexts.raft, gossip_server, gossip_client):
        context.load_verify_locations(directory.ca_path)
    for context in (contexts.http, contexts.raft):
        context.sslobject_class = _checking(lambda peer: _check_manager(peer, cluster))
    contexts.reload(directory)
    return contexts


def joining_context(ca_certificate: bytes) -> ssl.SSLContext:
    """Return the context of a node that has no certificate but knows the CA (PEM) by its token.

    It does not know the id of the node it calls, so any manager of that CA will do.
    """
    context = _client_context(ALPN_HTTP)
    context.check_hostname = False
    context.load_verify_locations(cadata=ca_certificate.decode("ascii"))
    context.sslobject_class = _checking(lambda peer: _check_manager(peer, None))
    return context


def pinning_context() -> ssl.SSLContext:
    """Return a context that trusts anyone: only to fetch a CA whose digest is then checked."""
    context = _client_context(ALPN_HTTP)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def identity_of(
    transport: asyncio.BaseTransport | None,
    *,
    cluster: ClusterId,
    now: float,
    max_expired_s: float = 0.0,
) -> PeerIdentity | None:
    """Return who is at the other end of a server's connection; None: it showed no certificate.

    The handshake has checked that the cluster's CA signed it.

    max_expired_s: for how long after its end the certificate is still taken.

    Raises:
        CertificateError: the certificate is of another cluster, or its time is over.
    """
    tls = None if transport is None else transport.get_extra_info("ssl_object")
    der = None if tls is None else tls.getpeercert(binary_form=True)
    if not der:
        return None
    identity = read_identity_untrusted(der)
    if identity.cluster != cluster:
        raise CertificateError(
            f"the certificate of node {identity.node} is of cluster {identity.cluster}, "
            f"this is {cluster}"
        )
    check_time(identity, min(now, max(identity.not_after, now - max_expired_s)))
    return identity


def selected_protocol(transport: asyncio.BaseTransport) -> str | None:
    """Return the ALPN protocol of a connection, None if the peer asked for none."""
    tls = transport.get_extra_info("ssl_object")
    protocol = None if tls is None else tls.selected_alpn_protocol()
    return protocol if isinstance(protocol, str) else None


def _context(side: int) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _client_context(alpn: str) -> ssl.SSLContext:
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols([alpn])
    return context


def _check_manager(peer: PeerIdentity, cluster: ClusterId | None) -> None:
    if cluster is not None and peer.cluster != cluster:
        raise PeerRefused(f"node {peer.node} is of another cluster, {peer.cluster}")
    if peer.role is not Role.MANAGER:
        raise PeerRefused(f"node {peer.node} is not a manager")


def _checking(check: Callable[[PeerIdentity], None]) -> type[ssl.SSLObject]:
    """Return a class of TLS connection whose handshake also asks `check`."""

    class CheckingObject(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            try:
                check(read_identity_untrusted(self.getpeercert(binary_form=True) or b""))
            except CertificateError as error:
                raise PeerRefused(str(error)) from error

    return CheckingObject
