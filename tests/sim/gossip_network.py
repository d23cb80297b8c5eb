"""A network and a clock in memory: runs gossip machines in virtual time, from one seed.

Links have latency, loss, duplicates and (since latency varies) reordering; they can be cut one way.
Nodes can be killed, paused and restarted, with or without what they had on disk. Each node serves
one packet after another, so that an inbox is never processed in zero time. Everything random comes
from the seed, and `trace` is a hash over every delivery.
"""

from __future__ import annotations

import hashlib
import heapq
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

from gossip.config import GossipConfig
from gossip.events import EpochRaised
from gossip.keyring import GossipKey, KeyState
from gossip.machine import Machine
from gossip.memory import MemoryAuthority
from gossip.outbox import StreamPush
from gossip.wire import Address, State

SEEDS = range(int(os.environ.get("HIVEWIRE_SEEDS", "3")))
"""Seeds each scenario runs with."""
AUTHORITY = MemoryAuthority("cluster")
KEYS = (GossipKey(1, b"0123456789abcdef" * 2, KeyState.PRIMARY),)
_UNIX_S = 1_700_000_000.0
_INBOX_MAX = 4000
_STREAM_S = 10.0


@dataclass(slots=True)
class Node:
    """One simulated host."""

    name: str
    address: Address
    machine: Machine
    epoch: int
    """What its disk says."""
    is_up: bool = True
    is_paused: bool = False
    side: int = 0
    busy_until: float = 0.0
    alarm_at: float = float("inf")
    inbox: list[tuple[bytes, Address]] = field(default_factory=list[tuple[bytes, Address]])
    clock_offset_s: float = 0.0
    scopes: set[str] = field(default_factory=set[str])


class SimNetwork:
    """Machines, links and time."""

    def __init__(
        self,
        size: int,
        *,
        seed: int,
        config: GossipConfig | None = None,
        loss: float = 0.0,
        duplicates: float = 0.0,
        latency_s: tuple[float, float] = (0.0003, 0.002),
        service_s: float = 0.00005,
        streams: bool = True,
    ) -> None:
        self.now = 0.0
        self.rng = Random(seed)
        self.config = config or GossipConfig.lan()
        self.loss = loss
        self.duplicates = duplicates
        self.latency_s = latency_s
        self.service_s = service_s
        self.streams = streams
        self.delivered = 0
        self.largest = 0
        self.sent: dict[str, int] = {}
        self.cut: set[tuple[str, str]] = set()
        """(from, to): nothing passes."""
        self.nodes: dict[str, Node] = {}
        self.on_step: Callable[[Node], None] = lambda _node: None
        """Called after every step of a node."""
        self._by_address: dict[Address, Node] = {}
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._hash = hashlib.blake2b(digest_size=16)
        for number in range(size):
            self.add(f"n{number}")

    @property
    def trace(self) -> str:
        """Hash over every delivery so far."""
        return self._hash.hexdigest()

    @property
    def up(self) -> list[Node]:
        """The nodes that run."""
        return [node for node in self.nodes.values() if node.is_up]

    def machine(self, name: str) -> Machine:
        """Return a node's machine."""
        return self.nodes[name].machine

    def add(self, name: str, *, join: Sequence[str] | None = None) -> Node:
        """Start a new node, which joins `join` (all nodes that are there already: the first)."""
        address = (f"10.0.{len(self.nodes) // 250}.{len(self.nodes) % 250 + 1}", 7946)
        epoch = int((_UNIX_S + self.now) * 1000)
        node = Node(name, address, self.make_machine(name, epoch), epoch)
        seeds = list(self.nodes)[:1] if join is None else join
        self.nodes[name] = node
        self._by_address[address] = node
        self._boot(node, seeds)
        return node

    def do(self, name: str, action: Callable[[Machine], None]) -> None:
        """Let a node do something now."""
        action(self.nodes[name].machine)
        self._flush(self.nodes[name])

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
        """Stop a node at once."""
        self.nodes[name].is_up = False
        self.nodes[name].inbox.clear()

    def restart(
        self, name: str, *, keeps_disk: bool = True, clock_s: float = 0.0, join: Iterable[str] = ()
    ) -> None:
        """Start a node again, in a new life; `clock_s` is added to its wall clock."""
        node = self.nodes[name]
        wall_ms = int((_UNIX_S + self.now + clock_s) * 1000)
        node.epoch = max(node.epoch + 1, wall_ms) if keeps_disk else wall_ms
        node.machine = self.make_machine(name, node.epoch)
        node.is_up, node.is_paused = True, False
        node.inbox.clear()
        node.scopes.clear()
        node.alarm_at = float("inf")
        self._boot(node, list(join) or [n for n in self.nodes if n != name][:3])

    def pause(self, name: str) -> None:
        """Stop a node as SIGSTOP does: its socket goes on to receive."""
        self.nodes[name].is_paused = True

    def resume(self, name: str) -> None:
        """Let a paused node go on."""
        node = self.nodes[name]
        node.is_paused = False
        inbox, node.inbox = node.inbox, []
        self._alarm(node)
        for data, source in inbox:
            self._serve(node, data, source)

    def split(self, *groups: Iterable[str]) -> None:
        """Part the network; nodes in no group stay together."""
        for node in self.nodes.values():
            node.side = 0
        for side, group in enumerate(groups, start=1):
            for name in group:
                self.nodes[name].side = side

    def heal(self) -> None:
        """Join all sides and mend all links."""
        self.split()
        self.cut.clear()

    def run(
        self, seconds: float, until: Callable[[], bool] | None = None, *, every_s: float = 0.005
    ) -> bool:
        """Advance virtual time; return whether `until` held before `seconds` passed."""
        end = self.now + seconds
        checked_at = -1.0
        while self._heap and self._heap[0][0] <= end:
            self.now, _, step = heapq.heappop(self._heap)
            step()
            if until is not None and self.now >= checked_at + every_s:
                checked_at = self.now
                if until():
                    return True
        self.now = end
        return until is not None and until()

    def states(self, name: str) -> dict[str, State]:
        """Return what a node believes of all members."""
        return {view.node_id: view.state for view in self.machine(name).members()}

    def agree(self, expected: dict[str, State]) -> bool:
        """Tell whether every running node believes `expected`."""
        return all(self.states(node.name) == expected for node in self.up)

    def all_alive(self) -> bool:
        """Tell whether the running nodes see each other alive."""
        names = {node.name for node in self.up}
        for node in self.up:
            states = self.states(node.name)
            if {n for n, state in states.items() if state is State.ALIVE} != names:
                return False
        return True

    def seen(self, name: str, scope: str) -> dict[tuple[str, str], bytes]:
        """Return the records a node sees in a scope."""
        return {(r.owner, r.key): r.value for r in self.machine(name).records(scope)}

    def make_machine(self, name: str, epoch: int) -> Machine:
        """Return a machine of this network, not started yet."""
        return Machine(
            node_id=name,
            epoch=epoch,
            cluster_id="cluster",
            data_address="10.1.0.1",
            config=self.config,
            keys=KEYS,
            identity=AUTHORITY.identity(name),
            rng=Random(self.rng.getrandbits(64)),
            wall_offset_s=_UNIX_S,
        )

    def _boot(self, node: Node, seeds: Iterable[str]) -> None:
        node.machine.start(node.address, now=self.now)
        node.machine.join([self.nodes[name].address for name in seeds])
        self._flush(node)

    def _flush(self, node: Node) -> None:
        for event in node.machine.events():
            if isinstance(event, EpochRaised):
                node.epoch = event.epoch
        for data, address in node.machine.datagrams_to_send():
            self.sent[node.name] = self.sent.get(node.name, 0) + 1
            self.largest = max(self.largest, len(data))
            self._send(node, data, address)
        for push in node.machine.streams_to_send():
            self._push(node, push)
        self._alarm(node)
        self.on_step(node)

    def _alarm(self, node: Node) -> None:
        due = node.machine.next_timer()
        if due < node.alarm_at:
            node.alarm_at = due
            machine = node.machine
            self._at(max(due, self.now), lambda: self._wake(node, machine, due))

    def _wake(self, node: Node, machine: Machine, due: float) -> None:
        if node.machine is not machine or node.alarm_at != due:
            return
        node.alarm_at = float("inf")
        if not node.is_up or node.is_paused:
            return
        if machine.next_timer() <= self.now:
            machine.handle_timer(now=self.now)
        self._flush(node)

    def _passes(self, node: Node, other: Node | None) -> bool:
        if other is None or not other.is_up or other.side != node.side:
            return False
        return (node.name, other.name) not in self.cut

    def _send(self, node: Node, data: bytes, address: Address) -> None:
        other = self._by_address.get(address)
        if other is None or not self._passes(node, other) or self.rng.random() < self.loss:
            return
        copies = 2 if self.duplicates and self.rng.random() < self.duplicates else 1
        for _ in range(copies):
            at = self.now + self.rng.uniform(*self.latency_s)
            self._at(at, lambda: self._arrive(node, other, data))

    def _arrive(self, node: Node, other: Node, data: bytes) -> None:
        if not other.is_up:
            return
        if other.is_paused:
            if len(other.inbox) < _INBOX_MAX:
                other.inbox.append((data, node.address))
            return
        self._serve(other, data, node.address)

    def _serve(self, node: Node, data: bytes, source: Address) -> None:
        at = max(self.now, node.busy_until)
        node.busy_until = at + self.service_s
        machine = node.machine
        self._at(at, lambda: self._take(node, machine, data, source))

    def _take(self, node: Node, machine: Machine, data: bytes, source: Address) -> None:
        if node.machine is not machine or not node.is_up:
            return
        if node.is_paused:
            node.inbox.append((data, source))
            return
        self.delivered += 1
        self._hash.update(f"{self.now!r} {source[0]} {node.name} {len(data)}".encode())
        machine.receive_datagram(data, source, now=self.now)
        self._flush(node)

    def _push(self, node: Node, push: StreamPush) -> None:
        """Carry a stream: two round trips, then it arrives whole; or it times out."""
        other = self._by_address.get(push.address)
        works = self.streams and self._passes(node, other)
        wait = 4 * self.rng.uniform(*self.latency_s) if works else _STREAM_S
        machine = node.machine

        def finish() -> None:
            is_sent = other is not None and works and self._passes(node, other)
            if is_sent and other is not None and not other.is_paused:
                for frame in push.frames:
                    other.machine.receive_frame(frame, node.address, now=self.now)
                self._flush(other)
            if node.machine is machine and node.is_up and not node.is_paused:
                machine.stream_done(push.node_id, is_sent=is_sent, now=self.now)
                self._flush(node)

        self._at(self.now + wait, finish)

    def _at(self, when: float, step: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._heap, (when, self._order, step))
