"""The joining node's side of a join.

First it fetches the CA certificate, from whoever answers, and compares its digest with the one in
the token. Then it connects again and goes on only if a manager answers whose certificate that CA
has signed; only now does it show the token. So neither another cluster nor someone in between
learns the token or can pose as the cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.ca.certificates import (
    CertificateError,
    CertificateRequest,
    PeerIdentity,
    canonical_pem_untrusted,
    certificate_digest_untrusted,
    is_key_of,
    verify_untrusted,
)
from cluster.ca.files import Credentials
from cluster.ca.tls import joining_context, pinning_context
from cluster.ca.tokens import JoinToken, parse_token_untrusted
from cluster.dispatch.calls import HttpSession, NotThatManager, call, http_session
from cluster.dispatch.messages import MalformedMessage, Registration
from cluster.dispatch.requests import (
    CA_PATH,
    JOIN_PATH,
    JoinRequest,
    JoinResponse,
    decode_untrusted,
)
from cluster.model.errors import Invalid, Unavailable
from cluster.model.node import Availability

DEFAULT_PORT = 2377
PORT_MAX = 65_535


@dataclass(frozen=True, slots=True)
class Joined:
    """A join that went well."""

    credentials: Credentials
    identity: PeerIdentity
    response: JoinResponse


async def join(
    addresses: Sequence[str],
    token: str,
    request: CertificateRequest,
    registration: Registration,
    *,
    availability: Availability = Availability.ACTIVE,
    clock: Callable[[], float],
) -> Joined:
    """Join the cluster of one of the managers at `addresses` (`host[:port]`), tried in turn.

    request: keep it and try with it again if no answer came: it leads to the same node.
    clock: unix time, seconds.

    Raises:
        Invalid: the token, or the address, is wrong; another attempt will not do better.
        Unavailable: no manager answered, or none could decide.
        ClusterError: refused.
    """
    parsed = parse_token_untrusted(token)
    wish = JoinRequest(token.strip(), request.csr, registration, availability)
    unanswered: list[str] = []
    async with http_session() as session:
        for address in [with_port(address) for address in addresses]:
            try:
                response = await _join_at(session, address, parsed, wish)
            except Unavailable as error:
                unanswered.append(str(error))
                continue
            return _checked(address, response, request, parsed, clock())
    raise Unavailable("; ".join(unanswered) or "no manager's address was given")


def with_port(address: str) -> str:
    """Return `host:port` of an address that may lack the port, or the brackets of IPv6.

    Raises:
        Invalid: it has no host, or an impossible port.
    """
    text = address.strip()
    if text.count(":") > 1 and not text.startswith("["):
        text = f"[{text}]"
    has_port = text.rpartition("]")[2].startswith(":") if "]" in text else ":" in text
    host, _, port = (text if has_port else f"{text}:{DEFAULT_PORT}").rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) <= PORT_MAX:
        raise Invalid(f"invalid manager address {address!r}: give HOST or HOST:PORT")
    return f"{host}:{port}"


async def _join_at(
    session: HttpSession, address: str, token: JoinToken, wish: JoinRequest
) -> JoinResponse:
    fetched = await call(session, address, CA_PATH, context=pinning_context())
    ca = _pinned(address, fetched, token)
    try:
        answer = await call(session, address, JOIN_PATH, context=joining_context(ca), body=wish)
    except NotThatManager as error:
        raise Invalid(f"invalid join: {error}") from error
    try:
        return decode_untrusted(answer, JoinResponse)
    except MalformedMessage as error:
        raise Unavailable(f"{address} did not answer as a manager: {error}") from error


def _pinned(address: str, fetched: bytes, token: JoinToken) -> bytes:
    """Return the CA certificate that the token is for."""
    try:
        digest = certificate_digest_untrusted(fetched)
        ca = canonical_pem_untrusted(fetched)
    except CertificateError as error:
        raise Unavailable(f"{address} did not answer as a manager: {error}") from error
    if digest != token.ca_digest:
        raise Invalid(
            "remote CA does not match fingerprint. "
            f"Expected: {token.ca_digest.hex()}, got: {digest.hex()} from {address}. "
            "The token is of another cluster, or someone else answers at that address"
        )
    return ca


def _checked(
    address: str,
    response: JoinResponse,
    request: CertificateRequest,
    token: JoinToken,
    now: float,
) -> Joined:
    """Return the join once the certificate is known to be what was asked for."""
    try:
        identity = verify_untrusted(response.certificate, response.ca, now)
        is_ours = (
            certificate_digest_untrusted(response.ca) == token.ca_digest
            and is_key_of(request.key, response.certificate)
            and identity.node == response.node
            and identity.role is response.role
            and identity.cluster == response.cluster
        )
    except CertificateError as error:
        raise Invalid(f"the certificate that {address} has issued is wrong: {error}") from error
    if not is_ours:
        raise Invalid(f"the certificate that {address} has issued is not for this node")
    ca = canonical_pem_untrusted(response.ca)
    return Joined(Credentials(ca, response.certificate, request.key), identity, response)
