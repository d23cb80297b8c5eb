"""Who gets a certificate, and the issuing of it: one cluster's CA, as any manager has it.

The decision is pure: the caller passes the time and the token or the node's role as the replicated
state has it, and commits the node before it hands the certificate out.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.ca.certificates import CertificateError, RootCa, issue, request_digest_untrusted
from cluster.ca.tokens import is_same_token, new_token, parse_token_untrusted
from cluster.model.cluster import NODE_CERTIFICATE_VALIDITY_S, Cluster, JoinTokens
from cluster.model.errors import Invalid
from cluster.model.ids import ID_LENGTH, ClusterId, NodeId, base36
from cluster.model.node import Role

_NODE_ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Authority:
    """The cluster's certificate authority."""

    cluster: ClusterId
    root: RootCa
    tokens: JoinTokens
    validity_s: float = NODE_CERTIFICATE_VALIDITY_S
    """Of the certificates it issues."""

    def role_of_token_untrusted(self, token: str) -> Role:
        """Return the role that `token` lets in.

        Both tokens are always compared, in constant time.

        Raises:
            Invalid: neither; the text (Swarm's) does not say in what it differs.
        """
        parse_token_untrusted(token)
        is_manager = is_same_token(token.strip(), self.tokens.manager)
        is_worker = is_same_token(token.strip(), self.tokens.worker)
        if is_manager:
            return Role.MANAGER
        if is_worker:
            return Role.WORKER
        raise Invalid("A valid join token is necessary to join this cluster")

    def issue_untrusted(self, csr: bytes, *, node: NodeId, role: Role, now: float) -> bytes:
        """Return a certificate (PEM) for the request.

        Raises:
            Invalid: the request is malformed.
        """
        try:
            return issue(
                self.root,
                csr,
                node=node,
                role=role,
                cluster=self.cluster,
                now=now,
                validity_s=self.validity_s,
            )
        except CertificateError as error:
            raise Invalid(str(error)) from error


def authority_of(cluster: Cluster) -> Authority:
    """Return the authority of a replicated cluster object."""
    return Authority(
        cluster=cluster.id,
        root=RootCa(cluster.ca_certificate, cluster.ca_key),
        tokens=cluster.join_tokens,
        validity_s=cluster.spec.node_certificate_validity_s,
    )


def new_join_tokens(ca_certificate: bytes) -> JoinTokens:
    """Return fresh tokens of both roles."""
    return JoinTokens(worker=new_token(ca_certificate), manager=new_token(ca_certificate))


def node_id_of_request_untrusted(csr: bytes) -> NodeId:
    """Return the id of the node that joins with this request: a digest of its public key.

    So a node whose first attempt went through but whose answer was lost becomes the same node when
    it tries again, instead of leaving a ghost; and no one without its private key can claim its id.

    Raises:
        Invalid: the request is malformed.
    """
    try:
        digest = request_digest_untrusted(csr)
    except CertificateError as error:
        raise Invalid(str(error)) from error
    return NodeId(base36(int.from_bytes(digest[:_NODE_ID_BYTES]), ID_LENGTH))
