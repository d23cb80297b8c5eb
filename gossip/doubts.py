"""Asks where old packets seem to come from what their sender's counter is (pure).

The question is a ping with a number that goes to that address and nowhere else, so who answers it
reads what is sent there: for a member's own address, the member (or someone on the path, who could
keep all packets from it anyway). The answer's counter is the proof that `freshness` wants. Nothing
is signed or checked for it, and a forger who asks in another's name makes nobody work.

Two may take each other for silent, so pings in old packets are answered as well, a packet for a
packet, up to a limit.

Invariant: for one place, at most one question a second, and `_ECHOES_PER_S` answers to old pings.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from random import Random

from gossip.budget import Budgets
from gossip.codec import Received
from gossip.freshness import Freshness, Place
from gossip.outbox import Outbox
from gossip.wire import Ack, Address, Ping

_QUESTIONS_PER_S = 1.0
_ECHOES_PER_S = 200.0
"""Who forges far more than this a second keeps a member's own question from being answered soon."""
_NUMBER_BITS = 64
_ASKED_MAX = 1024
"""Questions that wait for an answer; the oldest is given up first."""


class Doubts:
    """One node's questions about the counters of others."""

    __slots__ = (
        "_echoes",
        "_outbox",
        "_prove",
        "_questions",
        "_rng",
        "asked",
    )

    def __init__(self, *, rng: Random, outbox: Outbox, prove: Callable[[Place, int], None]) -> None:
        """`prove`: called with a place and its sender's true counter."""
        self._rng = rng
        self._outbox = outbox
        self._prove = prove
        self.asked: OrderedDict[Place, int] = OrderedDict()
        """The numbers that were sent to places; empty in good times."""
        self._questions = Budgets(rate=_QUESTIONS_PER_S, most=_QUESTIONS_PER_S)
        self._echoes = Budgets(rate=_ECHOES_PER_S, most=_ECHOES_PER_S)

    def settle(self, packet: Received, source: Address) -> bool:
        """Tell whether a packet answers what its place was asked: then it is new for certain.

        If its counter is new, too, the doubt was for nothing (the network had doubled a packet),
        and proves nothing: older packets may be on their way.
        """
        place = (packet.sender, packet.epoch, source)
        number = self.asked.get(place)
        if number is None:
            return False
        if not any(isinstance(m, Ack) and m.sequence == number for m in packet.messages):
            return False
        del self.asked[place]
        if packet.freshness is not Freshness.NEW:
            self._prove(place, packet.counter)
        return True

    def ask(self, packet: Received, source: Address, node_id: str, *, now: float) -> None:
        """Ask the member that a packet seems to be from, unless it was asked just now."""
        place = (packet.sender, packet.epoch, source)
        if not self._questions.take(_account(place), now=now):
            return
        number = self._rng.getrandbits(_NUMBER_BITS)
        self.asked[place] = number
        self.asked.move_to_end(place)
        if len(self.asked) > _ASKED_MAX:
            self.asked.popitem(last=False)
        self._outbox.send(source, Ping(number, node_id))

    def may_echo(self, packet: Received, source: Address, *, now: float) -> bool:
        """Tell whether a ping in an old packet is to be answered."""
        return self._echoes.take(_account((packet.sender, packet.epoch, source)), now=now)


def _account(place: Place) -> str:
    tag, epoch, (host, port) = place
    return f"{tag.hex()} {epoch} {host} {port}"
