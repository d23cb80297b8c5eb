"""A detector and members, nothing else: what it sends, whom it fails and declares dead."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from gossip.broadcast import Queues
from gossip.codec import SealedCodec
from gossip.config import GossipConfig
from gossip.directory import Directory
from gossip.failure import Detector
from gossip.hybrid import HybridClock
from gossip.keyring import Keyring
from gossip.member import MemberTable
from gossip.memory import MemoryAuthority
from gossip.message import unpack_untrusted
from gossip.outbox import Outbox
from gossip.stats import Counters
from gossip.suspicion import Suspicions
from gossip.timers import Timers
from gossip.trust import Trust
from gossip.wire import (
    Ack,
    Address,
    Challenge,
    Claim,
    Message,
    NodeRecord,
    Ping,
    PingRequest,
    State,
)
from tests.unit.gossip.pair import KEYS, address

AUTHORITY = MemoryAuthority("c")
CONFIG = replace(GossipConfig.lan(), watch_interval_s=None)


class Bench:
    """A detector with members a, b, c, ... and what it did."""

    def __init__(self, *names: str, config: GossipConfig = CONFIG) -> None:
        self.failures: list[str] = []
        self.deaths: list[tuple[str, float]] = []
        self.paths: list[tuple[str, bool]] = []
        self.counters = Counters()
        self.timers = Timers()
        self.now = 0.0
        members = self.members = MemberTable()
        trust = _trust("me", self.counters)
        for name in names:
            der = AUTHORITY.identity(name).certificate.der
            trust.take_certificate_untrusted(der, now=0.0)
            host, port = address(name)
            members.put_record(NodeRecord(name, 1, 0, host, port, host), now=0.0)
        self._outbox = Outbox(
            config=config,
            codec=SealedCodec(Keyring(cluster_id="c", node_id="me", epoch=1, keys=KEYS)),
            members=members,
            directory=Directory(
                node_id="me", epoch=1, config=config, members=members, sign=lambda update: update
            ),
            queues=Queues(),
            counters=self.counters,
        )
        self._reader = Keyring(cluster_id="c", node_id="reader", epoch=1, keys=KEYS)
        self.detector = Detector(
            node_id="me",
            config=config,
            rng=Random(10),
            timers=self.timers,
            members=members,
            outbox=self._outbox,
            trust=trust,
            counters=self.counters,
            on_failure=self._fail,
            on_death=lambda name, now: self.deaths.append((name, now)),
            on_path=lambda name, is_bad: self.paths.append((name, is_bad)),
        )

    @property
    def suspicions(self) -> Suspicions:
        """The suspicions under test."""
        return self.detector.suspicions

    def suspect(self, name: str, accuser: str, *, now: float) -> bool:
        """Accuse a member."""
        return self.suspicions.suspect(name, accuser, now=now)

    def _fail(self, name: str, now: float) -> None:
        self.failures.append(name)
        self.suspect(name, "me", now=now)

    def sent(self) -> list[tuple[Message, Address]]:
        """Return what was sent since the last call."""
        return [
            (message, destination)
            for data, destination in self._outbox.drain()
            for message in unpack_untrusted(self._reader.open_untrusted(data).body)
        ]

    def requests(self) -> list[tuple[PingRequest, Address]]:
        """Return what was asked of helpers since the last call."""
        return [(m, at) for m, at in self.sent() if isinstance(m, PingRequest)]

    def start_probe(self) -> Ping:
        """Run to the first probe and return it."""
        self.detector.start(now=0.0)
        self.now = self.timers.due
        self.timers.fire(self.now)
        ((message, _),) = self.sent()
        assert isinstance(message, Ping)
        return message

    def assert_only_death(self, name: str, at: float) -> None:
        """Check that one member was declared dead, and when."""
        assert [dead for dead, _ in self.deaths] == [name]
        assert self.deaths[0][1] == pytest.approx(at)

    def run_until(self, now: float) -> None:
        """Let time pass."""
        while self.timers.due <= now:
            self.timers.fire(self.timers.due)

    def run_answering(self, now: float) -> None:
        """Let time pass while the members answer."""
        while self.timers.due <= now:
            at = self.timers.due
            self.timers.fire(at)
            self.answer(at)

    def respond(self, nonce: int, signer: str, *, now: float, epoch: int = 1) -> None:
        """Hand over what `signer` says to a challenge, by whatever way."""
        challenge = Challenge(nonce, signer, nonce)
        response = _trust(signer, Counters()).sign_response(challenge, epoch=epoch)
        self.detector.take_response(response, now=now)

    def answer(self, now: float) -> int:
        """Answer what was sent, directly or as one helper; return how many messages it was."""
        sent = self.sent()
        names = {address(m.node_id): m.node_id for m in self.members.all()}
        for message, at in sent:
            if isinstance(message, PingRequest):
                self.respond(message.sequence, message.target, now=now)
            elif isinstance(message, Ping) and message.sequence % 2:
                self.detector.take_ack(Ack(message.sequence, 0), names[at], now=now)
        return len(sent)

    def next_ping(self) -> Ping:
        """Let time pass until the next probe and return it."""
        while True:
            self.now = self.timers.due
            self.timers.fire(self.now)
            for message, _ in self.sent():
                if isinstance(message, Ping):
                    return message

    def help(self, now: float) -> None:
        """Let time pass until helpers are asked, and let them be answered."""
        self.run_until(now)
        for request, _ in self.requests():
            self.respond(request.sequence, request.target, now=now)

    def next_ping_after_help(self) -> Ping:
        """Let the probe be answered through helpers; return the next."""
        self.help(self.now + 0.6)
        return self.next_ping()

    def watched(self, until: float) -> Counter[Address]:
        """Let time pass; return how many packets were sent where, whole seconds after the first."""
        found: Counter[Address] = Counter()
        first = self.timers.due
        while self.timers.due <= until:
            passed = self.timers.due - first
            self.timers.fire(self.timers.due)
            is_whole = passed == pytest.approx(round(passed), abs=1e-6)
            found.update(at for _, at in self._outbox.drain() if is_whole)
        return found

    def bury(self, name: str) -> None:
        """Let a member be dead."""
        self.members.put_claim(Claim(State.DEAD, name, 1, 0, "me", 1), now=0.0)


def _trust(name: str, counters: Counters) -> Trust:
    return Trust(
        cluster_id="c",
        identity=AUTHORITY.identity(name),
        counters=counters,
        clock=HybridClock(0.0),
        account_of=lambda address: address[0],
    )
