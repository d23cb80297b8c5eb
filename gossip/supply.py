"""What a peer lacks is sent to it: in a few datagrams, or over a stream (pure).

Invariant: one peer gets one stream at a time.
"""

from __future__ import annotations

from collections.abc import Iterable

from gossip.budget import Budgets
from gossip.digest import Summary
from gossip.directory import Directory
from gossip.member import MemberTable
from gossip.outbox import Outbox
from gossip.stats import Counters
from gossip.trust import Trust
from gossip.wire import NODES, Address, CertificateOffer, DigestEntry

DATAGRAMS_MAX = 8
"""An answer longer than this many datagrams goes over a stream."""
_FRAME_BYTES = 64 << 10
"""Messages are put together in frames of about this size: a receiver takes one frame at a time, and
checks only so much of it (`trust`). A whole log may make one longer."""
_PUSH_BYTES_MAX = 19 << 20
"""A receiver takes 20 MiB, what seals add to the frames included."""
_STREAM_PAUSE_S = 15.0
"""A peer gets no other stream so long, unless the first is done; nor after one failed."""
_STREAMS_PER_S = 1.0
_STREAMS_BURST = 8.0
"""To one peer: whoever asks in its name has it flooded with all that is known. A peer that lacks
much in more scopes at once gets the rest by datagrams, or in later rounds."""
_GAP_UNITS = 0.1
_RECORDS_PER_UNIT = 256
"""What it takes to look for what one log lacks (`Outbox.may_answer`)."""

Gap = tuple[DigestEntry, DigestEntry | None]
"""What is known of an owner here, and at a peer that knows less."""


class Supply:
    """What one node sends to those that know less."""

    def __init__(
        self,
        *,
        members: MemberTable,
        directory: Directory,
        summary: Summary,
        trust: Trust,
        outbox: Outbox,
        counters: Counters,
    ) -> None:
        self._members = members
        self._directory = directory
        self._summary = summary
        self._trust = trust
        self._outbox = outbox
        self._counters = counters
        self._streaming: dict[str, float] = {}
        self._no_stream: dict[str, float] = {}
        self._pushed = Budgets(rate=_STREAMS_PER_S, most=_STREAMS_BURST)
        """By member."""

    def fill(
        self, scope: str, gaps: list[Gap], source: Address, sender: str | None, *, now: float
    ) -> None:
        """Send what fills the gaps to whoever asked; `sender` is who that is, if it is known."""
        messages, is_all = self._first(
            self._encoded(scope, gaps, source, room=self._outbox.room, now=now)
        )
        if is_all:
            self._outbox.send_encoded(source, messages, node_id=sender)
            return
        member = None if sender is None else self._members.get(sender)
        if member is not None and now >= self._no_stream.get(member.node_id, now):
            if now < self._streaming.get(member.node_id, now):
                return
            if self._pushed.take(member.node_id, now=now):
                self._streaming[member.node_id] = now + _STREAM_PAUSE_S
                self._counters.streams_out += 1
                frames = _frames(self._encoded(scope, gaps, source, room=None, now=now))
                self._outbox.push(member.node_id, member.address, frames)
                return
        self._outbox.send_encoded(source, messages, node_id=sender)

    def stream_done(self, node_id: str, *, is_sent: bool, now: float) -> None:
        """Take note of what became of a stream."""
        self._streaming.pop(node_id, None)
        if not is_sent:
            self._counters.streams_failed += 1
            self._no_stream = {n: at for n, at in self._no_stream.items() if at > now}
            self._no_stream[node_id] = now + _STREAM_PAUSE_S

    def _first(self, messages: Iterable[bytes]) -> tuple[list[bytes], bool]:
        """Return those that fit a few datagrams, and whether these are all."""
        room = self._outbox.room
        left = room * DATAGRAMS_MAX
        found: list[bytes] = []
        is_all = True
        for data in messages:
            if len(data) > room:
                is_all = False
                continue
            left -= len(data)
            if left < 0:
                return found, False
            found.append(data)
        return found, is_all

    def _encoded(
        self, scope: str, gaps: list[Gap], asker: Address, *, room: int | None, now: float
    ) -> Iterable[bytes]:
        """Yield what fills the gaps, one by one: most callers want the first few only."""
        logs = self._directory.table.logs(scope)
        for mine, other in gaps:
            log = logs.get(mine.owner)
            records = 0 if log is None else len(log.records)
            if not self._outbox.may_answer(
                asker, _GAP_UNITS + records / _RECORDS_PER_UNIT, now=now
            ):
                return
            for offer in self._introduction(scope, mine.owner, other):
                yield self._outbox.encode(offer)
            for delta in self._summary.deltas(scope, mine, other, room=room):
                yield self._outbox.encode(delta)

    def _introduction(
        self, scope: str, owner: str, other: DigestEntry | None
    ) -> list[CertificateOffer]:
        """Return the certificate of a node that a peer does not know, so that it need not ask."""
        if scope != NODES or (other is not None and other.stamp.epoch):
            return []
        certificate = self._trust.own
        member = self._members.get(owner)
        if member is not None:
            found = self._trust.certificate(member.record.fingerprint)
            certificate = found or certificate
        return [CertificateOffer(certificate.der)]


def _frames(messages: Iterable[bytes]) -> Iterable[list[bytes]]:
    frame: list[bytes] = []
    size = total = 0
    for data in messages:
        if frame and size + len(data) > _FRAME_BYTES:
            yield frame
            frame, size = [], 0
        total += len(data)
        if total > _PUSH_BYTES_MAX:
            break
        frame.append(data)
        size += len(data)
    if frame:
        yield frame
