"""Join tokens: `SWMTKN-1-<digest of the root CA>-<secret>`, in Swarm's format.

A token is two things: the pin by which a joining node knows that it talks to the right cluster, and
the secret by which the cluster knows that it may join. Each role has its own secret.

Source: swarmkit ca/config.go, GenerateJoinToken and ParseJoinToken. The digest is the SHA-256 of
the certificate in DER.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field

from cluster.ca.certificates import certificate_digest_untrusted
from cluster.model.errors import Invalid
from cluster.model.ids import base36

_PREFIX = "SWMTKN"
_VERSION = "1"
_FIPS_VERSION = "2"
DIGEST_LENGTH = 50
"""Base36 digits of 256 bits."""
SECRET_LENGTH = 25
"""Base36 digits of 128 bits."""
SECRET_BYTES = 16
TOKEN_LENGTH = len(f"{_PREFIX}-{_VERSION}-") + DIGEST_LENGTH + 1 + SECRET_LENGTH
_PARTS = 4
_DIGITS = frozenset("0123456789abcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A join token, taken apart."""

    ca_digest: bytes
    """SHA-256 of the cluster's root certificate, 32 bytes."""
    secret: bytes = field(repr=False)
    """16 bytes."""


def new_token(ca_certificate: bytes) -> str:
    """Return a fresh token that pins the root certificate (PEM)."""
    return format_token(
        JoinToken(
            certificate_digest_untrusted(ca_certificate),
            secrets.token_bytes(SECRET_BYTES),
        )
    )


def format_token(token: JoinToken) -> str:
    """Return the token as a user sees it."""
    digest = base36(int.from_bytes(token.ca_digest), DIGEST_LENGTH)
    secret = base36(int.from_bytes(token.secret), SECRET_LENGTH)
    return f"{_PREFIX}-{_VERSION}-{digest}-{secret}"


def parse_token_untrusted(text: str) -> JoinToken:
    """Return the parts of a token that somebody typed or sent.

    Raises:
        Invalid: it is none; the text says what is wrong with it, and never repeats its secret.
    """
    text = text.strip()
    parts = text.split("-")
    if parts[0] != _PREFIX:
        raise Invalid(f"invalid join token: it does not begin with {_PREFIX}-{_VERSION}-")
    if len(parts) > 1 and parts[1] == _FIPS_VERSION:
        raise Invalid("invalid join token: it is of a FIPS cluster (version 2), which is not known")
    if len(parts) > 1 and parts[1] != _VERSION:
        raise Invalid(f"invalid join token: version {parts[1][:8]!r} is not known, only {_VERSION}")
    if len(text) < TOKEN_LENGTH:
        raise Invalid(
            f"invalid join token: it is cut short, {len(text)} of {TOKEN_LENGTH} characters"
        )
    if len(text) > TOKEN_LENGTH:
        raise Invalid(
            f"invalid join token: it is too long, {len(text)} instead of {TOKEN_LENGTH} characters"
        )
    if len(parts) != _PARTS or len(parts[2]) != DIGEST_LENGTH:
        raise Invalid("invalid join token: its parts are not where they should be")
    return JoinToken(
        _bytes_of(parts[2], 32, "CA digest"), _bytes_of(parts[3], SECRET_BYTES, "secret")
    )


def is_same_token(left: str, right: str) -> bool:
    """Return whether two tokens are equal, in a time that does not tell how much of them is."""
    return hmac.compare_digest(left.encode(), right.encode())


def _bytes_of(digits: str, size_bytes: int, what: str) -> bytes:
    if not _DIGITS.issuperset(digits):
        raise Invalid(f"invalid join token: its {what} has characters that are no base36 digits")
    try:
        return int(digits, 36).to_bytes(size_bytes)
    except OverflowError as error:
        raise Invalid(f"invalid join token: its {what} is out of range") from error
