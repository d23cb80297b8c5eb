"""Packets that are objects: neither packed nor sealed, yet as long as the real ones (pure).

Sizes, replay windows and key ids are those of real packets, so a simulation with objects takes the
same decisions, at the same times, as one with bytes: their traces are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import cast

from gossip.codec import Received
from gossip.freshness import Freshness
from gossip.keyring import SEAL_OVERHEAD_BYTES, Keyring, Origin, Rejected, RejectedPacketError
from gossip.message import encode
from gossip.wire import Ack, Address, Digest, Message, Ping, Stage

_MESSAGE: Callable[[Item], Message] = attrgetter("message")
_SMALL_ARRAY_MAX = 15
_SHORT_BYTES = SEAL_OVERHEAD_BYTES + 1
_LONG_BYTES = SEAL_OVERHEAD_BYTES + 3
"""What a packet holds besides its items, up to so many and above."""
_SIZES_MAX = 1024
"""Sizes of digests remembered."""
_U16 = 2**16 - 1
_U32 = 2**32 - 1


class Item(bytes):
    """A message: as many zeros as its wire form has bytes."""

    message: Message


class Packet(bytes):
    """A packet: as `Item`."""

    sender: bytes
    epoch: int
    origin: Origin
    counter: int
    freshness: Freshness
    """What it was to whoever opened it last."""
    secret: bytes
    """Stands for the seal: what the sender's key is."""
    messages: Sequence[Message]


class ObjectCodec:
    """A codec that hands messages over as they are."""

    __slots__ = ("_keyring",)

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def encode(self, message: Message) -> bytes:
        """Return the message as an item."""
        item = Item(_size(message))
        item.message = message
        return item

    def seal(self, messages: Sequence[bytes], *, to: Address | None) -> bytes:
        """Return a packet of items."""
        items = cast("Sequence[Item]", messages)
        head = _SHORT_BYTES if len(items) <= _SMALL_ARRAY_MAX else _LONG_BYTES
        packet = Packet(sum(map(len, items), head))
        origin, packet.counter = self._keyring.next_header(to)
        key_id, packet.sender, packet.epoch, _ = packet.origin = origin
        packet.secret = self._keyring.secrets[key_id]
        packet.messages = list(map(_MESSAGE, items))
        return packet

    def open_untrusted(self, packet: bytes, *, source: Address, is_stream: bool) -> Received:
        """Return what a packet says, or raise RejectedPacketError as real ones do."""
        if not isinstance(packet, Packet):
            raise RejectedPacketError(Rejected.MALFORMED)
        keyring, origin, counter = self._keyring, packet.origin, packet.counter
        window, is_new = keyring.check_untrusted(
            origin, counter, source=source, is_stream=is_stream
        )
        if packet.secret is not keyring.secrets[origin.key_id]:
            raise RejectedPacketError(Rejected.UNAUTHENTIC)
        # Nobody forges objects: their counters tell them apart.
        packet.freshness = keyring.note(
            origin, counter, window, counter, source=source, is_new=is_new
        )
        return packet


def _size(message: Message) -> int:
    # Probes are most of all messages, and hashes of all that is known come next; their sizes need
    # no encoder. Others are encoded for it.
    if isinstance(message, Ping):
        sequence = message.sequence
        return 3 + (5 if _U16 < sequence <= _U32 else _count_size(sequence)) + len(message.target)
    if isinstance(message, Ack) and message.incarnation < 1 << 7:
        sequence = message.sequence
        return 3 + (5 if _U16 < sequence <= _U32 else _count_size(sequence))
    if isinstance(message, Digest) and not message.entries:
        return _digest_size(message.scope, message.stage, message.mask, len(message.hashes))
    return len(encode(message))


@lru_cache(_SIZES_MAX)
def _digest_size(scope: str, stage: Stage, mask: int, hashes_bytes: int) -> int:
    return len(encode(Digest(scope, stage, mask, bytes(hashes_bytes))))


def _count_size(count: int) -> int:
    """Return the length of a whole number in msgpack (its specification, "int format family")."""
    if count <= _U16:
        return 1 if count < 1 << 7 else 2 if count < 1 << 8 else 3
    return 5 if count <= _U32 else 9
