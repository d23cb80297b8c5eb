"""How a node finds its cluster, and goes on looking for who is missing (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from gossip.config import GossipConfig
from gossip.directory import Directory
from gossip.ledger import Ledger
from gossip.member import MemberTable
from gossip.membership import Membership
from gossip.sync import Syncer
from gossip.timers import Timers
from gossip.wire import NODES, Address

_FIRST_RETRY_S = 0.25
"""First pause before the bootstrap addresses are tried again; it doubles."""
_AT_ONCE = 8
"""Bootstrap addresses that are asked in one try."""
_INTRODUCTIONS_S = (0.05, 0.5)
"""When a node that found the cluster introduces itself: what it said before, nobody heard."""
_LOST_S = 10.0
"""How often a dead member or an unknown bootstrap address is asked for its digest."""


class Bootstrap:
    """One node's search for the others."""

    def __init__(
        self,
        *,
        config: GossipConfig,
        rng: Random,
        timers: Timers,
        members: MemberTable,
        membership: Membership,
        directory: Directory,
        ledger: Ledger,
        sync: Syncer,
    ) -> None:
        self._config = config
        self._rng = rng
        self._timers = timers
        self._members = members
        self._membership = membership
        self._directory = directory
        self._ledger = ledger
        self._sync = sync
        self._retry_s = _FIRST_RETRY_S
        self._is_started = False

    def start(self, *, now: float) -> None:
        """Begin to look."""
        self._is_started = True
        self._timers.at(now, self._look)
        self._timers.at(now + _LOST_S * self._rng.uniform(0.5, 1), self._try_lost)

    def join(self, addresses: Iterable[Address]) -> None:
        """Look for the cluster at `addresses`, in place of earlier ones."""
        wanted = tuple(dict.fromkeys(addresses))
        if wanted != self._sync.bootstrap:
            self._sync.bootstrap = wanted
            self.look_again()

    def look_again(self) -> None:
        """Look for the cluster at once, if this node is alone: now it may be found."""
        self._retry_s = _FIRST_RETRY_S
        if self._is_started and not self._members.live():
            self._contact()

    def plan_introduction(self, now: float) -> None:
        """Ask the members just met for what they know, and soon tell them of this node."""
        if self._sync.bootstrap:
            self._membership.met_at = now
        self._sync.ask_many(NODES, now=now)
        for pause_s in _INTRODUCTIONS_S:
            self._timers.at(now + pause_s, self._introduce)

    def _introduce(self, now: float) -> None:
        """Tell the members just met about this node, and what it is attached to."""
        self._membership.announce(now=now)
        for update in self._directory.own_attachments():
            self._ledger.spread_own(update, now=now)

    def _look(self, now: float) -> None:
        longest = self._config.bootstrap_interval_s
        if self._members.live():
            self._retry_s = _FIRST_RETRY_S
            self._timers.at(now + longest, self._look)
            return
        self._contact()
        self._timers.at(now + self._retry_s, self._look)
        self._retry_s = min(2 * self._retry_s, longest)

    def _contact(self) -> None:
        me = self._membership.me
        others = [address for address in self._sync.bootstrap if address != me.address]
        for address in self._rng.sample(others, min(len(others), _AT_ONCE)):
            self._sync.contact(address, me)

    def _try_lost(self, now: float) -> None:
        self._timers.at(now + _LOST_S, self._try_lost)
        if not self._membership.has_left:
            self._sync.try_lost(self._membership.me)
