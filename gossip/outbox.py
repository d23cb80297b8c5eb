"""Packs what is to be said to each address into sealed datagrams (pure).

Everything said to one address between two drains shares its packets, and the room left in the last
one is filled with queued updates. A suspect is told so in every packet it gets (Lifeguard's buddy
system), so that it can refute soon.

Invariant: no datagram is longer than `packet_bytes_max`, whatever is queued.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gossip.broadcast import Queues
from gossip.budget import Budgets
from gossip.codec import PACKET_OVERHEAD_BYTES, Codec
from gossip.config import GossipConfig
from gossip.directory import Directory
from gossip.member import MemberTable
from gossip.stats import Counters
from gossip.wire import Address, Message

_ANSWERS_PER_S = 200.0
_ANSWERS_BURST = 1000.0
"""What one account is told because it asked. A unit is about half a millisecond's work or one
kilobyte: an answer takes far more than its question, and who asks may have forged its address."""


@dataclass(slots=True)
class Parcel:
    """What is to be said to one address."""

    node_id: str | None
    messages: list[bytes]
    is_filled: bool = False
    """Queued updates are in it already."""


@dataclass(frozen=True, slots=True)
class StreamPush:
    """Frames for the shell to send over one stream; it reports back to `Machine.stream_done`."""

    node_id: str
    address: Address
    frames: tuple[bytes, ...]


class Outbox:
    """One node's outgoing packets."""

    __slots__ = (
        "_answers",
        "_codec",
        "_counters",
        "_directory",
        "_members",
        "_queues",
        "_tells_suspects",
        "encode",
        "parcels",
        "pushes",
        "room",
    )

    def __init__(
        self,
        *,
        config: GossipConfig,
        codec: Codec,
        members: MemberTable,
        directory: Directory,
        queues: Queues,
        counters: Counters,
    ) -> None:
        self.room = config.packet_bytes_max - PACKET_OVERHEAD_BYTES
        """Bytes of messages that one datagram holds."""
        self._tells_suspects = config.tells_suspects
        self._codec = codec
        self.encode = codec.encode
        """Returns one message, to be put into a packet or queued."""
        self._members = members
        self._directory = directory
        self._queues = queues
        self._counters = counters
        self._answers = Budgets(rate=_ANSWERS_PER_S, most=_ANSWERS_BURST)
        self.parcels: dict[Address, Parcel] = {}
        """What is to be said to whom."""
        self.pushes: list[StreamPush] = []

    def may_answer(self, address: Address, units: float = 1.0, *, now: float) -> bool:
        """Tell whether whoever seems to ask from `address` is to be told more; counted if not."""
        may = self._answers.take(self._members.account(address), units, now=now)
        self._counters.answers_put_off += not may
        return may

    def send(self, address: Address, *messages: Message, node_id: str | None = None) -> None:
        """Say something, or nothing, to an address; `node_id` if it is known who listens there."""
        fit = self._parcel(address, node_id).messages
        for message in messages:
            data = self.encode(message)
            if len(data) <= self.room:
                fit.append(data)
            else:
                self._counters.oversized += 1

    def send_encoded(
        self, address: Address, messages: Iterable[bytes], *, node_id: str | None
    ) -> None:
        """As `send`, for messages that are encoded already, and fit a datagram."""
        self._parcel(address, node_id).messages.extend(messages)

    def send_updates(self, address: Address, *, node_id: str) -> int:
        """Send a packet of queued updates, now rather than with something else.

        Returns how many there are in it.
        """
        updates = self._queues.take(self.room, self._directory.scopes_shared_with(node_id))
        if updates:
            self.send_encoded(address, updates, node_id=node_id)
            self.parcels[address].is_filled = True
        return len(updates)

    def push(self, node_id: str, address: Address, bodies: Iterable[list[bytes]]) -> None:
        """Send whole bodies over a stream."""
        frames = tuple(self._codec.seal(body, to=address) for body in bodies)
        self.pushes.append(StreamPush(node_id, address, frames))

    def drain(self) -> list[tuple[bytes, Address]]:
        """Return and forget the datagrams to send."""
        out: list[tuple[bytes, Address]] = []
        is_plain = self._queues.is_empty and not (self._tells_suspects and self._members.claims)
        seal, counters = self._codec.seal, self._counters
        for address, parcel in self.parcels.items():
            is_one = is_plain and sum(map(len, parcel.messages)) <= self.room
            for body in (parcel.messages,) if is_one else self._bodies(parcel, address):
                data = seal(body, to=address)
                counters.bytes_out += len(data)
                out.append((data, address))
        self.parcels.clear()
        counters.datagrams_out += len(out)
        return out

    def drain_pushes(self) -> list[StreamPush]:
        """Return and forget the streams to send."""
        pushes = self.pushes.copy()
        self.pushes.clear()
        return pushes

    def _parcel(self, address: Address, node_id: str | None) -> Parcel:
        parcel = self.parcels.get(address)
        if parcel is None:
            parcel = self.parcels[address] = Parcel(node_id, [])
        elif parcel.node_id is None:
            parcel.node_id = node_id
        return parcel

    def _bodies(self, parcel: Parcel, address: Address) -> Iterable[list[bytes]]:
        member = None if parcel.node_id is None else self._members.get(parcel.node_id)
        batch: list[bytes] = []
        room = self.room
        if member is not None and member.claim is not None and self._tells_suspects:
            batch.append(self.encode(member.claim))
            room -= len(batch[0])
        for data in parcel.messages:
            if len(data) > room:
                yield batch
                batch, room = [], self.room
            batch.append(data)
            room -= len(data)
        # Whoever asks in a member's name from elsewhere gets nothing of what waits for it.
        is_there = member is not None and member.address == address
        if member is not None and is_there and not (self._queues.is_empty or parcel.is_filled):
            scopes = self._directory.scopes_shared_with(member.node_id)
            batch.extend(self._queues.take(room, scopes))
        yield batch
