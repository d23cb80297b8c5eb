"""A network in memory: links, their faults, and gossip machines at their ends (pure).

Links have latency, loss, duplicates and reordering; they can be cut one way, and the network can be
parted. Nodes can be slow, paused, killed and restarted, with or without what they had on disk, and
their wall clocks can jump. Everything random comes from the seed, and `trace` is a hash over every
delivery: same seed, same calls, same trace, in any process.

Invariants:
    a node takes one packet after another, each for `service_s`;
    what a node does not hear because of a fault costs no randomness, but everything sent does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from random import Random

from gossip.codec import SealedCodec
from gossip.config import GossipConfig
from gossip.events import EpochRaised, Event
from gossip.keyring import GossipKey, KeyState
from gossip.machine import Machine
from gossip.memory import MemoryAuthority
from gossip.outbox import StreamPush
from gossip.simulation.clock import Clock
from gossip.simulation.hosts import NEVER, Node
from gossip.simulation.objects import ObjectCodec
from gossip.wire import Address, State

AUTHORITY = MemoryAuthority("cluster")
KEYS = (GossipKey(1, b"0123456789abcdef" * 2, KeyState.PRIMARY),)
UNIX_S = 1_700_000_000.0
"""Unix time when a simulation begins."""
INBOX_MAX = 4000
"""Packets that a socket's buffer holds."""
_STREAM_S = 10.0
"""A stream that cannot be opened fails after this."""
_HASH_BITS = 64


class Mode(Enum):
    """What packets are made of."""

    OBJECTS = "objects"
    BYTES = "bytes"


@dataclass(slots=True)
class Faults:
    """What is wrong with all links. Change it while the simulation runs as you like."""

    latency_s: tuple[float, float] = (0.0003, 0.002)
    loss: float = 0.0
    """Share of packets lost."""
    duplicates: float = 0.0
    """Share of packets that arrive twice."""
    reorder: float = 0.0
    """Share of packets that arrive late by up to `reorder_s`."""
    reorder_s: float = 0.05
    streams: bool = True
    """Whether streams can be opened."""

    def waits(self, rng: Random) -> list[float]:
        """Return how long each copy of a packet that arrives is on its way."""
        if self.loss and rng.random() < self.loss:
            return []
        copies = 2 if self.duplicates and rng.random() < self.duplicates else 1
        return [self._wait(rng) for _ in range(copies)]

    def _wait(self, rng: Random) -> float:
        shortest, longest = self.latency_s
        wait = shortest + (longest - shortest) * rng.random()
        if self.reorder and rng.random() < self.reorder:
            wait += self.reorder_s * rng.random()
        return wait


class SimNetwork:
    """Machines, links and time."""

    def __init__(
        self,
        size: int,
        *,
        seed: int,
        config: GossipConfig | None = None,
        mode: Mode = Mode.OBJECTS,
        loss: float = 0.0,
        duplicates: float = 0.0,
        latency_s: tuple[float, float] = (0.0003, 0.002),
        service_s: float = 0.00005,
        streams: bool = True,
        seed_nodes: int = 1,
    ) -> None:
        """`seed_nodes`: so many of the first nodes are where others look for the cluster."""
        self.seed = seed
        self.rng = Random(seed)  # noqa: S311 - a simulation must be repeatable
        self.config = config or GossipConfig.lan()
        self.mode = mode
        self.faults = Faults(loss=loss, duplicates=duplicates, latency_s=latency_s, streams=streams)
        self.service_s = service_s
        self.delivered = 0
        self.largest = 0
        """Bytes of the largest datagram."""
        self.sent = Counter[str]()
        """Datagrams by sender."""
        self.cut: set[tuple[str, str]] = set()
        """(from, to): nothing passes."""
        self.refusing: set[Address] = set()
        """An error comes back from where a packet went to one of these, whether it arrives or not.
        """
        self.closed: set[Address] = set()
        """Those of them where nothing arrives."""
        self.rings: dict[str, Sequence[GossipKey]] = {}
        """The key rings on nodes' disks, where they are others than KEYS."""
        self.nodes: dict[str, Node] = {}
        self.on_step: Callable[[Node], None] | None = None
        """Called after every step of a node."""
        self.on_event: Callable[[Node, Event], None] | None = None
        """Called with every event of a node."""
        self.on_packet: Callable[[Node, bytes], None] | None = None
        """Called with every datagram that a node takes."""
        self.workers: set[str] = set()
        """Nodes whose certificates are no manager's; before they are added."""
        self._clock = Clock()
        self._seed_nodes = seed_nodes
        self._by_address: dict[Address, Node] = {}
        self._trace = 0
        for number in range(size):
            self.add(f"n{number}")

    @property
    def now(self) -> float:
        """Virtual time in seconds."""
        return self._clock.now

    @property
    def served(self) -> int:
        """Events so far: packets that arrived, timers and what else happened."""
        return self._clock.served

    @property
    def trace(self) -> str:
        """Hash over every delivery so far."""
        return f"{self._trace % (1 << _HASH_BITS):016x}"

    @property
    def up(self) -> list[Node]:
        """The nodes that run."""
        return [node for node in self.nodes.values() if node.is_up]

    def machine(self, name: str) -> Machine:
        """Return a node's machine."""
        return self.nodes[name].machine

    def add(self, name: str, *, join: Sequence[str] | None = None) -> Node:
        """Start a new node, which joins `join` (by default the seed nodes that are there)."""
        number = len(self.nodes)
        address = (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 7946)
        epoch = self._wall_ms(0.0)
        node = Node(name, number, address, self.make_machine(name, epoch), epoch, self.service_s)
        seeds = list(self.nodes)[: self._seed_nodes] if join is None else join
        self.nodes[name] = node
        self._by_address[address] = node
        self._boot(node, seeds)
        return node

    def do(self, name: str, action: Callable[[Machine], object]) -> None:
        """Let a node do something now."""
        node = self.nodes[name]
        action(node.machine)
        self._flush(node)

    def attach(self, name: str, scope: str) -> None:
        """Let a node attach to a scope."""
        self.nodes[name].scopes.add(scope)
        self.do(name, lambda m: m.attach(scope, now=self.now))

    def detach(self, name: str, scope: str) -> None:
        """Let a node leave a scope."""
        self.nodes[name].scopes.discard(scope)
        self.do(name, lambda m: m.detach(scope, now=self.now))

    def publish(self, name: str, scope: str, key: str, value: bytes) -> None:
        """Let a node publish."""
        self.do(name, lambda m: m.publish(scope, key, value, now=self.now))

    def withdraw(self, name: str, scope: str, key: str) -> None:
        """Let a node withdraw."""
        self.do(name, lambda m: m.withdraw(scope, key, now=self.now))

    def kill(self, name: str) -> None:
        """Stop a node at once, with its host."""
        self.nodes[name].is_up = False
        self.nodes[name].inbox.clear()

    def kill_process(self, name: str) -> None:
        """Stop a node at once; its host lives, and refuses what is sent to it."""
        self.kill(name)
        self.refusing.add(self.nodes[name].address)

    def misdirect(self, name: str) -> None:
        """Let a node send from another port than it says, where nobody listens."""
        node = self.nodes[name]
        self.refusing.add(node.address)
        self.closed.add(node.address)
        node.address = (node.address[0], node.address[1] + 1)
        self._by_address[node.address] = node

    def restart(
        self,
        name: str,
        *,
        keeps_disk: bool = True,
        clock_s: float = 0.0,
        join: Iterable[str] = (),
    ) -> None:
        """Start a node again, in a new life; its wall clock is `clock_s` ahead of the others'."""
        node = self.nodes[name]
        wall_ms = self._wall_ms(clock_s)
        epoch = max(node.epoch + 1, wall_ms) if keeps_disk else wall_ms
        node.begin(self.make_machine(name, epoch, clock_s=clock_s), epoch)
        self.refusing.discard(node.address)
        self._boot(node, list(join) or [other for other in self.nodes if other != name][:3])

    def pause(self, name: str) -> None:
        """Stop a node as SIGSTOP does: its socket goes on to receive."""
        self.nodes[name].is_paused = True

    def resume(self, name: str) -> None:
        """Let a paused node go on: its timers first, then what it received meanwhile."""
        node = self.nodes[name]
        node.is_paused = False
        self._set_alarm(node, node.machine.next_timer())
        self._serve_inbox(node)

    def block(self, name: str) -> None:
        """Hold back what a node sends and receives; its timers go on."""
        self.nodes[name].is_blocked = True

    def unblock(self, name: str) -> None:
        """Let a blocked node send what it held back, and take what it received meanwhile."""
        node = self.nodes[name]
        node.is_blocked = False
        held, node.outbox = node.outbox, []
        for data, address in held:
            self._send(node, data, address)
        self._serve_inbox(node)

    def set_clock(self, name: str, wrong_s: float) -> None:
        """Let a node's wall clock jump: it is wrong by `wrong_s` from now on."""
        self.do(name, lambda m: m.set_wall_offset(UNIX_S + wrong_s))

    def split(self, *groups: Iterable[str]) -> None:
        """Part the network; nodes in no group stay together."""
        for node in self.nodes.values():
            node.side = 0
        for side, group in enumerate(groups, start=1):
            for name in group:
                self.nodes[name].side = side

    def heal(self) -> None:
        """Join all sides and mend all links; loss and the like stay as they are."""
        self.split()
        self.cut.clear()

    def run(
        self, seconds: float, until: Callable[[], bool] | None = None, *, every_s: float = 0.005
    ) -> bool:
        """Advance virtual time; return whether `until` held before `seconds` passed."""
        return self._clock.run(seconds, until, every_s=every_s)

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something later, while the simulation runs."""
        self._clock.at(self.now + delay_s, action)

    def states(self, name: str) -> dict[str, State]:
        """Return what a node believes of all members."""
        return {view.node_id: view.state for view in self.machine(name).members()}

    def say(self, name: str, state: State) -> bool:
        """Tell whether every other running node believes `state` of a node."""
        return all(self.states(n.name).get(name) is state for n in self.up if n.name != name)

    def all_alive(self) -> bool:
        """Tell whether the running nodes see each other, and nobody else, alive."""
        names = {node.name for node in self.up}
        return all(
            {v.node_id for v in node.machine.members() if v.state is State.ALIVE} == names
            for node in self.up
        )

    def seen(self, name: str, scope: str) -> dict[tuple[str, str], bytes]:
        """Return the records a node sees in a scope."""
        return {(r.owner, r.key): r.value for r in self.machine(name).records(scope)}

    def make_machine(self, name: str, epoch: int, *, clock_s: float = 0.0) -> Machine:
        """Return a machine of this network, not started yet."""
        return Machine(
            node_id=name,
            epoch=epoch,
            cluster_id="cluster",
            data_address="10.1.0.1",
            config=self.config,
            keys=self.rings.get(name, KEYS),
            identity=AUTHORITY.identity(name, is_manager=name not in self.workers),
            rng=Random(self.rng.getrandbits(64)),  # noqa: S311 - as above
            wall_offset_s=UNIX_S + clock_s,
            codec=ObjectCodec if self.mode is Mode.OBJECTS else SealedCodec,
        )

    def _wall_ms(self, clock_s: float) -> int:
        return int((UNIX_S + self.now + clock_s) * 1000)

    def _boot(self, node: Node, seeds: Iterable[str]) -> None:
        node.machine.start(node.address, now=self.now)
        node.machine.join([self.nodes[name].address for name in seeds])
        self._flush(node)

    def _flush(self, node: Node) -> None:
        machine = node.machine
        if machine.has_output:
            self._hand_out(node, machine)
        due = machine.next_timer()
        if due < node.alarm_at:
            self._set_alarm(node, due)
        if self.on_step is not None:
            self.on_step(node)

    def _hand_out(self, node: Node, machine: Machine) -> None:
        for event in machine.events():
            if isinstance(event, EpochRaised):
                node.epoch = event.epoch
            if self.on_event is not None:
                self.on_event(node, event)
        for data, address in machine.datagrams_to_send():
            if node.is_blocked:
                node.outbox.append((data, address))
            else:
                self._send(node, data, address)
        for push in machine.streams_to_send():
            self._push(node, push)

    def _set_alarm(self, node: Node, due: float) -> None:
        node.alarm_at = due
        self._clock.at(max(due, self._clock.now), self._wake, node, due)

    def _wake(self, node: Node, due: float) -> None:
        if node.alarm_at != due:
            return
        node.alarm_at = NEVER
        if not node.is_up or node.is_paused:
            return
        machine, now = node.machine, self._clock.now
        due = machine.next_timer()
        if due > now:  # what the alarm was set for has been cancelled
            self._set_alarm(node, due)
            return
        machine.handle_timer(now=now)
        self._flush(node)

    def _passes(self, node: Node, other: Node) -> bool:
        if not other.is_up or other.side != node.side:
            return False
        return not self.cut or (node.name, other.name) not in self.cut

    def _send(self, node: Node, data: bytes, address: Address) -> None:
        self.sent[node.name] += 1
        if len(data) > self.largest:  # noqa: PLR1730 - for every packet: max() takes twice as long
            self.largest = len(data)
        if self.refusing and self._is_closed(node, address):
            return
        other = self._by_address.get(address)
        if other is None or not self._passes(node, other):
            return
        faults, clock = self.faults, self._clock
        if faults.loss or faults.duplicates or faults.reorder:
            for wait in faults.waits(self.rng):
                clock.at(clock.now + wait, self._arrive, node, other, data)
            return
        shortest, longest = faults.latency_s
        wait = shortest + (longest - shortest) * self.rng.random()
        clock.at(clock.now + wait, self._arrive, node, other, data)

    def _is_closed(self, node: Node, address: Address) -> bool:
        """Tell whether nothing arrives at an address; where packets are refused, say so soon."""
        if address not in self.refusing:
            return False
        wait = 2 * self.rng.uniform(*self.faults.latency_s)
        self._clock.at(self.now + wait, self._refuse, node, address)
        return address in self.closed

    def _refuse(self, node: Node, address: Address) -> None:
        if node.is_up and not node.is_paused:
            node.machine.receive_refusal(address, now=self.now)
            self._flush(node)

    def _arrive(self, sender: Node, node: Node, data: bytes, *, is_served: bool = False) -> None:
        """Let a node take a packet, or keep it in its socket; `is_served`: it comes from there."""
        if not node.is_up:
            return
        now = self._clock.now
        is_busy = node.busy_until > now or node.inbox or node.is_paused or node.is_blocked
        if is_busy and not is_served:
            if len(node.inbox) < INBOX_MAX:
                node.inbox.append((data, sender))
            self._serve_inbox(node)
            return
        node.busy_until = now + node.service_s
        self.delivered += 1
        # Hashes of numbers do not depend on the process, unlike those of text.
        self._trace = hash((self._trace, now, node.number, len(data)))
        node.heard_from = sender.name
        if self.on_packet is not None:
            self.on_packet(node, data)
        node.machine.receive_datagram(data, sender.address, now=now)
        self._flush(node)

    def _serve_inbox(self, node: Node) -> None:
        if node.inbox and not (node.is_serving or node.is_paused or node.is_blocked):
            node.is_serving = True
            at = max(self.now, node.busy_until)
            self._clock.at(at, self._serve_next, node, node.machine)

    def _serve_next(self, node: Node, machine: Machine) -> None:
        if node.machine is not machine:
            return
        node.is_serving = False
        if node.is_paused or node.is_blocked or not node.is_up or not node.inbox:
            return
        data, sender = node.inbox.popleft()
        self._arrive(sender, node, data, is_served=True)
        self._serve_inbox(node)

    def _push(self, node: Node, push: StreamPush) -> None:
        """Carry a stream: two round trips, then it arrives whole; or it times out."""
        other = self._by_address.get(push.address)
        works = other is not None and self.faults.streams and self._passes(node, other)
        wait = 4 * self.rng.uniform(*self.faults.latency_s) if works else _STREAM_S
        finish = partial(self._finish_push, node, node.machine, other if works else None, push)
        self._clock.at(self.now + wait, finish)

    def _finish_push(
        self, node: Node, machine: Machine, other: Node | None, push: StreamPush
    ) -> None:
        is_sent = other is not None and self._passes(node, other)
        if is_sent and other is not None and not other.is_paused:
            for frame in push.frames:
                other.machine.receive_frame(frame, node.address, peer=node.name, now=self.now)
            self._flush(other)
        if node.machine is machine and node.is_up and not node.is_paused:
            machine.stream_done(push.node_id, is_sent=is_sent, now=self.now)
            self._flush(node)
