"""Signs what this node says, and checks what others are said to have said (pure).

A signature covers the cluster and the message's wire form without the signature; the form begins
with the kind of the message, so nothing signed as one kind passes for another. Who signed is named
by the fingerprint of a certificate. Certificates come from anyone: the cluster's authority has
signed them.

Invariants:
    only what the named node signed, with a certificate that is valid now, passes;
    certificates kept, and checks for one packet, and a second for each account that sends, are
    bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from enum import Enum

from gossip.budget import Budgets
from gossip.hybrid import HybridClock
from gossip.identity import Certificate, ForeignCertificateError, Identity, fingerprint
from gossip.message import encode
from gossip.stats import Counters
from gossip.wire import (
    MEMBERS_MAX,
    Address,
    Challenge,
    Claim,
    Delta,
    Head,
    NodeRecord,
    Response,
    Stamp,
    State,
    Update,
)

CERTIFICATES_MAX = 4 * MEMBERS_MAX
"""Certificates remembered, of all nodes; the least recently used goes first."""
CERTIFICATES_PER_NODE_MAX = 4
"""A node that renewed has two; a liar cannot crowd out others with its own."""
_CHECKS_PER_S = 1000.0
"""Signatures checked a second of what one account sends; 0.13 ms each."""
_HASHES_PER_CHECK = 50.0
"""Records that are hashed in the time of one check."""
_LOOKS_PER_CHECK = 500.0
"""Records that are looked at, to put a log together, in the time of one check."""
_CHECKS_BURST = 8000.0
"""What joining a large cluster takes at once."""
_CHECKS_PER_PACKET = 1000.0
"""However much one packet says, the event loop goes on after so many; anti-entropy comes back to
the rest. A frame of an honest node takes fewer, unless it brings a log without its head."""


class Check(Enum):
    """What a check came to."""

    PASSED = "passed"
    UNKNOWN = "unknown"
    """The certificate is not here."""
    REFUSED = "refused"
    """And counted by reason."""


class Trust:
    """One node's pen and its eye for signatures."""

    __slots__ = (
        "_account_of",
        "_budgets",
        "_by_node",
        "_certificates",
        "_clock",
        "_context",
        "_counters",
        "_identity",
        "_left",
        "_speaker",
    )

    def __init__(
        self,
        *,
        cluster_id: str,
        identity: Identity,
        counters: Counters,
        clock: HybridClock,
        account_of: Callable[[Address], str],
    ) -> None:
        """`account_of`: returns who pays for what comes from an address."""
        self._context = b"hivewire gossip\0" + cluster_id.encode() + b"\0"
        self._counters = counters
        self._clock = clock
        self._certificates: dict[bytes, Certificate] = {}
        """The least recently used first."""
        self._by_node: dict[str, tuple[bytes, ...]] = {}
        self._budgets = Budgets(rate=_CHECKS_PER_S, most=_CHECKS_BURST)
        self._speaker: Address = ("", 0)
        self._left = _CHECKS_PER_PACKET
        self._account_of = account_of
        self._identity = identity

    @property
    def own(self) -> Certificate:
        """This node's certificate."""
        return self._identity.certificate

    def hear(self, source: Address) -> None:
        """Begin with a packet: who sent it pays for its checks, and they are bounded."""
        self._speaker = source
        self._left = _CHECKS_PER_PACKET

    def set_identity(self, identity: Identity) -> None:
        """Sign with another key from now on; the old certificate is kept for what it signed."""
        self._remember(self.own)
        self._identity = identity

    def certificate(self, fingerprint: bytes) -> Certificate | None:
        """Return a certificate that is known here."""
        if fingerprint == self.own.fingerprint:
            return self.own
        found = self._certificates.pop(fingerprint, None)
        if found is not None:
            self._certificates[fingerprint] = found
        return found

    def bearer_untrusted(self, der: bytes) -> str | None:
        """Return whose certificate a connection has shown; None, and counted, if nobody's here."""
        known = self.certificate(fingerprint(der))
        if known is not None:
            return known.node_id
        self._counters.checked += 1
        try:
            return self._identity.read_certificate_untrusted(der).node_id
        except ForeignCertificateError:
            self._counters.refused_foreign += 1
            return None

    def take_certificate_untrusted(self, der: bytes, *, now: float) -> Certificate | None:
        """Return the certificate in `der` and remember it; None, and counted, if it will not do."""
        if not self._may_check(now):
            return None
        self._counters.checked += 1
        try:
            certificate = self._identity.read_certificate_untrusted(der)
        except ForeignCertificateError:
            self._counters.refused_foreign += 1
            return None
        if not self._is_valid(certificate, now):
            return None
        self._remember(certificate)
        return certificate

    def meet(self, certificates: Iterable[Certificate]) -> None:
        """Remember certificates of nodes that are unknown so far; they need no check."""
        for certificate in certificates:
            self._certificates[certificate.fingerprint] = certificate
            self._by_node[certificate.node_id] = (certificate.fingerprint,)

    def sign_node(self, record: NodeRecord) -> NodeRecord:
        """Return this node's record, signed."""
        named = replace(record, fingerprint=self.own.fingerprint, signature=b"")
        return replace(named, signature=self._sign(encode(named)))

    def sign_claim(self, claim: Claim) -> Claim:
        """Return a claim of this node, signed."""
        named = replace(claim, fingerprint=self.own.fingerprint, signature=b"")
        return replace(named, signature=self._sign(encode(named)))

    def sign_update(self, update: Update) -> Update:
        """Return a record of this node, signed."""
        unsigned = replace(update, record=replace(update.record, signature=b""))
        record = replace(update.record, signature=self._sign(encode(unsigned)))
        return replace(update, record=record)

    def sign_head(self, scope: str, owner: str, stamp: Stamp, head: Head) -> Head:
        """Return the head of one of this node's logs, signed."""
        return replace(head, signature=self._sign(_head_statement(scope, owner, stamp, head)))

    def sign_response(self, challenge: Challenge, *, epoch: int) -> Response:
        """Return this node's answer to a challenge."""
        signature = self._sign(encode(Response(challenge.nonce, epoch)))
        return Response(challenge.sequence, epoch, signature)

    def check_response(self, response: Response, owner: str, *, now: float) -> Check:
        """Tell whether `owner` has signed the nonce that a response has for its sequence."""
        signed = encode(replace(response, signature=b""))
        return self._check_owner(owner, response.signature, signed, now=now)

    def check_node(self, record: NodeRecord, *, now: float) -> Check:
        """Tell whether a record is its node's own word."""
        signed = replace(record, signature=b"")
        self.look_at_clock(record.hlc, now=now)
        return self._check(record.fingerprint, record.node_id, signed, record.signature, now=now)

    def check_claim(self, claim: Claim, *, now: float) -> Check:
        """Tell whether a claim is its accuser's word, and whether that may say so.

        Of a departure only the node itself and managers may speak.
        """
        certificate = self.certificate(claim.fingerprint)
        is_of_another = claim.state is State.LEFT and claim.accuser != claim.subject
        if is_of_another and certificate is not None and not certificate.is_manager:
            self._counters.refused_unauthorized += 1
            return Check.REFUSED
        signed = replace(claim, signature=b"")
        return self._check(claim.fingerprint, claim.accuser, signed, claim.signature, now=now)

    def check_update(self, update: Update, *, now: float) -> Check:
        """Tell whether a record is its owner's word."""
        self.look_at_clock(update.record.hlc, now=now)
        unsigned = replace(update, record=replace(update.record, signature=b""))
        signature = update.record.signature
        return self._check_owner(update.owner, signature, encode(unsigned), now=now)

    def check_head(self, delta: Delta, head: Head, *, held: int, now: float) -> Check:
        """Tell whether the head of a delta is the owner's word.

        The budget pays for hashing the records that it speaks of, too, and for looking for them
        among those of the delta and the `held` ones.
        """
        self.look_at_clock(head.hlc, now=now)
        looks = held + len(delta.records)
        if not self._may_check(now, head.count / _HASHES_PER_CHECK + looks / _LOOKS_PER_CHECK):
            return Check.REFUSED
        data = _head_statement(delta.scope, delta.owner, delta.stamp, head)
        return self._check_owner(delta.owner, head.signature, data, now=now)

    def age_s(self, hlc: int, *, now: float) -> float:
        """Return how long ago a record was written, by its owner's clock and this node's."""
        return self._clock.unix_s(now) - hlc / 1000

    def look_at_clock(self, hlc: int, *, now: float) -> None:
        """Count a hybrid logical clock that is far ahead of this node's clock.

        It is believed all the same: one of the two clocks is wrong, nobody knows which, and nothing
        hangs on either. A node that refused would fall silent for being an hour behind.
        """
        self._counters.clocks_ahead += self._clock.is_ahead(hlc, now=now)

    def _sign(self, data: bytes) -> bytes:
        self._counters.signed += 1
        return self._identity.sign(self._context + data)

    def _check(
        self,
        fingerprint: bytes,
        node_id: str,
        signed: NodeRecord | Claim,
        signature: bytes,
        *,
        now: float,
    ) -> Check:
        certificate = self.certificate(fingerprint)
        if certificate is None:
            return Check.UNKNOWN
        if certificate.node_id != node_id:
            self._counters.refused_forged += 1
            return Check.REFUSED
        if not self._is_valid(certificate, now) or not self._may_check(now):
            return Check.REFUSED
        return self._passed(is_signed=self._is_signed(certificate, signature, encode(signed)))

    def _check_owner(self, owner: str, signature: bytes, data: bytes, *, now: float) -> Check:
        """Try the owner's certificates, the newest first: what it signed before it renewed counts.

        Records name no certificate, for brevity: their owner is a member, so its own are here.
        """
        for name in reversed(self._by_node.get(owner, ())):
            certificate = self._certificates[name]
            if not self._is_valid(certificate, now):
                continue
            if not self._may_check(now):
                return Check.REFUSED
            if self._is_signed(certificate, signature, data):
                return Check.PASSED
        return self._passed(is_signed=False)

    def _is_signed(self, certificate: Certificate, signature: bytes, data: bytes) -> bool:
        self._counters.checked += 1
        return self._identity.verify(certificate, signature, self._context + data)

    def _passed(self, *, is_signed: bool) -> Check:
        self._counters.refused_forged += not is_signed
        return Check.PASSED if is_signed else Check.REFUSED

    def _may_check(self, now: float, count: float = 1.0) -> bool:
        account = self._account_of(self._speaker)
        if count > self._left or not self._budgets.take(account, count, now=now):
            self._counters.checks_put_off += 1
            return False
        self._left -= count
        return True

    def _is_valid(self, certificate: Certificate, now: float) -> bool:
        is_valid = certificate.not_before <= self._clock.unix_s(now) <= certificate.not_after
        self._counters.refused_expired += not is_valid
        return is_valid

    def _remember(self, certificate: Certificate) -> None:
        name, node_id = certificate.fingerprint, certificate.node_id
        mine = self._by_node.get(node_id, ())
        if self._certificates.pop(name, None) is None:
            mine = self._by_node[node_id] = (*mine, name)
        self._certificates[name] = certificate
        if len(mine) > CERTIFICATES_PER_NODE_MAX:
            self._forget(min(mine, key=lambda n: self._certificates[n].not_after))
        if len(self._certificates) > CERTIFICATES_MAX:
            self._forget(next(iter(self._certificates)))

    def _forget(self, name: bytes) -> None:
        node_id = self._certificates.pop(name).node_id
        mine = tuple(other for other in self._by_node[node_id] if other != name)
        if mine:
            self._by_node[node_id] = mine
        else:
            del self._by_node[node_id]


def _head_statement(scope: str, owner: str, stamp: Stamp, head: Head) -> bytes:
    bare = replace(head, signature=b"")
    return encode(Delta(scope, owner, stamp, head.maximum, head.maximum, head.gc, (), bare))
