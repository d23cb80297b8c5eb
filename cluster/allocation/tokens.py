"""Allocation tokens: Ed25519 signatures of the managers (pure).

A token covers a domain, the cluster, the node that may publish, where (scope and key) and every
byte of the record but its phase. Ed25519 is deterministic (RFC 8032): all managers make the same
token, so nothing changes when another one sends it again.

The first key signs, all are accepted. So a key can be replaced in three steps, each known to every
node before the next: accept the new one, sign with it, drop the old one.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cluster.model.assignment import Allocation
from cluster.model.cluster import AllocationKey
from cluster.model.ids import ClusterId, NodeId

DOMAIN = "hivewire allocation v1"
"""No other use of the key signs anything that begins so."""
SECRET_BYTES = 32
PUBLIC_BYTES = 32
TOKEN_BYTES = 64

_encode = msgspec.msgpack.Encoder().encode


def new_key(secret: bytes) -> AllocationKey:
    """Return the key pair of `secret`: 32 bytes of `secrets.token_bytes` or as good."""
    key = Ed25519PrivateKey.from_private_bytes(secret)
    return AllocationKey(key.public_key().public_bytes_raw(), secret)


class Signer:
    """Signs for one cluster with one key."""

    def __init__(self, cluster: ClusterId, key: AllocationKey) -> None:
        self._cluster = cluster
        self._key = Ed25519PrivateKey.from_private_bytes(key.secret)

    def allocate(self, node: NodeId, scope: str, key: str, body: bytes) -> Allocation:
        """Return the proof that `node` may publish `body` there."""
        token = self._key.sign(_statement(self._cluster, node, scope, key, body))
        return Allocation(scope, key, body, token)


@dataclass(frozen=True, slots=True)
class Verifier:
    """Knows whom to believe in one cluster; with no key, nobody."""

    cluster: ClusterId
    keys: tuple[bytes, ...]
    """Public halves of the managers' allocation keys; others' bytes raise ValueError when used."""

    def is_allocated_untrusted(
        self, node: NodeId, scope: str, key: str, body: bytes, token: bytes
    ) -> bool:
        """Return whether the managers allow `node` to publish `body` there."""
        if len(token) != TOKEN_BYTES:
            return False
        statement = _statement(self.cluster, node, scope, key, body)
        return any(_is_signed(public, token, statement) for public in self.keys)


def _is_signed(public: bytes, token: bytes, statement: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(token, statement)
    except InvalidSignature:
        return False
    return True


def _statement(cluster: ClusterId, node: NodeId, scope: str, key: str, body: bytes) -> bytes:
    # An array of strings with their lengths: no two different statements have the same bytes.
    return _encode((DOMAIN, cluster, node, scope, key, body))
