"""Gossip without a protocol: what is said is heard at once by every node that is not cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from cluster.agent.publisher import Gossip
from cluster.model.ids import NodeId
from gossip.events import LogView, MemberView, RecordView
from gossip.wire import InvalidError, State


class Ether:
    """What everybody said."""

    def __init__(self, *nodes: NodeId) -> None:
        self.states = dict.fromkeys(nodes, State.ALIVE)
        self.records: dict[tuple[str, NodeId], dict[str, bytes]] = {}
        """(scope, owner) -> key -> value."""
        self.partial: set[tuple[str, NodeId]] = set()
        """(scope, owner) of which not everything has arrived yet."""
        self.watchers: set[asyncio.Event] = set()

    def say(self, owner: NodeId, scope: str, key: str, value: bytes | None) -> None:
        """Publish, or withdraw, in the name of `owner`."""
        said = self.records.setdefault((scope, owner), {})
        if value is None:
            said.pop(key, None)
        else:
            said[key] = value
        self.wake()

    def set_state(self, node: NodeId, state: State | None) -> None:
        """Let everyone believe this of `node`; None: nobody knows it."""
        self.states.pop(node, None)
        if state is not None:
            self.states[node] = state
        self.wake()

    def wake(self) -> None:
        for watcher in self.watchers:
            watcher.set()

    def said_by(self, owner: NodeId, scope: str) -> dict[str, bytes]:
        return self.records.get((scope, owner), {})


class EtherPeer:
    """One node's end of the ether."""

    def __init__(self, ether: Ether, node: NodeId) -> None:
        self._ether = ether
        self._node = node
        self.scopes: set[str] = set()

    def attach(self, scope: str) -> None:
        self.scopes.add(scope)
        self._ether.records.setdefault((scope, self._node), {})

    def detach(self, scope: str) -> None:
        self.scopes.discard(scope)
        self._ether.records.pop((scope, self._node), None)
        self._ether.wake()

    def publish(self, scope: str, key: str, value: bytes) -> None:
        if scope not in self.scopes:
            raise InvalidError(f"not attached to {scope}")
        self._ether.say(self._node, scope, key, value)

    def withdraw(self, scope: str, key: str) -> None:
        self._ether.say(self._node, scope, key, None)

    def members(self) -> Sequence[MemberView]:
        return [
            MemberView(node, state, "192.0.2.9", 7946, "", 0, 0, 0.0)
            for node, state in self._ether.states.items()
        ]

    def records(self, scope: str) -> Sequence[RecordView]:
        if scope not in self.scopes:
            return ()
        return [
            RecordView(owner, key, 0, value)
            for (where, owner), said in sorted(self._ether.records.items())
            if where == scope and self._ether.states.get(owner, State.DEAD) <= State.SUSPECT
            for key, value in sorted(said.items())
        ]

    def logs(self) -> Sequence[LogView]:
        return [
            LogView(
                scope,
                owner,
                epoch=1,
                attachment=1,
                version=-1 if (scope, owner) in self._ether.partial else 0,
                gc=0,
                records=len(said),
                tombstones=0,
                size_bytes=0,
                is_visible=True,
                written_at=0.0,
            )
            for (scope, owner), said in sorted(self._ether.records.items())
        ]

    @contextmanager
    def watch(self) -> Generator[asyncio.Event]:
        changed = asyncio.Event()
        self._ether.watchers.add(changed)
        try:
            yield changed
        finally:
            self._ether.watchers.discard(changed)


_: type[Gossip] = EtherPeer
