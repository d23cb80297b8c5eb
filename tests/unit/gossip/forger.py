"""Packets in anyone's name, with any counter: whoever holds the gossip key can make them."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gossip.keyring import GossipKey, sender_tag
from gossip.message import encode, pack
from gossip.wire import Message

HIGHEST = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Forger:
    """Speaks in the name of a node's life."""

    name: str
    epoch: int
    key: GossipKey
    cluster_id: str = "c"

    def seal(self, counter: int, *said: Message) -> bytes:
        """Return a packet that says something."""
        return self.seal_body(counter, pack([encode(message) for message in said]))

    def seal_body(self, counter: int, body: bytes) -> bytes:
        """Return a packet, made as `gossip.keyring` says that packets are made."""
        tag = sender_tag(self.name)
        header = struct.pack(
            ">2sBH8sQHQ", b"hw", 1, self.key.key_id, tag, self.epoch, self.key.key_id, counter
        )
        info = b"hivewire gossip" + tag + self.epoch.to_bytes(8, "big")
        key = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(self.key.key)
        nonce = bytes(4) + counter.to_bytes(8, "big")
        return header + AESGCM(key).encrypt(nonce, body, header + self.cluster_id.encode())
