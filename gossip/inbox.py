"""What becomes of a packet: opened, decoded, and each message given to whom it concerns (pure).

Invariants:
    bytes that are not a packet of this cluster change no state but a counter;
    nor does a frame in another name than that of the certificate which its stream has shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from gossip.codec import Codec, Received
from gossip.doubts import Doubts
from gossip.freshness import Freshness
from gossip.keyring import Rejected, RejectedPacketError, sender_tag
from gossip.ledger import Ledger
from gossip.member import Member, MemberTable
from gossip.membership import Membership
from gossip.notary import Notary
from gossip.outbox import Outbox
from gossip.stats import Counters
from gossip.sync import Syncer
from gossip.trust import Trust
from gossip.wire import (
    NODES,
    Ack,
    Address,
    CertificateOffer,
    CertificateRequest,
    Challenge,
    Claim,
    Delta,
    Digest,
    MalformedPacketError,
    Message,
    Nack,
    News,
    NodeRecord,
    Ping,
    PingRequest,
    Response,
    Update,
)


class Inbox:
    """One node's incoming packets."""

    __slots__ = (
        "_codec",
        "_counters",
        "_doubts",
        "_ledger",
        "_members",
        "_membership",
        "_notary",
        "_on_newer_key",
        "_outbox",
        "_sync",
        "_trust",
    )

    def __init__(
        self,
        *,
        codec: Codec,
        members: MemberTable,
        membership: Membership,
        trust: Trust,
        notary: Notary,
        ledger: Ledger,
        sync: Syncer,
        outbox: Outbox,
        counters: Counters,
        doubts: Doubts,
        on_newer_key: Callable[[float], None],
    ) -> None:
        """`on_newer_key`: called for every packet, even of junk, with a newer key than known."""
        self._codec = codec
        self._members = members
        self._membership = membership
        self._trust = trust
        self._notary = notary
        self._ledger = ledger
        self._sync = sync
        self._outbox = outbox
        self._counters = counters
        self._doubts = doubts
        self._on_newer_key = on_newer_key

    def take_untrusted(self, data: bytes, source: Address, *, now: float) -> None:
        """Take a datagram."""
        self._counters.datagrams_in += 1
        packet = self._open_untrusted(data, source, now=now, is_stream=False)
        if packet is None:
            return
        tag, epoch = packet.sender, packet.epoch
        sender = self._members.by_tag(tag)
        is_in_doubt = self._doubts.asked or packet.freshness is not Freshness.NEW
        if is_in_doubt and not self._is_new(packet, sender, source, now=now):
            return
        if sender is not None and epoch < sender.record.epoch:
            self._remind_of_later(sender, epoch, source, now=now)
            return
        self._trust.hear(source)
        for message in packet.messages:
            if sender is None:
                sender = self._members.by_tag(tag)
            self._take(message, source, None if sender is None else sender.node_id, now=now)
        if sender is None or not sender.is_live or sender.record.epoch < epoch:
            self._look_at_sender(tag, epoch, source, now=now)
        else:
            self._membership.detector.hearing.heard(now)

    def take_frame_untrusted(
        self, data: bytes, source: Address, *, now: float, peer: str | None
    ) -> bool:
        """Take a frame of a stream; tell whether it was one of this cluster's.

        `peer`: who sends it for certain. Anyone here can seal in another's name; a stream's
        certificate is its bearer's alone, so it says who speaks, and pays for what is checked.
        """
        packet = self._open_untrusted(data, source, now=now, is_stream=True)
        if packet is None or not self._is_fit(packet, peer):
            return False
        sender = self._members.by_tag(packet.sender)
        if peer is not None and sender is not None:
            source = sender.address
        if sender is not None and packet.epoch < sender.record.epoch:
            self._remind_of_later(sender, packet.epoch, source, now=now)
            return True
        self._trust.hear(source)
        for message in packet.messages:
            sender = sender or self._members.by_tag(packet.sender)
            if sender is not None:
                source = sender.address  # it hears nothing where it calls from
            self._take(message, source, None if sender is None else sender.node_id, now=now)
        return True

    def _open_untrusted(
        self, data: bytes, source: Address, *, now: float, is_stream: bool
    ) -> Received | None:
        self._counters.bytes_in += len(data)
        try:
            return self._codec.open_untrusted(data, source=source, is_stream=is_stream)
        except MalformedPacketError as exc:
            self._refuse(exc, now=now)
            return None

    def _remind_of_later(self, sender: Member, epoch: int, source: Address, *, now: float) -> None:
        """Tell an earlier life of a member what is held of it."""
        self._counters.stale_lives += 1
        self._membership.remind(sender.node_id, epoch, source, now=now)

    def _is_new(
        self, packet: Received, sender: Member | None, source: Address, *, now: float
    ) -> bool:
        """Tell whether a packet is to be taken; if that is in doubt, ask where it comes from."""
        if self._doubts.settle(packet, source) or packet.freshness is Freshness.NEW:
            return True
        if sender is not None:
            self._doubts.ask(packet, source, sender.node_id, now=now)
        if packet.freshness is Freshness.DUE:
            return True
        self._counters.replayed += 1
        self._take_old(packet, sender, source, now=now)
        return False

    def _take_old(
        self, packet: Received, sender: Member | None, source: Address, *, now: float
    ) -> None:
        """Take of a packet what may be said twice, so that nobody is shut out by its counters.

        A stranger's word about itself is signed; a ping asks for no more than it is itself.
        """
        self._trust.hear(source)
        for message in packet.messages:
            if isinstance(message, Ping):
                is_harmless = self._doubts.may_echo(packet, source, now=now)
            else:
                is_harmless = sender is None and isinstance(message, NodeRecord | CertificateOffer)
            if is_harmless:
                self._take(message, source, None, now=now)

    def _is_fit(self, packet: Received, peer: str | None) -> bool:
        """Tell whether a frame is its peer's own, and holds no questions: it has room for many."""
        if not all(isinstance(m, Delta | CertificateOffer) for m in packet.messages):
            self._counters.malformed += 1
            return False
        is_its_own = peer is None or packet.sender == sender_tag(peer)
        self._counters.impostors += not is_its_own
        return is_its_own

    def _look_at_sender(self, tag: bytes, epoch: int, source: Address, *, now: float) -> None:
        """Ask a stranger who it is, and tell one that is not up what is held against it."""
        sender = self._members.by_tag(tag)
        if sender is None or sender.record.epoch < epoch:
            self._sync.pull(source, self._membership.me, now=now)
        elif not sender.is_live:
            self._membership.remind(sender.node_id, epoch, source, now=now)

    def _refuse(self, error: MalformedPacketError, *, now: float) -> None:
        reason = error.reason if isinstance(error, RejectedPacketError) else Rejected.MALFORMED
        match reason:
            case Rejected.MALFORMED:
                self._counters.malformed += 1
            case Rejected.UNKNOWN_KEY:
                self._counters.unknown_key += 1
            case Rejected.NEWER_KEY:
                self._counters.unknown_key += 1
                self._on_newer_key(now)
            case Rejected.UNAUTHENTIC:
                self._counters.unauthentic += 1
            case Rejected.OWN:
                self._counters.own += 1
            case _:
                assert_never(reason)

    def _take(self, message: Message, source: Address, sender: str | None, *, now: float) -> None:
        match message:
            case Ping():  # first what comes most
                me = self._membership.me
                if message.target == me.node_id and not self._membership.has_left:
                    ack = Ack(message.sequence, me.incarnation)
                    self._outbox.send(source, ack, node_id=sender)
            case Ack():
                self._membership.detector.take_ack(message, sender, now=now)
            case PingRequest():
                self._membership.detector.take_request(message, source, now=now)
            case Nack():
                self._membership.detector.take_nack(message, sender, now=now)
            case Challenge():
                self._respond(message, source, sender, now=now)
            case Response():
                self._membership.detector.take_response(message, now=now)
                self._notary.take_response(message, now=now)
            case _:
                self._take_news(message, source, sender, now=now)

    def _take_news(self, message: News, source: Address, sender: str | None, *, now: float) -> None:
        match message:
            case NodeRecord() | Claim():
                self._notary.take(message, source, now=now, is_relayed=True)
            case CertificateOffer():
                self._notary.take_offer_untrusted(message, now=now)
            case CertificateRequest():
                self._notary.answer(message, source, sender, now=now)
            case Update():
                self._ledger.take_update(message, now=now)
            case Digest():
                self._sync.take_digest(message, source, sender, now=now)
            case Delta():
                self._take_delta(message, source, sender, now=now)
            case _:
                assert_never(message)

    def _respond(
        self, challenge: Challenge, source: Address, sender: str | None, *, now: float
    ) -> None:
        """Sign what shows that this node is up, for whoever asks, as often as others may ask."""
        me = self._membership.me
        if challenge.target != me.node_id or self._membership.has_left:
            return
        if self._outbox.may_answer(source, now=now):
            response = self._trust.sign_response(challenge, epoch=me.epoch)
            self._outbox.send(source, response, node_id=sender)

    def _take_delta(self, delta: Delta, source: Address, sender: str | None, *, now: float) -> None:
        self._sync.answered(delta.scope, sender)
        for said in (delta.node, delta.claim):
            if said is not None and delta.scope == NODES:
                self._notary.take(said, source, now=now, is_relayed=False)
        self._ledger.take_delta(delta, source, now=now)
