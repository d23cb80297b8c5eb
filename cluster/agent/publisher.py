"""Keeps what gossip says of this node equal to what is wanted (level-triggered).

`difference` is the pure part; `Publisher` performs it on the gossip peer, whose methods only queue
packets.

Invariants: nothing is published in a scope before it is attached to; a scope that is left takes
its records along; what gossip refuses hinders nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from cluster.allocation.records import Place
from gossip.events import LogView, MemberView, RecordView
from gossip.wire import InvalidError

logger = logging.getLogger(__name__)


class Gossip(Protocol):
    """What the agent needs of `gossip.peer.Peer`."""

    def attach(self, scope: str) -> None:
        """Take part in a scope; raises InvalidError."""
        ...

    def detach(self, scope: str) -> None:
        """Leave a scope, with all records in it."""
        ...

    def publish(self, scope: str, key: str, value: bytes) -> None:
        """Say something in an attached scope; raises InvalidError."""
        ...

    def withdraw(self, scope: str, key: str) -> None:
        """Take it back."""
        ...

    def members(self) -> Sequence[MemberView]:
        """Return what is believed of every known node, this one included."""
        ...

    def records(self, scope: str) -> Sequence[RecordView]:
        """Return the visible records of an attached scope, own ones included."""
        ...

    def logs(self) -> Sequence[LogView]:
        """Return how much is known of what each owner has said in each scope."""
        ...

    def watch(self) -> AbstractContextManager[asyncio.Event]:
        """Lend an event that every change of members or records sets."""
        ...


@dataclass(frozen=True, slots=True)
class Publication:
    """Everything that this node says."""

    scopes: frozenset[str] = frozenset()
    records: Mapping[Place, bytes] = field(default_factory=dict[Place, bytes])
    """All in one of `scopes`."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What leads from one publication to another, in this order."""

    attach: tuple[str, ...]
    withdraw: tuple[Place, ...]
    publish: tuple[tuple[Place, bytes], ...]
    detach: tuple[str, ...]


def difference(said: Publication, wanted: Publication) -> Difference:
    """Return what leads from `said` to `wanted`. Withdrawals come first: they are urgent."""
    return Difference(
        attach=tuple(sorted(wanted.scopes - said.scopes)),
        withdraw=tuple(
            sorted(
                place
                for place in said.records.keys() - wanted.records.keys()
                if place.scope in wanted.scopes
            )
        ),
        publish=tuple(
            (place, value)
            for place, value in sorted(wanted.records.items())
            if said.records.get(place) != value or place.scope not in said.scopes
        ),
        detach=tuple(sorted(said.scopes - wanted.scopes)),
    )


class Publisher:
    """Says what this node has to say."""

    def __init__(self, gossip: Gossip) -> None:
        self._gossip = gossip
        self._said = Publication()
        self.refused = 0
        """How often gossip would not take something."""

    @property
    def said(self) -> Publication:
        """What was said last, refused parts included: they are not tried again unchanged."""
        return self._said

    def say(self, wanted: Publication) -> None:
        """Make gossip say `wanted`, and nothing else."""
        todo = difference(self._said, wanted)
        self._said = wanted
        for scope in todo.attach:
            self._try(scope, "")
        for place in todo.withdraw:
            self._gossip.withdraw(place.scope, place.key)
        for place, value in todo.publish:
            self._try(place.scope, place.key, value)
        for scope in todo.detach:
            self._gossip.detach(scope)

    def _try(self, scope: str, key: str, value: bytes = b"") -> None:
        try:
            if key:
                self._gossip.publish(scope, key, value)
            else:
                self._gossip.attach(scope)
        except InvalidError as error:
            self.refused += 1
            logger.warning("gossip refused: scope=%s key=%s error=%s", scope, key, error)
