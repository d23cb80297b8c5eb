"""How long each suspect has to refute (pure).

A suspicion starts long and shrinks as others confirm it (LHA-Suspicion; Lifeguard, Dadgar et al.
2017, section IV-B). Refusals that other nodes saw too shrink it once more: where nobody listens,
nobody is slow.

Invariants:
    a suspicion lasts at least alpha * max(1, log10 n) intervals and `suspicion_floor_s`, or, when
    refusals corroborate it, `refused_suspicion_s`;
    the time that this node is deaf (`hearing`) does not count, up to the longest suspicion once
    more: then it is cut off, not slow. It counts once nobody is left whom it does not suspect;
    refusals shorten no suspicion of a member that refuted such a one lately.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from gossip.config import GossipConfig
from gossip.hearing import Hearing
from gossip.member import MemberTable
from gossip.stats import Counters
from gossip.timers import Timers
from gossip.wire import Claim, State

_DISBELIEF_S = 60.0
"""Refusals that a member refuted (its advertised port is wrong, or somebody forges them) shorten no
suspicion of it for so long; else it would be dead and alive again every second."""


@dataclass(slots=True)
class _Suspicion:
    accusers: set[str]
    started_at: float
    timer: int
    ends_at: float
    """When the timer is due."""
    confirmations_wanted: int
    shortest_s: float
    longest_s: float
    lost_s: float
    """How long this node had been deaf when it began."""
    is_echoed: bool = False
    """Somebody else says that the suspect is dead."""
    refused_s: float | None = None
    """Set when refusals corroborate it: it lasts no longer than this."""

    def lasts_s(self) -> float:
        """Return how long a node that is not deaf waits, by what has been said until now."""
        wanted, found = self.confirmations_wanted, len(self.accusers) - 1
        lasts_s = self.shortest_s
        if wanted >= 1:
            share = math.log(found + 1) / math.log(wanted + 1)
            shrunk = self.longest_s - (self.longest_s - self.shortest_s) * share
            lasts_s = max(self.shortest_s, shrunk)
        return lasts_s if self.refused_s is None else min(lasts_s, self.refused_s)


class Suspicions:
    """All suspicions of one node."""

    def __init__(
        self,
        *,
        config: GossipConfig,
        timers: Timers,
        members: MemberTable,
        counters: Counters,
        hearing: Hearing,
        on_death: Callable[[str, float], None],
    ) -> None:
        self._config = config
        self._timers = timers
        self._members = members
        self._counters = counters
        self._hearing = hearing
        self._on_death = on_death
        self._suspicions: dict[str, _Suspicion] = {}
        self._shortened: dict[str, int] = {}
        """Member -> its epoch when a suspicion of it was last shortened."""
        self._disbelieved: dict[str, float] = {}

    def suspect(self, node_id: str, accuser: str, *, now: float) -> bool:
        """Start or confirm a suspicion; tell whether the accuser adds anything that matters."""
        held = self._suspicions.get(node_id)
        if held is None:
            self._start(node_id, accuser, now=now)
        elif self._confirms(held, accuser):
            held.accusers.add(accuser)
            self._arm(node_id, held, now=now)
        else:
            return False
        return True

    def wants(self, claim: Claim) -> bool:
        """Tell whether an accusation would change anything."""
        held = self._suspicions.get(claim.subject)
        if held is None or self._confirms(held, claim.accuser):
            return True
        return claim.state is State.DEAD and not held.is_echoed

    def shorten(self, node_id: str, *, now: float) -> None:
        """Take note that refusals corroborate a suspicion."""
        held = self._suspicions.get(node_id)
        if held is None or not self.may_shorten(node_id, now=now):
            return
        held.refused_s = self._config.refused_suspicion_s
        self._shortened[node_id] = self._members.known(node_id).record.epoch
        self._counters.suspicions_refused += 1
        self._arm(node_id, held, now=now)

    def may_shorten(self, node_id: str, *, now: float) -> bool:
        """Tell whether refusals by this member would say anything new."""
        held = self._suspicions.get(node_id)
        is_short = held is not None and held.refused_s is not None
        return not is_short and now >= self._disbelieved.get(node_id, now)

    def is_first_echo(self, node_id: str) -> bool:
        """Take note that another says a suspect is dead; tell whether it is the first to do so."""
        held = self._suspicions.get(node_id)
        if held is None or held.is_echoed:
            return False
        held.is_echoed = True
        return True

    def clear(self, node_id: str, *, now: float) -> None:
        """End a suspicion, if there is one: the member spoke, died or left."""
        held = self._suspicions.pop(node_id, None)
        if held is not None:
            self._timers.cancel(held.timer)
        member = self._members.get(node_id)
        if member is None or not member.is_live or node_id not in self._shortened:
            return
        if self._shortened.pop(node_id) == member.record.epoch:  # else its old life was gone indeed
            self._disbelieved[node_id] = now + _DISBELIEF_S

    def forget(self, node_id: str, *, now: float) -> None:
        """Drop what is remembered of a member that is gone."""
        self.clear(node_id, now=now)
        self._shortened.pop(node_id, None)
        self._disbelieved.pop(node_id, None)

    def deadline(self, node_id: str) -> float | None:
        """Return when a suspect is declared dead unless it refutes, as things stand."""
        held = self._suspicions.get(node_id)
        return None if held is None else held.ends_at

    def postpone(self, lag_s: float, *, now: float) -> None:
        """Give every suspect so much more time: this node slept."""
        for node_id, held in self._suspicions.items():
            held.started_at += lag_s
            self._arm(node_id, held, now=now)

    def _confirms(self, held: _Suspicion, accuser: str) -> bool:
        if not self._config.shrinks_suspicions or accuser in held.accusers:
            return False
        return len(held.accusers) <= held.confirmations_wanted

    def _start(self, node_id: str, accuser: str, *, now: float) -> None:
        config = self._config
        nodes = len(self._members.live()) + 1  # dead members confirm nothing
        scale = max(1.0, math.log10(nodes)) * config.probe_interval_s
        shortest = max(config.suspicion_floor_s, config.suspicion_multiplier * scale)
        longest = shortest * config.suspicion_max_multiplier
        wanted = max(0, min(config.suspicion_multiplier - 2, nodes - 2))
        if not config.shrinks_suspicions:
            longest, wanted = shortest, 0
        lost_s = self._hearing.lost_s(now)
        held = _Suspicion({accuser}, now, 0, now, wanted, shortest, longest, lost_s)
        self._suspicions[node_id] = held
        self._counters.suspicions += 1
        self._arm(node_id, held, now=now)

    def _arm(self, node_id: str, suspicion: _Suspicion, *, now: float) -> None:
        self._timers.cancel(suspicion.timer)
        suspicion.ends_at = max(now, self._ends_at(suspicion, now=now))
        suspicion.timer = self._timers.at(suspicion.ends_at, partial(self._expire, node_id))

    def _ends_at(self, suspicion: _Suspicion, *, now: float) -> float:
        ends_at = suspicion.started_at + suspicion.lasts_s()
        lost_s = self._hearing.lost_s(now) - suspicion.lost_s
        if lost_s > 0 and any(other not in self._suspicions for other in self._members.live()):
            return ends_at + min(lost_s, suspicion.longest_s)
        return ends_at  # also when nobody is left who could be heard

    def _expire(self, node_id: str, now: float) -> None:
        held = self._suspicions[node_id]
        ends_at = self._ends_at(held, now=now)
        if ends_at > now:  # it may still be deaf, and the end recede
            held.ends_at = max(ends_at, now + self._config.probe_interval_s)
            held.timer = self._timers.at(held.ends_at, partial(self._expire, node_id))
            return
        del self._suspicions[node_id]
        self._on_death(node_id, now)
