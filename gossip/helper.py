"""Probes made for others (pure).

A helper challenges the target and passes its response on: the target has signed a number that the
requester drew, so a helper that lies keeps nobody up. When none comes soon it says so with a NACK,
which shows that the helper itself works (LHA-Probe), and still passes on a response that comes
later: the requester may be one that waits longer. A refused challenge is answered at once.

Invariant: at most `_RELAYS_MAX` such probes are outstanding, and `_RELAYS_EACH_MAX` for one that
asks: nobody uses up the help that others need.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from gossip.config import GossipConfig
from gossip.member import MemberTable
from gossip.outbox import Outbox
from gossip.timers import Timers
from gossip.wire import Address, Challenge, Nack, NackReason, PingRequest, Response

_RELAYS_MAX = 256
"""Probes made for others at one time; more are not answered."""
_RELAYS_EACH_MAX = 64
"""As many as one node has outstanding itself."""


@dataclass(frozen=True, slots=True)
class _Relay:
    sequence: int
    """The requester's."""
    requester: Address
    target: Address
    account: str
    """Whose the request is (`MemberTable.account`)."""


class Helper:
    """One node's help for others."""

    __slots__ = (
        "_config",
        "_members",
        "_outbox",
        "_relays",
        "_timers",
    )

    def __init__(
        self, *, config: GossipConfig, timers: Timers, members: MemberTable, outbox: Outbox
    ) -> None:
        self._config = config
        self._members = members
        self._timers = timers
        self._outbox = outbox
        self._relays: dict[int, _Relay] = {}

    def take_request(
        self, request: PingRequest, requester: Address, sequence: int, *, now: float
    ) -> None:
        """Probe for another, with a `sequence` of this node's own."""
        account = self._members.account(requester)
        same = sum(relay.account == account for relay in self._relays.values())
        if len(self._relays) >= _RELAYS_MAX or same >= _RELAYS_EACH_MAX:
            return
        target = (request.host, request.port)
        self._relays[sequence] = _Relay(request.sequence, requester, target, account)
        challenge = Challenge(sequence, request.target, request.sequence)
        self._outbox.send(target, challenge, node_id=request.target)
        config = self._config
        wait_s = config.probe_timeout_s * config.nack_share
        self._timers.at(now + wait_s, partial(self._nack, sequence))
        patience_s = config.probe_timeout_s * (config.health_max + 1)
        self._timers.at(now + patience_s, partial(self._give_up, sequence))

    def take_response(self, response: Response) -> bool:
        """Pass a response on, for the requester to check; tell whether it was for another."""
        relay = self._relays.pop(response.sequence, None)
        if relay is not None:
            self._outbox.send(relay.requester, replace(response, sequence=relay.sequence))
        return relay is not None

    def take_refusal(self, address: Address) -> None:
        """Tell those who asked that nobody listens at `address`."""
        refused = [number for number, relay in self._relays.items() if relay.target == address]
        for number in refused:
            relay = self._relays.pop(number)
            self._outbox.send(relay.requester, Nack(relay.sequence, NackReason.REFUSED))

    def _nack(self, sequence: int, _now: float) -> None:
        relay = self._relays.get(sequence)
        if relay is not None and self._config.scales_with_health:
            self._outbox.send(relay.requester, Nack(relay.sequence, NackReason.TIMEOUT))

    def _give_up(self, sequence: int, _now: float) -> None:
        self._relays.pop(sequence, None)
