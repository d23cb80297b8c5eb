"""Sealing and opening packets with the cluster's gossip keys (pure).

Packet: magic 2 | version 1 | key id 2 | sender 8 | epoch 8 | primary 2 | counter 8 |
AES-256-GCM(body), tag 16.
Every sender derives its own key from the cluster's (HKDF over the key, the sender's tag and its
epoch), so a plain counter is a safe nonce: no two nodes, and no two lives of one node, share a key.
The header carries the whole epoch, not its low half, because the receiver needs it to derive the
key before it knows the sender. Header and cluster id are authenticated with the body.

A node may miss a rotation (the managers do not reach it) and still be reached by the others: they
answer it with the key that it seals with, as long as they have that. So the header names the
sender's primary key, too, which may be another than the packet's: else two nodes that both know the
new key, but not of each other, would go on with the old one for ever.

A sender has two windows against replays, one for what comes from where it says it is, one for what
comes from elsewhere: whoever holds the key can seal in another's name, and with one window could
spend all of another's counters, so that nobody would listen to it any more. Who forges the address
as well spends the first window's: what then looks old is opened, too, and `freshness` says how its
sender is heard again.

Invariants:
    a (key, sender, epoch) never seals two bodies with one counter;
    a datagram is new at most once while its sender's window is remembered;
    only authentic packets take memory.
"""

from __future__ import annotations

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import NamedTuple, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gossip.freshness import Freshness, Guards, Place
from gossip.wire import Address, InvalidError, MalformedPacketError

_SEAL_BYTES = 16
"""The tag of GCM, at the end of a packet."""
SEAL_OVERHEAD_BYTES = 31 + _SEAL_BYTES
"""What sealing adds to a body: header and tag."""

K = TypeVar("K")
V = TypeVar("V")

_HEADER = struct.Struct(">2sBH8sQHQ")
_MAGIC = b"hw"
_VERSION = 1
_KEY_BYTES_MIN = 16
_WINDOW_BITS = 1024
"""Datagrams older than this many are taken for replays."""
_WINDOW_MASK = (1 << _WINDOW_BITS) - 1
_NOWHERE: Address = ("", 0)
_SENDERS_MAX = 8192
"""Replay windows, derived keys and primary keys remembered; the least recently used goes first."""
_TAGS_MAX = 8192
"""Tags remembered by all nodes of a process."""


class KeyState(Enum):
    """What a key is used for. A new key is ACCEPT everywhere before it is PRIMARY anywhere."""

    ACCEPT = "accept"
    PRIMARY = "primary"
    RETIRED = "retired"
    """As ACCEPT: others may still seal with it until the cluster removes it from the list."""


@dataclass(frozen=True, slots=True)
class GossipKey:
    """One key of the ring."""

    key_id: int
    """16 bits, never reused by the cluster."""
    key: bytes = field(repr=False)
    """At least 16 random bytes."""
    state: KeyState


@dataclass(frozen=True, slots=True)
class KeyView:
    """One key of the ring as an operator may see it: without its bytes."""

    key_id: int
    state: KeyState
    opened: int
    """Packets opened with it since this node has had it."""
    since: float | None = None
    """When this node was told of this state, on its monotonic clock; None: nobody noted it."""


class Rejected(Enum):
    """Why a packet was not opened."""

    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown key"
    """One that is gone; or junk."""
    NEWER_KEY = "newer key"
    """One above all that this ring has: it is behind; or junk."""
    UNAUTHENTIC = "unauthentic"
    OWN = "own"


class RejectedPacketError(MalformedPacketError):
    """A packet could not be opened."""

    def __init__(self, reason: Rejected) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Origin(NamedTuple):
    """What a packet's header says besides magic, version and counter."""

    key_id: int
    sender: bytes
    """Tag of the sender's node id."""
    epoch: int
    primary: int
    """What the sender seals with when it does not know of anything older."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An authentic packet."""

    sender: bytes
    """Tag of the sender's node id."""
    epoch: int
    counter: int
    freshness: Freshness
    body: bytes


@dataclass(slots=True)
class Window:
    """The counters seen of one sender's life, from its home or from elsewhere."""

    life: tuple[bytes, int, bool]
    """The sender's tag and epoch, and whether packets came from its home."""
    highest: int = -1
    seen: int = 0
    """Bit i is counter `highest` - i."""

    def is_fresh(self, counter: int) -> bool:
        """Tell whether a counter was not seen yet."""
        age = self.highest - counter
        return age < 0 or (age < _WINDOW_BITS and not self.seen >> age & 1)

    def note(self, counter: int) -> None:
        """Take note of a counter."""
        ahead = counter - self.highest
        if ahead >= _WINDOW_BITS:
            self.seen, self.highest = 1, counter
        elif ahead > 0:
            self.seen = (self.seen << ahead | 1) & _WINDOW_MASK
            self.highest = counter
        elif -ahead < _WINDOW_BITS:
            self.seen |= 1 << -ahead


@lru_cache(_TAGS_MAX)
def sender_tag(node_id: str) -> bytes:
    """Return the 8 bytes that stand for a node id in packet headers."""
    return hashlib.blake2b(node_id.encode(), digest_size=8).digest()


class Keyring:
    """One node's keys: seals as this node, opens whatever the ring can open."""

    __slots__ = (
        "_ciphers",
        "_cluster",
        "_counter",
        "_epoch",
        "_guards",
        "_heard",
        "_keys",
        "_opened",
        "_origins",
        "_primary",
        "_sealers",
        "_tag",
        "_windows",
        "home_of",
        "secrets",
    )

    def __init__(
        self, *, cluster_id: str, node_id: str, epoch: int, keys: Sequence[GossipKey]
    ) -> None:
        self._cluster = cluster_id.encode()
        self._tag = sender_tag(node_id)
        self._epoch = epoch
        self._counter = 0
        self.secrets: dict[int, bytes] = {}
        """The keys of the ring by id; replaced with the ring."""
        self._keys: dict[int, GossipKey] = {}
        self._opened: dict[int, int] = {}
        self._primary = 0
        self._ciphers: OrderedDict[tuple[int, bytes, int], AESGCM] = OrderedDict()
        self._windows: OrderedDict[tuple[bytes, int, bool], Window] = OrderedDict()
        self.home_of: Callable[[bytes], Address | None] = lambda _tag: None
        """Returns where the bearer of a tag says that it sends from."""
        self._guards = Guards()
        self._sealers: dict[int, AESGCM] = {}
        self._origins: dict[int, Origin] = {}
        """What this node's packets say, by key id."""
        self._heard: OrderedDict[Address, int] = OrderedDict()
        """Where datagrams come from -> the sender's primary key, as the latest one said."""
        self.set_keys(keys)

    def set_keys(self, keys: Sequence[GossipKey]) -> None:
        """Replace the ring, whatever it was. Raises InvalidError and keeps the ring if unusable."""
        primary = [key.key_id for key in keys if key.state is KeyState.PRIMARY]
        if len(primary) != 1 or len({key.key_id for key in keys}) != len(keys):
            raise InvalidError("a gossip key ring needs distinct key ids and exactly one primary")
        if any(len(key.key) < _KEY_BYTES_MIN or not 0 <= key.key_id < 1 << 16 for key in keys):
            raise InvalidError("a gossip key is shorter than 16 bytes or its id not 16 bits")
        if any(self._keys.get(key.key_id, key).key != key.key for key in keys):
            self._ciphers.clear()
        self._keys = {key.key_id: key for key in keys}
        self.secrets = {key.key_id: key.key for key in keys}
        self._opened = {key_id: self._opened.get(key_id, 0) for key_id in self._keys}
        self._primary = primary[0]
        for known in [k for k in self._ciphers if k[0] not in self._keys]:
            del self._ciphers[known]
        self._sealers.clear()
        self._origins.clear()

    def keys(self) -> list[KeyView]:
        """Return the ring, oldest key first."""
        ring = sorted(self._keys.values(), key=lambda key: key.key_id)
        return [KeyView(key.key_id, key.state, self._opened[key.key_id]) for key in ring]

    def set_epoch(self, epoch: int) -> None:
        """Seal as a newer life of this node."""
        if epoch <= self._epoch:
            raise InvalidError(f"epoch {epoch} is not above {self._epoch}")
        self._epoch = epoch
        self._counter = 0
        self._sealers.clear()
        self._origins.clear()

    def seal(self, body: bytes, *, to: Address | None = None) -> bytes:
        """Return the packet of `body`, in a key that whoever is at `to` opens, if that is known."""
        origin, counter = self.next_header(to)
        header = _HEADER.pack(_MAGIC, _VERSION, *origin, counter)
        sealer = self._sealers.get(origin.key_id)
        if sealer is None:
            sealer = self._sealers[origin.key_id] = self._derive(*origin[:3])
        nonce = b"\0\0\0\0" + header[-8:]
        return header + sealer.encrypt(nonce, body, header + self._cluster)

    def next_header(self, to: Address | None) -> tuple[Origin, int]:
        """Return what the header of this node's next packet says, and count it."""
        counter = self._counter
        self._counter = counter + 1
        key_id = self._primary if len(self._keys) == 1 else self._key_for(to)
        origin = self._origins.get(key_id)
        if origin is None:
            origin = self._origins[key_id] = Origin(key_id, self._tag, self._epoch, self._primary)
        return origin, counter

    def check_untrusted(
        self, origin: Origin, counter: int, *, source: Address, is_stream: bool
    ) -> tuple[Window | None, bool]:
        """Raise RejectedPacketError unless this ring may open a packet with this header.

        Returns, for `note`, the window that it belongs to (None: frames of streams have none), and
        whether its counter is new.
        """
        key_id, sender, epoch, _ = origin
        if key_id not in self._keys:
            is_newer = key_id > max(self._keys)
            raise RejectedPacketError(Rejected.NEWER_KEY if is_newer else Rejected.UNKNOWN_KEY)
        if sender == self._tag and epoch == self._epoch:
            raise RejectedPacketError(Rejected.OWN)
        if is_stream:
            return None, True
        is_home = self.home_of(sender) == source
        life = (sender, epoch, is_home)
        window = self._windows.get(life)
        is_new = True
        if window is None:
            window = Window(life)
        elif counter <= window.highest:
            is_new = window.is_fresh(counter)
        if not is_home:
            at_home = self._windows.get((sender, epoch, True))
            is_new = is_new and (at_home is None or at_home.is_fresh(counter))
        return window, is_new

    def note(
        self,
        origin: Origin,
        counter: int,
        window: Window | None,
        seal: Hashable,
        *,
        source: Address,
        is_new: bool,
    ) -> Freshness:
        """Take note of an authentic packet, and tell whether it is new; a datagram is so once.

        A stream does not come from where its sender listens: of that place it says nothing.
        """
        found = Freshness.NEW if is_new else Freshness.OLD
        if self._guards.by_place and window is not None:
            place = (origin.sender, origin.epoch, source)
            found = self._guards.take(place, counter, seal) or found
        if found is Freshness.OLD:
            return found
        self._opened[origin.key_id] += 1
        if window is None:
            return found
        if self._heard.get(source) != origin.primary:
            _remember(self._heard, source, origin.primary)
        if window.highest < 0 or len(self._windows) > _SENDERS_MAX // 2:  # else none goes soon
            _remember(self._windows, window.life, window)
        window.note(counter)
        return found

    def prove(self, place: Place, counter: int) -> None:
        """Take note that the sender of packets from `place` has used no counter above this one."""
        self._guards.prove(place, counter)

    def open_untrusted(
        self, packet: bytes, *, source: Address = _NOWHERE, is_stream: bool = False
    ) -> Opened:
        """Return what `packet` holds, or raise RejectedPacketError.

        Frames of a stream may be far behind the datagrams sent meanwhile, and repeating one is
        harmless, so they are always new.
        """
        if len(packet) < SEAL_OVERHEAD_BYTES:
            raise RejectedPacketError(Rejected.MALFORMED)
        header = packet[: _HEADER.size]
        magic, version, *fields, counter = _HEADER.unpack(header)
        if magic != _MAGIC or version != _VERSION:
            raise RejectedPacketError(Rejected.MALFORMED)
        origin = Origin(*fields)
        window, is_new = self.check_untrusted(origin, counter, source=source, is_stream=is_stream)
        name = origin[:3]
        cipher = self._ciphers.get(name) or self._derive(*name)
        try:
            nonce = b"\0\0\0\0" + header[-8:]
            body = cipher.decrypt(nonce, packet[_HEADER.size :], header + self._cluster)
        except InvalidTag as exc:
            raise RejectedPacketError(Rejected.UNAUTHENTIC) from exc
        _remember(self._ciphers, name, cipher)
        seal = packet[-_SEAL_BYTES:]
        freshness = self.note(origin, counter, window, seal, source=source, is_new=is_new)
        return Opened(origin.sender, origin.epoch, counter, freshness, body)

    def _key_for(self, to: Address | None) -> int:
        if to is None:
            return self._primary
        heard = self._keys.get(self._heard.get(to, self._primary))
        if heard is None or heard.state is not KeyState.RETIRED:
            return self._primary
        return heard.key_id

    def _derive(self, key_id: int, sender: bytes, epoch: int) -> AESGCM:
        info = b"hivewire gossip" + sender + epoch.to_bytes(8, "big")
        kdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=info)
        return AESGCM(kdf.derive(self._keys[key_id].key))


def _remember(cache: OrderedDict[K, V], key: K, value: V) -> None:
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > _SENDERS_MAX:
        cache.popitem(last=False)
