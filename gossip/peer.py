"""The facade: what the rest of the program uses of this room, with `gossip.config`.

A Peer is made, told what to attach to and publish, and run; it may be told at any time, before
`run` too. It moves opaque scopes, keys and values. Views are level-triggered: `watch` says that
something changed, `members` and `records` say what is.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from gossip.config import GossipConfig
from gossip.events import (
    EpochRaised,
    Event,
    KeysWanted,
    LogView,
    MemberChanged,
    MemberView,
    PathChanged,
    RecordView,
    Removed,
    StoredView,
)
from gossip.identity import Identity
from gossip.keyring import GossipKey, KeyState, KeyView
from gossip.machine import Machine
from gossip.stats import GossipStats, ShellCounters
from gossip.storage import next_epoch, save_epoch
from gossip.transport import Sockets, Transport
from gossip.wire import NODE_ID_CHARS_MAX, Address, InvalidError, State

__all__ = [
    "Address",
    "GossipConfig",
    "GossipKey",
    "GossipStats",
    "InvalidError",
    "KeyState",
    "KeyView",
    "LogView",
    "MemberView",
    "Peer",
    "PeerStats",
    "RecordView",
    "State",
    "StoredView",
]

logger = logging.getLogger(__name__)

_LEAVE_S = 1.0
"""Longest that `leave` waits for the news to spread."""
_LEAVE_TICK_S = 0.02


@dataclass(frozen=True, slots=True)
class PeerStats:
    """What a peer counts."""

    machine: GossipStats
    shell: ShellCounters
    """A copy is not needed: it is replaced when the peer runs again."""
    keys: tuple[KeyView, ...]


class Peer:
    """This node among the others."""

    def __init__(
        self,
        *,
        node_id: str,
        cluster_id: str,
        data_address: str,
        config: GossipConfig,
        keys: Sequence[GossipKey],
        identity: Identity,
        state_directory: Path,
        rng: Random,
        server_ssl: Callable[[], ssl.SSLContext] | None = None,
        client_ssl: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        """Begin a new life of this node: its epoch is written to `state_directory`.

        Raises InvalidError for unusable arguments, OSError if the epoch cannot be written.
        """
        if not 0 < len(node_id) <= NODE_ID_CHARS_MAX or not node_id.isascii():
            raise InvalidError(f"node id {node_id!r} is not 1 to {NODE_ID_CHARS_MAX} ASCII chars")
        _check_ip(data_address)
        self.node_id = node_id
        self.ready = asyncio.Event()
        """Set while the sockets are open."""
        self.keys_wanted = asyncio.Event()
        """Set when others seal with a newer key than this peer has, or somebody sends junk that
        looks like it, every few seconds at most; its user clears it."""
        self.advertised: Address | None = None
        """Where others reach this peer, once it is ready."""
        self._clock = time.monotonic
        self._directory = state_directory
        self._server_ssl = server_ssl
        self._client_ssl = client_ssl
        self._transport: Transport | None = None
        self._watchers: set[asyncio.Event] = set()
        self._key_since: dict[int, tuple[KeyState, float]] = {}
        self._note_keys(keys)
        unix_ns = time.time_ns()
        self._machine = Machine(
            node_id=node_id,
            epoch=next_epoch(state_directory, unix_ms=unix_ns // 1_000_000),
            cluster_id=cluster_id,
            data_address=data_address,
            config=config,
            keys=keys,
            identity=identity,
            rng=rng,
            wall_offset_s=unix_ns / 1e9 - self._clock(),
        )

    async def run(self, bind: Address, advertise: Address) -> None:
        """Serve until cancelled; only once. An advertised port of 0 stands for the bound one.

        Raises OSError if the port cannot be bound, InvalidError if an address is no IP address.
        """
        _check_ip(advertise[0])
        sockets = Sockets(bind)
        transport = Transport(
            self._machine,
            sockets,
            clock=self._clock,
            wall=_unix_s,
            on_event=self._on_event,
            server_ssl=self._server_ssl,
            client_ssl=self._client_ssl,
        )
        try:
            self.advertised = (advertise[0], advertise[1] or sockets.port)
            self._machine.start(self.advertised, now=self._clock())
            self._transport = transport
            self.ready.set()
            logger.info("gossip serves node=%s port=%d", self.node_id, sockets.port)
            await transport.run()
        finally:
            self.ready.clear()
            sockets.close()

    def join(self, addresses: Iterable[Address]) -> None:
        """Look for the cluster at these addresses whenever no other member is alive.

        Replaces earlier addresses. Raises InvalidError if one is no IP address.
        """
        wanted = list(addresses)
        for host, _ in wanted:
            _check_ip(host)
        self._machine.join(wanted)
        self._flush()

    def set_keys(self, keys: Sequence[GossipKey]) -> None:
        """Replace the key ring. Raises InvalidError, and keeps the old ring, if it is unusable."""
        self._machine.set_keys(keys)
        self._note_keys(keys)
        self._flush()

    def keys(self) -> Sequence[KeyView]:
        """Return the key ring without secrets, oldest key first."""
        ring = self._machine.keys()
        return [replace(view, since=self._key_since[view.key_id][1]) for view in ring]

    def set_identity(self, identity: Identity) -> None:
        """Go on with a renewed certificate. Raises InvalidError if it is another node's."""
        self._machine.set_identity(identity, now=self._clock())
        self._flush()

    def attach(self, scope: str) -> None:
        """Take part in a scope; nothing happens if this node does already. Raises InvalidError."""
        self._machine.attach(scope, now=self._clock())
        self._flush()

    def detach(self, scope: str) -> None:
        """Leave a scope; this node's records in it are gone, for everyone."""
        self._machine.detach(scope, now=self._clock())
        self._flush()

    def publish(self, scope: str, key: str, value: bytes) -> None:
        """Say something in an attached scope; nothing happens if it is said already.

        Raises InvalidError if the scope is not attached or a limit is passed.
        """
        self._machine.publish(scope, key, value, now=self._clock())
        self._flush()

    def withdraw(self, scope: str, key: str) -> None:
        """Take back what was published under `key`, if anything."""
        self._machine.withdraw(scope, key, now=self._clock())
        self._flush()

    def members(self) -> Sequence[MemberView]:
        """Return what is believed of every known node, this one first."""
        return self._machine.members()

    def records(self, scope: str) -> Sequence[RecordView]:
        """Return the visible records of an attached scope, by owner and key, own ones included."""
        return self._machine.records(scope)

    def logs(self) -> Sequence[LogView]:
        """Return what is held of every owner's log in every scope, by scope and owner."""
        return self._machine.logs()

    def stored(self, scope: str) -> Sequence[StoredView]:
        """Return every record held in a scope, hidden and deleted ones included."""
        return self._machine.stored(scope)

    def unix_s(self, at: float) -> float:
        """Return the unix time of a moment on this node's monotonic clock, by the clocks now."""
        return _unix_s() - self._clock() + at

    @contextmanager
    def watch(self) -> Generator[asyncio.Event]:
        """Lend an event that every change of members or records sets."""
        changed = asyncio.Event()
        self._watchers.add(changed)
        try:
            yield changed
        finally:
            self._watchers.discard(changed)

    async def leave(self) -> None:
        """Tell the others that this node leaves, and give the news a moment to spread."""
        self._machine.leave(now=self._clock())
        self._flush()
        if self._transport is None:
            return
        deadline = self._clock() + _LEAVE_S
        while not self._machine.is_idle and self._clock() < deadline:  # noqa: ASYNC110 - bounded
            await asyncio.sleep(_LEAVE_TICK_S)

    def set_removed(self, node_ids: Iterable[str]) -> None:
        """Take whom the managers have removed, all of them: they stay out, whatever they say.

        Tell the same again as often as you like. On a manager, others hear it too.
        """
        self._machine.set_removed(node_ids, now=self._clock())
        self._flush()

    def stats(self) -> PeerStats:
        """Return the counters."""
        shell = ShellCounters() if self._transport is None else self._transport.counters
        return PeerStats(self._machine.stats(), shell, tuple(self._machine.keys()))

    def _note_keys(self, keys: Sequence[GossipKey]) -> None:
        """Remember since when each key has been in its state."""
        now = self._clock()
        fresh = {key.key_id: (key.state, now) for key in keys}
        for key_id, (state, _) in fresh.items():
            held = self._key_since.get(key_id)
            if held is not None and held[0] is state:
                fresh[key_id] = held
        self._key_since = fresh

    def _flush(self) -> None:
        if self._transport is not None:
            self._transport.flush()

    def _on_event(self, event: Event) -> None:
        match event:
            case EpochRaised():
                logger.warning(
                    "another node uses this node's id, going on in epoch=%d node=%s",
                    event.epoch,
                    self.node_id,
                )
                save_epoch(self._directory, event.epoch)
            case MemberChanged():
                logger.info("member changed node=%s state=%s", event.node_id, event.state.name)
            case PathChanged(is_relay_only=True):
                logger.warning(
                    "member is reached through others only, its address or the way there is wrong "
                    "node=%s",
                    event.node_id,
                )
            case PathChanged():
                logger.info("member is reached directly again node=%s", event.node_id)
            case Removed():
                logger.warning("this node was removed from the cluster node=%s", self.node_id)
            case KeysWanted():
                self.keys_wanted.set()
                return
            case _:
                pass
        self._wake()

    def _wake(self) -> None:
        for changed in self._watchers:
            changed.set()


def _unix_s() -> float:
    return time.time_ns() / 1e9


def _check_ip(host: str) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError as exc:
        raise InvalidError(f"{host!r} is not an IP address") from exc
