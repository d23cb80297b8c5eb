"""A worker that lies: it holds the gossip key and its own certificate, and knows the code."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from random import Random

from gossip.keyring import Keyring
from gossip.memory import MemoryAuthority
from gossip.message import encode, pack, unpack_untrusted
from gossip.proof import head_of
from gossip.simulation.network import UNIX_S
from gossip.wire import (
    NODES,
    Ack,
    CertificateOffer,
    CertificateRequest,
    Challenge,
    Claim,
    Delta,
    Digest,
    DigestEntry,
    Message,
    NodeRecord,
    Ping,
    PingRequest,
    Record,
    Response,
    Stage,
    Stamp,
    State,
    Update,
)
from tests.sim.gossip_network import AUTHORITY, KEYS, Node, SimNetwork
from tests.unit.gossip.forger import HIGHEST, Forger
from tests.unit.gossip.stranger import Stranger

NAME = "liar"
_HUGE = 2**63
_HEARD_MAX = 500


class Liar:
    """Attacks the other nodes of a network, as the seed will have it."""

    def __init__(self, net: SimNetwork, rng: Random, scope: str) -> None:
        self.net = net
        self.scope = scope
        self.heard: deque[bytes] = deque(maxlen=_HEARD_MAX)
        """Packets of others, to be said again."""
        self._kept_up = ""
        net.on_packet = self._hear
        self._rng = rng
        self._machine = net.machine(NAME)
        self._known: list[NodeRecord] = [n.machine.me for n in net.up if n.name != NAME]
        self._pen = pen_of(NAME)
        self._expired = pen_of("stranger", not_after=UNIX_S + 1)
        self._foreign = pen_of("stranger", MemoryAuthority("cluster", b"another root"))
        self._seals = {n.name: self._seal_as(n) for n in net.up}
        self._attacks: tuple[Callable[[NodeRecord], list[Message]], ...] = (
            self._record_of_another,
            self._greatest_incarnation,
            self._accusation,
            self._accusers_that_never_spoke,
            self._departure,
            self._what_it_heard,
            self._its_own_future,
            self._too_much,
            self._rows_of_another,
            self._rows_where_it_is_not,
            self._foreign_word,
            self._expired_word,
            self._log_of_another,
            self._genuine_heads,
            self._digest,
            self._probes,
            self._twin,
        )

    def raise_the_dead(self, name: str, node: Node) -> None:
        """Tell a node again all that one that is gone has ever said."""
        gone = self.net.machine(name)
        said: list[Message] = []
        for scope in (NODES, self.scope):
            said += gone.own_deltas(scope)
        offer = CertificateOffer(AUTHORITY.identity(name).certificate.der)
        packet = pack([encode(message) for message in (offer, gone.me, *said)])
        self._send(node, self._seals[name].seal(packet))

    def keep_up(self, name: str) -> None:
        """Say, whenever asked for help, that a member has answered; accuse nobody from now on."""
        self._kept_up = name
        self._poses = {who: self._pose(who) for who in (NAME, name)}
        self.net.cut |= {(NAME, node.name) for node in self.net.up}  # its node tells the truth

    def _pose(self, name: str) -> Stranger:
        epoch, own = self.net.machine(name).me.epoch, AUTHORITY.identity(NAME, is_manager=False)
        return Stranger(name, epoch, identity=own, cluster_id="cluster", keys=KEYS)

    def _hear(self, node: Node, data: bytes) -> None:
        self.heard.append(data)
        if node.name == NAME and self._kept_up:
            asker = self.net.nodes[node.heard_from]
            for asked in _said_in(data):
                if isinstance(asked, Ping):
                    self._send(asker, self._poses[NAME].seal(Ack(asked.sequence, 0)))
                if isinstance(asked, PingRequest) and asked.target == self._kept_up:
                    for pose in self._poses.values():
                        self._send(asker, pose.seal(*self._made_up(asked)))

    def _made_up(self, asked: PingRequest) -> list[Message]:
        number, epoch = asked.sequence, self.net.machine(asked.target).me.epoch
        challenge = Challenge(number, asked.target, number)
        return [
            Ack(number, 0),
            Response(number, epoch, self._signature()),
            self._pen.trust.sign_response(challenge, epoch=epoch),
        ]

    def accuse(self, other: NodeRecord) -> Claim:
        """Return a claim that another is dead, truly its own."""
        return self._pen.accuse(State.DEAD, other.node_id, other.epoch, other.incarnation)

    def tell(self, node: Node, *said: Message) -> None:
        """Hand a packet over."""
        self._deliver(node, pack([encode(message) for message in said]), is_body=True)

    def spend_counters(self, victim: Node) -> None:
        """Use up the victim's counters at everyone, in packets that seem to come from it."""
        me, net = victim.machine.me, self.net
        forger = Forger(victim.name, me.epoch, KEYS[0], "cluster")
        for node in net.up:
            counter = self._rng.choice((HIGHEST, self._rng.randrange(2000)))
            packet = forger.seal(counter, Ping(self._rng.getrandbits(32), node.name))
            if node is not victim:
                net.do(node.name, lambda m: m.receive_datagram(packet, me.address, now=net.now))  # noqa: B023 - called at once

    def attack(self) -> None:
        """Do one bad thing."""
        rng, net = self._rng, self.net
        node = rng.choice([n for n in net.up if n.name != NAME])
        said = rng.choice(self._attacks)(rng.choice(self._known))
        if rng.random() < 0.3:
            self._deliver(node, self._garbled(said))
        if rng.random() < 0.1 and self.heard:
            self._deliver(node, rng.choice(self.heard))
        self.tell(node, *said)

    def _deliver(self, node: Node, data: bytes, *, is_body: bool = False) -> None:
        net, source = self.net, self._machine.me.address
        packet = data
        if is_body:
            packet = self._rng.choice(list(self._seals.values())).seal(data)
        if self._rng.random() < 0.3:
            net.do(node.name, lambda m: m.receive_frame(packet, source, peer=NAME, now=net.now))
        else:
            self._send(node, packet)

    def _send(self, node: Node, packet: bytes) -> None:
        net, source = self.net, self._machine.me.address
        net.do(node.name, lambda m: m.receive_datagram(packet, source, now=net.now))

    def _garbled(self, said: list[Message]) -> bytes:
        body = bytearray(pack([encode(message) for message in said]))
        for _ in range(self._rng.randint(1, 4)):
            body[self._rng.randrange(len(body))] = self._rng.randrange(256)
        return self._seals[NAME].seal(bytes(body))

    def _seal_as(self, node: Node) -> Keyring:
        """Return what seals in the name of a node: whoever has the key can."""
        epoch = node.machine.me.epoch + self._rng.choice([-1, 1, 5])
        return Keyring(cluster_id="cluster", node_id=node.name, epoch=epoch, keys=KEYS)

    def _signature(self) -> bytes:
        kinds = (b"", b"x" * 64, self._known[0].signature, self._machine.me.signature)
        return self._rng.choice(kinds)

    def _forged(self, record: NodeRecord) -> NodeRecord:
        signed = self._pen.trust.sign_node(record)
        names = (record.fingerprint, self._pen.trust.own.fingerprint, self._rng.randbytes(16), b"")
        signature = self._rng.choice((signed.signature, self._signature()))
        return replace(record, fingerprint=self._rng.choice(names), signature=signature)

    def _record_of_another(self, other: NodeRecord) -> list[Message]:
        changed = (
            replace(other, epoch=other.epoch + 1),
            replace(other, incarnation=other.incarnation + self._rng.randint(1, 9)),
            replace(other, host="10.66.6.6"),
            replace(other, data_address="10.66.6.6", incarnation=other.incarnation + 1),
            replace(other, epoch=_HUGE, incarnation=2**32 - 1),
        )
        return [self._forged(self._rng.choice(changed))]

    def _greatest_incarnation(self, other: NodeRecord) -> list[Message]:
        state = self._rng.choice([State.SUSPECT, State.DEAD, State.LEFT])
        claim = Claim(state, other.node_id, other.epoch, 2**32 - 1, NAME, 1)
        record = replace(other, incarnation=2**32 - 1)
        return [self._pen.trust.sign_claim(claim), self._forged(record)]

    def _accusation(self, other: NodeRecord) -> list[Message]:
        return [self.accuse(self.net.machine(other.node_id).me)]

    def _accusers_that_never_spoke(self, other: NodeRecord) -> list[Message]:
        real = self.accuse(self.net.machine(other.node_id).me)
        names = [record.node_id for record in self._known]
        invented = [replace(real, accuser=name) for name in (*names, "nobody", "x1", "x2")]
        certified = [
            replace(real, accuser=record.node_id, fingerprint=record.fingerprint)
            for record in self._known
        ]
        return [real, *invented, *certified]

    def _departure(self, other: NodeRecord) -> list[Message]:
        now = self.net.machine(other.node_id).me
        mine = self._pen.accuse(State.LEFT, now.node_id, now.epoch, now.incarnation)
        manager = self._known[0]
        return [
            mine,
            replace(mine, accuser=now.node_id),
            replace(mine, accuser=now.node_id, fingerprint=now.fingerprint),
            replace(mine, accuser=manager.node_id, fingerprint=manager.fingerprint),
        ]

    def _what_it_heard(self, other: NodeRecord) -> list[Message]:
        """Say again, in new packets, what others really said some time ago."""
        return [other, *self._overheard(3)]

    def _overheard(self, packets: int) -> list[Message]:
        said: list[Message] = []
        for packet in self._rng.sample(list(self.heard), min(packets, len(self.heard))):
            said += _said_in(packet)
        return said

    def _its_own_future(self, _other: NodeRecord) -> list[Message]:
        me = self._machine.me
        hlc = int((UNIX_S + self.net.now + self._rng.choice([11, 3600, 10**9])) * 1000)
        update = Update(self.scope, NAME, self._stamp(), Record("future", 999, hlc, b"lie"))
        record = replace(me, epoch=me.epoch + 1, hlc=hlc)
        return [self._pen.trust.sign_update(update), self._pen.trust.sign_node(record)]

    def _too_much(self, _other: NodeRecord) -> list[Message]:
        stamp = self._stamp()
        count = 2100
        records = tuple(Record(f"k{n}", n + 1, 0, b"v" * 1000) for n in range(count))
        head = head_of(records, maximum=count, gc=0, hlc=1)
        head = self._pen.trust.sign_head(self.scope, NAME, stamp, head)
        large = Record("k", 1, 0, b"v" * 4000)
        attached = Stamp(stamp.epoch, 0)
        too_much: tuple[list[Message], ...] = (
            [Update(self.scope, NAME, stamp, large)],
            [Update(self.scope, NAME, stamp, replace(large, key="k" * 500, value=b""))],
            [Delta(self.scope, NAME, stamp, 0, count, 0, records, head)],
            [
                self._pen.trust.sign_update(
                    Update(NODES, NAME, attached, Record(f"s{n}", n + 2, 0, b""))
                )
                for n in range(300)
            ],
        )
        return self._rng.choice(too_much)

    def _rows_of_another(self, other: NodeRecord) -> list[Message]:
        rng = self._rng
        (entry,) = [e for e in self._machine.positions(self.scope) if e.owner == other.node_id] or [
            DigestEntry(other.node_id, Stamp(other.epoch, 1), 0, 0)
        ]
        stamp = rng.choice((entry.stamp, Stamp(other.epoch, _HUGE), Stamp(_HUGE, _HUGE)))
        version = rng.choice((1, entry.maximum, entry.maximum + 1, entry.maximum + 2, _HUGE))
        value = rng.choice((None, b"lie"))
        record = Record(rng.choice(("key", "new")), max(1, version), 0, value)
        update = Update(rng.choice((self.scope, NODES)), other.node_id, stamp, record)
        signed = self._pen.trust.sign_update(update)
        return [signed, replace(update, record=replace(record, signature=self._signature()))]

    def _rows_where_it_is_not(self, _other: NodeRecord) -> list[Message]:
        update = Update("elsewhere", NAME, self._stamp(), Record("key", 1, 0, b"lie"))
        return [self._pen.trust.sign_update(update)]

    def _foreign_word(self, other: NodeRecord) -> list[Message]:
        return self._word_of(self._foreign, other)

    def _expired_word(self, other: NodeRecord) -> list[Message]:
        return self._word_of(self._expired, other)

    def _word_of(self, pen: Stranger, other: NodeRecord) -> list[Message]:
        return [
            pen.offer,
            pen.record(1),
            pen.trust.sign_node(replace(other, epoch=other.epoch + 1)),
            pen.accuse(State.DEAD, other.node_id, other.epoch, other.incarnation),
            pen.accuse(State.LEFT, other.node_id, other.epoch, other.incarnation),
        ]

    def _log_of_another(self, other: NodeRecord) -> list[Message]:
        rng = self._rng
        scope = rng.choice((self.scope, NODES))
        entries = [e for e in self._machine.positions(scope) if e.owner == other.node_id]
        if not entries:
            return []
        entry = entries[0]
        end = rng.choice((entry.maximum, entry.maximum + 5, _HUGE))
        gc = rng.choice((entry.gc, entry.maximum, end))
        records = rng.choice(((), (Record("key", end, 0, None),), (Record("key", end, 0, b"lie"),)))
        bare = head_of(records, maximum=end, gc=gc, hlc=int((UNIX_S + self.net.now) * 1000))
        signed = self._pen.trust.sign_head(scope, other.node_id, entry.stamp, bare)
        head = rng.choice((None, signed, replace(bare, signature=self._signature())))
        start = rng.choice((0, end - 1 if records else end))
        return [Delta(scope, other.node_id, entry.stamp, start, end, gc, records, head)]

    def _genuine_heads(self, _other: NodeRecord) -> list[Message]:
        """Put what an owner did sign to other records than it signed it for."""
        heads = [m for m in self._overheard(50) if isinstance(m, Delta) and m.head is not None]
        if not heads:
            return []
        said = self._rng.choice(heads)
        head = said.head
        assert head is not None
        delta = replace(said, start=0, records=(), node=None, claim=None)
        lie = (Record("key", head.maximum, 0, b"lie"),)
        return [
            delta,
            replace(delta, records=lie * head.count),
            replace(delta, end=head.maximum + 1, head=replace(head, maximum=head.maximum + 1)),
            replace(delta, gc=head.maximum, head=replace(head, gc=head.maximum)),
            replace(delta, stamp=Stamp(said.stamp.epoch, said.stamp.attachment + 1)),
        ]

    def _digest(self, other: NodeRecord) -> list[Message]:
        rng = self._rng
        stamp = rng.choice((Stamp(other.epoch, 0), Stamp(_HUGE, _HUGE)))
        entry = DigestEntry(other.node_id, stamp, _HUGE, _HUGE, rng.getrandbits(34), _HUGE)
        scope = rng.choice((self.scope, NODES, "elsewhere"))
        hashes = rng.choice((b"", rng.randbytes(8), rng.randbytes(512), b"x"))
        entries = () if hashes else (entry, entry)
        return [Digest(scope, rng.choice(list(Stage)), rng.getrandbits(64), hashes, entries)]

    def _probes(self, other: NodeRecord) -> list[Message]:
        wanted = tuple(self._rng.randbytes(16) for _ in range(16))
        return [
            Ping(self._rng.getrandbits(64), other.node_id),
            PingRequest(self._rng.getrandbits(64), other.node_id, "10.66.6.6", 1),
            CertificateRequest((other.fingerprint, *wanted[1:])),
            CertificateOffer(self._rng.randbytes(self._rng.randint(0, 1200))),
        ]

    def contradict_itself(self, node: Node) -> None:
        """Tell a node one of the logs that it could have written, and others that it has."""
        rng = self._rng
        stamp = self._stamp()
        versions = rng.sample(range(100, 106), rng.randint(1, 3))
        records = [
            self._pen.trust.sign_update(
                Update(self.scope, NAME, stamp, Record(key, version, 0, rng.randbytes(1)))
            ).record
            for key, version in zip("abc", versions, strict=False)
        ]
        end = rng.choice((max(versions), 106))
        gc = rng.choice((0, 99, end))
        head = head_of(records, maximum=end, gc=gc, hlc=rng.choice((1, 2, 1 << 60)))
        head = self._pen.trust.sign_head(self.scope, NAME, stamp, head)
        whole = Delta(self.scope, NAME, stamp, 0, end, gc, tuple(records), head)
        self.tell(node, whole)
        for other in self.net.up:
            if other.name != NAME and rng.random() < 0.3:
                self.tell(other, replace(whole, start=end, records=()))

    def _twin(self, other: NodeRecord) -> list[Message]:
        """Use its own certificate for a node whose id is like another's."""
        record = replace(other, node_id=other.node_id + "2", epoch=_HUGE)
        return [self._pen.offer, self._pen.trust.sign_node(record)]

    def _stamp(self) -> Stamp:
        (entry,) = [e for e in self._machine.positions(self.scope) if e.owner == NAME]
        return entry.stamp


def _said_in(packet: bytes) -> list[Message]:
    ring = Keyring(cluster_id="cluster", node_id="ear", epoch=1, keys=KEYS)
    return unpack_untrusted(ring.open_untrusted(packet, is_stream=True).body)


def pen_of(
    name: str, authority: MemoryAuthority = AUTHORITY, *, not_after: float = float(1 << 40)
) -> Stranger:
    """Return what signs as a worker; a node's certificate is the one that it has shown."""
    identity = authority.identity(name, is_manager=False, not_after=not_after)
    return Stranger(name, 1, identity=identity, cluster_id="cluster", keys=KEYS)
