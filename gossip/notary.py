"""What is said about members is taken once it is known who said it (pure).

A record or claim that would change something is checked; what is known already costs no check. When
the certificate it names is not here, it waits while its source is asked; anyone who holds a
certificate may hand it on. What follows from it is `membership`'s.

Invariants:
    an unsigned or forged record or claim changes nothing but a counter;
    a record that is not recent brings nobody up before that node itself has spoken (`hearsay`).
"""

from __future__ import annotations

from collections.abc import Callable

from gossip.budget import Budgets
from gossip.hearsay import RECENT_S, Hearsay, Rumour
from gossip.identity import fingerprint
from gossip.member import MemberTable, Verdict
from gossip.membership import Membership
from gossip.outbox import Outbox
from gossip.stats import Counters
from gossip.sync import Syncer
from gossip.trust import Check, Trust
from gossip.waiting import Held, Waiting
from gossip.wire import (
    Address,
    CertificateOffer,
    CertificateRequest,
    Claim,
    Message,
    NodeRecord,
    Response,
)

_CHALLENGES_PER_S = 1.0
_CHALLENGES_BURST = 8.0
"""To one node: each life that it signs is asked about anew, wherever it says that it is."""


class Notary:
    """One node's dealings with signed words about members, and with certificates."""

    def __init__(
        self,
        *,
        trust: Trust,
        members: MemberTable,
        membership: Membership,
        sync: Syncer,
        outbox: Outbox,
        counters: Counters,
        on_company: Callable[[float], None],
    ) -> None:
        """`on_company`: called when another member is alive after none was."""
        self._trust = trust
        self._members = members
        self._membership = membership
        self._sync = sync
        self._outbox = outbox
        self._counters = counters
        self._on_company = on_company
        self._waiting = Waiting()
        self._hearsay = Hearsay()
        self._challenges = Budgets(rate=_CHALLENGES_PER_S, most=_CHALLENGES_BURST)
        """By node id."""

    def take(
        self, said: NodeRecord | Claim, source: Address, *, now: float, is_relayed: bool
    ) -> None:
        """Take a record or a claim from `source`; `is_relayed`: pass it on if it is new."""
        if isinstance(said, Claim) and said.accuser in self._membership.removal:
            self._counters.refused_removed += 1
            return
        held = Held(said, source, is_relayed, now)
        if not self._membership.is_news(said) or self._is_shown(held, now=now):
            self._accept(held, now=now)

    def take_response(self, response: Response, *, now: float) -> None:
        """Take a node's answer to what it was asked because others spoke of it."""
        rumour = self._hearsay.answered_by(response, now=now)
        if rumour is None:
            return
        owner = rumour.record.node_id
        if self._trust.check_response(response, owner, now=now) is Check.PASSED:
            self._hearsay.drop(owner)
            self._accept(rumour.held, now=now)

    def take_offer_untrusted(self, offer: CertificateOffer, *, now: float) -> None:
        """Take a certificate, and what waited for it."""
        if self._trust.certificate(fingerprint(offer.der)) is not None:
            return
        certificate = self._trust.take_certificate_untrusted(offer.der, now=now)
        if certificate is not None:
            for held in self._waiting.release(certificate.fingerprint):
                self.take(held.said, held.source, now=now, is_relayed=held.is_relayed)

    def answer(
        self, request: CertificateRequest, source: Address, sender: str | None, *, now: float
    ) -> None:
        """Hand out the certificates that are asked for and known here."""
        for name in request.fingerprints:
            certificate = self._trust.certificate(name)
            if certificate is not None and self._outbox.may_answer(source, now=now):
                self._outbox.send(source, CertificateOffer(certificate.der), node_id=sender)

    def _is_shown(self, held: Held, *, now: float) -> bool:
        """Tell whether it is certain who says this and, of a record, that it is true now."""
        said = held.said
        rumour = self._hearsay.about(said) if isinstance(said, NodeRecord) else None
        if rumour is None:
            check = self._check(said, now=now)
            if check is Check.UNKNOWN:
                self._wait(held, now=now)
            if check is not Check.PASSED:
                return False
            if not isinstance(said, NodeRecord):
                return True
            if not self._is_hearsay(said, now=now):
                self._hearsay.drop(said.node_id)
                return True
            rumour = self._hearsay.hold(said, held)
        if rumour.is_due(now):
            self._challenge(rumour, now=now)
        return False

    def _is_hearsay(self, record: NodeRecord, *, now: float) -> bool:
        is_recent = abs(self._trust.age_s(record.hlc, now=now)) <= RECENT_S
        return not is_recent and self._membership.would_raise(record)

    def _challenge(self, rumour: Rumour, *, now: float) -> None:
        record = rumour.record
        if not self._challenges.take(record.node_id, now=now):
            return
        introduction: list[Message] = []
        if self._members.get(record.node_id) is None:  # nor may it know this node
            introduction = [CertificateOffer(self._trust.own.der), self._membership.me]
        nonce = self._membership.detector.challenge(
            record, *introduction, is_helped=rumour.asked > 0
        )
        self._hearsay.asked(rumour, nonce, now=now)

    def _accept(self, held: Held, *, now: float) -> None:
        said, source, relay = held.said, held.source, held.is_relayed
        was_alone = not self._members.has_live
        if isinstance(said, NodeRecord):
            self._membership.take_record(said, source, now=now, relay=relay)
        elif self._membership.take_claim(said, source, now=now, relay=relay) is Verdict.AHEAD:
            self._sync.pull(source, self._membership.me, now=now)
        if was_alone and self._members.has_live:
            self._on_company(now)

    def _check(self, said: NodeRecord | Claim, *, now: float) -> Check:
        if isinstance(said, NodeRecord):
            return self._trust.check_node(said, now=now)
        return self._trust.check_claim(said, now=now)

    def _wait(self, held: Held, *, now: float) -> None:
        name = held.said.fingerprint
        self._counters.certificates_awaited += 1
        if self._waiting.hold(name, held, now=now):
            self._outbox.send(held.source, CertificateRequest((name,)))
        self._counters.certificates_missed = self._waiting.dropped
