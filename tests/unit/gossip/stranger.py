"""Somebody who holds the gossip key and a certificate, and says what he likes."""

from __future__ import annotations

from gossip.hybrid import HybridClock
from gossip.identity import Identity
from gossip.keyring import GossipKey, Keyring, KeyState
from gossip.machine import Machine
from gossip.memory import MemoryAuthority
from gossip.message import encode, pack
from gossip.stats import Counters
from gossip.trust import Trust
from gossip.wire import Address, CertificateOffer, Claim, Message, NodeRecord, State

KEYS = (GossipKey(1, b"k" * 32, KeyState.PRIMARY),)
ADDRESS = ("10.9.9.9", 7946)


class Stranger:
    """Seals packets as `name`, and signs with `identity` (its own, unless said otherwise)."""

    def __init__(
        self,
        name: str = "z",
        epoch: int = 50,
        *,
        identity: Identity | None = None,
        cluster_id: str = "c",
        keys: tuple[GossipKey, ...] = KEYS,
        unix_s: float = 0.0,
    ) -> None:
        self.trust = Trust(
            cluster_id=cluster_id,
            identity=identity or MemoryAuthority(cluster_id).identity(name, is_manager=False),
            counters=Counters(),
            clock=HybridClock(unix_s),
            account_of=lambda address: address[0],
        )
        self.name = name
        self.offer = CertificateOffer(self.trust.own.der)
        self._ring = Keyring(cluster_id=cluster_id, node_id=name, epoch=epoch, keys=keys)
        for _ in range(500):  # the real bearer of the name may have used these counters
            self._ring.seal(b"")

    def seal(self, *said: Message) -> bytes:
        """Return a packet."""
        return self._ring.seal(pack([encode(message) for message in said]))

    def tell(
        self, machine: Machine, *said: Message, now: float = 1.0, source: Address = ADDRESS
    ) -> None:
        """Hand over a packet; the certificate comes first."""
        machine.receive_datagram(self.seal(self.offer, *said), source, now=now)

    def accuse(self, state: State, subject: str, epoch: int, incarnation: int) -> Claim:
        """Return a signed claim."""
        accuser = self.trust.own.node_id
        return self.trust.sign_claim(Claim(state, subject, epoch, incarnation, accuser, 1))

    def record(self, epoch: int, *, hlc: int = 0) -> NodeRecord:
        """Return a signed record of itself."""
        host, port = ADDRESS
        record = NodeRecord(self.trust.own.node_id, epoch, 0, host, port, host, hlc=hlc)
        return self.trust.sign_node(record)
