"""The mesh of sessions between managers, and who may have one.

Every pair of managers has two sessions, one dialled by each side, and each carries messages only
from who dialled: order is kept per direction, and the newest session of a peer replaces its older
one. Who speaks is what the certificate says (common name: node id, organizational unit: role,
organization: cluster); it must be a current member, with the disk that it joined with.

Driven by `run`, which dials; by asyncio, for links from `accept`; and by the core, as a `Wire`.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Protocol

from cluster.consensus.identity import CertificateIdentity, is_manager_of
from cluster.consensus.links import IncomingLink, OutgoingLink
from cluster.consensus.members import Address, Member
from cluster.consensus.messages import (
    PROTOCOL,
    Hello,
    PeerMessage,
    RefusalReason,
    Refused,
    Welcome,
    encode,
)
from cluster.consensus.wal import Identity
from cluster.task_group import TaskGroup

ALPN = "hivewire-raft/1"

_DIAL_S = 2.0
"""From the first packet to the answer to the hello. Below the second SYN retransmission, so that
a peer behind a healed partition is reached soon."""
_REDIAL_S_MIN, _REDIAL_S_MAX = 0.1, 1.0
_GREETINGS_MAX = 64
"""Connections that have not said hello yet."""

_log = logging.getLogger(__name__)


class MeshEvents(Protocol):
    """What the mesh tells."""

    def message_came(self, node_id: str, message: PeerMessage) -> None:
        """Take a message from a member."""
        ...

    def session_changed(self, node_id: str) -> None:
        """Note that a session to a peer began or ended."""
        ...

    def address_seen(self, member: Member) -> None:
        """Note where a member says it is."""
        ...

    def was_refused(self, node_id: str, reason: RefusalReason) -> None:
        """Note that a peer does not want a session."""
        ...

    def is_removed(self, node_id: str) -> bool:
        """Tell whether a node was a member and is no more."""
        ...


@dataclass(frozen=True, slots=True)
class MeshStats:
    """Counters since start, and the sessions now."""

    sessions_out: tuple[str, ...]
    sessions_in: tuple[str, ...]
    dials_failed: int
    malformed: int
    refused: Mapping[str, int]
    """By reason; `CERTIFICATE` for those that could not even say hello."""


class Mesh:
    """This manager's sessions."""

    def __init__(
        self,
        *,
        identity: Identity,
        address: Address,
        client_context: Callable[[], ssl.SSLContext],
        events: MeshEvents,
        rng: Random,
    ) -> None:
        self._identity = identity
        self._address = address
        self._client_context = client_context
        self._events = events
        self._rng = rng
        self._peers: dict[str, Member] = {}
        self._candidates: dict[str, Member] = {}
        self._seen_at: dict[str, Address] = {}
        self._out: dict[str, OutgoingLink] = {}
        self._disks: dict[str, str] = {}
        self._in: dict[str, IncomingLink] = {}
        self._is_paused = False
        self._greeting: set[IncomingLink] = set()
        self._unflushed: set[OutgoingLink] = set()
        self._dialers: dict[str, asyncio.Task[None]] = {}
        self._wakes: dict[str, asyncio.Event] = {}
        self._group: TaskGroup | None = None
        self._dials = 0
        self._dials_failed = 0
        self._malformed = 0
        self._refused: Counter[str] = Counter()

    async def run(self) -> None:
        """Keep a session to every peer, until cancelled."""
        try:
            async with TaskGroup() as group:
                self._group = group
                self._reconcile()
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None
            for outgoing in self._out.values():
                outgoing.abort()
            for incoming in [*self._in.values(), *self._greeting]:
                incoming.abort()

    def accept(self) -> IncomingLink:
        """Return the protocol for a connection that negotiated `ALPN`."""
        return IncomingLink(self)

    def stats(self) -> MeshStats:
        """Return sessions and counters."""
        return MeshStats(
            sessions_out=tuple(sorted(self._out)),
            sessions_in=tuple(sorted(self._in)),
            dials_failed=self._dials_failed,
            malformed=self._malformed,
            refused=dict(self._refused),
        )

    # Wire: what the core uses.

    def set_peers(self, peers: Mapping[str, Member]) -> None:
        """See `ports.Wire`."""
        for node_id, member in peers.items():
            old = self._peers.get(node_id)
            if old is not None and old.address != member.address:
                self._seen_at.pop(node_id, None)
        self._peers = dict(peers)
        self._reconcile()

    def send(self, node_id: str, message: PeerMessage) -> None:
        """See `ports.Wire`."""
        link = self._out.get(node_id)
        if link is not None and link.is_open:
            link.send(encode(message))
            self._unflushed.add(link)

    def flush(self) -> None:
        """See `ports.Wire`."""
        unflushed, self._unflushed = self._unflushed, set()
        for link in unflushed:
            link.flush()

    def is_connected(self, node_id: str) -> bool:
        """See `ports.Wire`."""
        link = self._out.get(node_id)
        return link is not None and link.is_open

    def waiting_bytes(self, node_id: str) -> int:
        """See `ports.Wire`."""
        link = self._out.get(node_id)
        return 0 if link is None else link.waiting_bytes

    def pause_reading(self) -> None:
        """Take nothing from peers until `resume_reading`: their kernels, then they, hold it."""
        self._is_paused = True
        for link in self._in.values():
            link.pause_reading()

    def resume_reading(self) -> None:
        """Go on to take what peers send."""
        self._is_paused = False
        for link in self._in.values():
            link.resume_reading()

    # Joiners.

    def add_candidate(self, member: Member) -> None:
        """Keep a session with a manager that is to become a member."""
        self._candidates[member.node_id] = member
        self._reconcile()

    def remove_candidate(self, node_id: str) -> None:
        """Stop that; if it has become a member, its sessions stay."""
        self._candidates.pop(node_id, None)
        self._reconcile()

    def disk_of(self, node_id: str) -> str | None:
        """Return the disk id that a connected peer stated."""
        return self._disks.get(node_id) if self.is_connected(node_id) else None

    # IncomingOwner: what links ask.

    def may_connect(self, link: IncomingLink, identity: CertificateIdentity | None) -> bool:
        """See `links.IncomingOwner`."""
        if len(self._greeting) >= _GREETINGS_MAX or not is_manager_of(
            identity, self._identity.cluster_id
        ):
            self._refused["CERTIFICATE"] += 1
            return False
        self._greeting.add(link)
        return True

    def greet(self, link: IncomingLink, hello: Hello) -> Welcome | Refused:
        """See `links.IncomingOwner`."""
        self._greeting.discard(link)
        reason = self._reason_to_refuse(hello)
        if reason is not None:
            self._refused[reason.name] += 1
            return Refused(reason)
        older = self._in.get(hello.node_id)
        self._in[hello.node_id] = link
        if self._is_paused:
            link.pause_reading()
        if older is not None:
            older.abort()
        address = (hello.host, hello.port)
        self._seen_at[hello.node_id] = address
        self._events.address_seen(Member(hello.node_id, *address, hello.disk_id))
        wake = self._wakes.get(hello.node_id)
        if wake is not None:
            wake.set()  # it is up: dial it now
        return Welcome(self._identity.disk_id)

    def receive(self, link: IncomingLink, message: PeerMessage) -> None:
        """See `links.IncomingOwner`."""
        if self._in.get(link.node_id) is link:
            self._events.message_came(link.node_id, message)

    def lost(self, link: IncomingLink) -> None:
        """See `links.IncomingOwner`."""
        self._greeting.discard(link)
        if self._in.get(link.node_id) is link:
            del self._in[link.node_id]

    def count_malformed(self) -> None:
        """See `links.IncomingOwner`."""
        self._malformed += 1

    def _reason_to_refuse(self, hello: Hello) -> RefusalReason | None:
        known = self._peers.get(hello.node_id) or self._candidates.get(hello.node_id)
        older = self._in.get(hello.node_id)
        if hello.protocol != PROTOCOL:
            return RefusalReason.PROTOCOL
        if known is None:
            is_removed = self._events.is_removed(hello.node_id)
            return RefusalReason.REMOVED if is_removed else RefusalReason.NOT_A_MEMBER
        if known.disk_id not in {"", hello.disk_id}:
            return RefusalReason.OTHER_DISK
        if older is not None and older.epoch >= hello.epoch:
            return RefusalReason.STALE
        return None

    # Dialling.

    def _reconcile(self) -> None:
        wanted = self._peers.keys() | self._candidates.keys()
        for node_id in self._dialers.keys() - wanted:
            self._dialers.pop(node_id).cancel()
        for node_id in self._out.keys() - wanted:
            self._out[node_id].abort()
        for node_id in self._in.keys() - wanted:
            self._in[node_id].abort()
        if self._group is None:
            return
        for node_id in wanted - self._dialers.keys():
            self._wakes[node_id] = asyncio.Event()
            self._dialers[node_id] = self._group.create_task(self._keep_dialled(node_id))

    async def _keep_dialled(self, node_id: str) -> None:
        wake = self._wakes[node_id]
        delay_s = _REDIAL_S_MIN
        while True:
            wake.clear()
            if await self._dial(node_id):
                delay_s = _REDIAL_S_MIN
            else:
                self._dials_failed += 1
                delay_s = min(2 * delay_s, _REDIAL_S_MAX)
            try:
                async with asyncio.timeout(delay_s * self._rng.uniform(0.5, 1.0)):
                    await wake.wait()
            except TimeoutError:
                pass

    async def _dial(self, node_id: str) -> bool:
        """Hold a session for as long as it lasts; return whether there was one."""
        member = self._peers.get(node_id) or self._candidates[node_id]
        host, port = self._seen_at.get(node_id, member.address)
        self._dials += 1
        hello = Hello(
            PROTOCOL,
            self._identity.node_id,
            self._identity.disk_id,
            *self._address,
            (self._identity.boots, self._dials),
        )
        link = OutgoingLink(hello=hello, is_expected=lambda i: self._is_peer(i, node_id))
        try:
            async with asyncio.timeout(_DIAL_S):
                await asyncio.get_running_loop().create_connection(
                    lambda: link,
                    host,
                    port,
                    ssl=self._client_context(),
                    server_hostname=node_id,
                )
                answer = await link.greeted
            if not self._is_welcome(node_id, member, answer):
                return False
            self._out[node_id] = link
            self._events.session_changed(node_id)
            await link.closed
        except (OSError, TimeoutError) as error:
            _log.debug("dial failed peer=%s error=%s", node_id, error)
            return False
        finally:
            link.abort()
            if self._out.get(node_id) is link:
                del self._out[node_id]
                self._events.session_changed(node_id)
        return True

    def _is_peer(self, identity: CertificateIdentity | None, node_id: str) -> bool:
        return (
            identity is not None
            and is_manager_of(identity, self._identity.cluster_id)
            and identity.node_id == node_id
        )

    def _is_welcome(self, node_id: str, member: Member, answer: Welcome | Refused | None) -> bool:
        match answer:
            case Welcome(disk_id=disk_id):
                if member.disk_id not in {"", disk_id}:
                    _log.error("peer lost its disk peer=%s: remove it", node_id)
                    return False
                self._disks[node_id] = disk_id
                return True
            case Refused(reason=reason):
                self._events.was_refused(node_id, reason)
                return False
            case None:
                return False
