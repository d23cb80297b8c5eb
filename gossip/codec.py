"""How messages become packets, and packets messages (pure).

The machine knows packets only through a `Codec`, so the simulator can hand over objects. Whatever
the codec, a message and a packet are `bytes` of the length that they have on the wire: the machine
decides by lengths what goes into one packet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from gossip.freshness import Freshness
from gossip.keyring import SEAL_OVERHEAD_BYTES, Keyring
from gossip.message import PACK_OVERHEAD_BYTES, encode, pack, unpack_untrusted
from gossip.wire import Address, Message

PACKET_OVERHEAD_BYTES = SEAL_OVERHEAD_BYTES + PACK_OVERHEAD_BYTES
"""Most that a datagram holds besides its messages."""


class Received(Protocol):
    """What an authentic packet says."""

    @property
    def sender(self) -> bytes:
        """Tag of the sender's node id."""
        ...

    @property
    def epoch(self) -> int:
        """The sender's."""
        ...

    @property
    def counter(self) -> int:
        """Of the sender's packets."""
        ...

    @property
    def freshness(self) -> Freshness:
        """Whether it is to be taken."""
        ...

    @property
    def messages(self) -> Sequence[Message]:
        """What it says."""
        ...


class _Body(NamedTuple):
    sender: bytes
    epoch: int
    counter: int
    freshness: Freshness
    messages: Sequence[Message]


class Codec(Protocol):
    """The wire form of messages and packets."""

    def encode(self, message: Message) -> bytes:
        """Return one message, to be put into a packet or queued."""
        ...

    def seal(self, messages: Sequence[bytes], *, to: Address | None) -> bytes:
        """Return a packet of encoded messages; None: for whoever it may reach."""
        ...

    def open_untrusted(self, packet: bytes, *, source: Address, is_stream: bool) -> Received:
        """Return what a packet says, or raise RejectedPacketError or MalformedPacketError."""
        ...


class SealedCodec:
    """msgpack, sealed by the key ring: what is used outside simulations."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def encode(self, message: Message) -> bytes:
        """Return the wire form of one message."""
        return encode(message)

    def seal(self, messages: Sequence[bytes], *, to: Address | None) -> bytes:
        """Return the sealed packet."""
        return self._keyring.seal(pack(messages), to=to)

    def open_untrusted(self, packet: bytes, *, source: Address, is_stream: bool) -> Received:
        """Return what a packet says, or raise MalformedPacketError."""
        opened = self._keyring.open_untrusted(packet, source=source, is_stream=is_stream)
        messages = unpack_untrusted(opened.body)
        return _Body(opened.sender, opened.epoch, opened.counter, opened.freshness, messages)
