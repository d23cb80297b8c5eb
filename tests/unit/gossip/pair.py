"""Machines in one process without a network: what each wants sent is handed over by the test."""

from __future__ import annotations

from random import Random

from gossip.config import GossipConfig
from gossip.events import MemberView, RecordView
from gossip.identity import Identity
from gossip.keyring import GossipKey, KeyState
from gossip.machine import Machine
from gossip.memory import MemoryAuthority
from gossip.wire import Address

KEYS = (GossipKey(1, b"k" * 32, KeyState.PRIMARY),)


def address(name: str) -> Address:
    """Return where a machine is reached."""
    return (f"10.0.0.{ord(name[0])}", 7946)


def make_machine(
    name: str,
    *,
    epoch: int = 1000,
    cluster_id: str = "c",
    is_manager: bool = True,
    config: GossipConfig | None = None,
    identity: Identity | None = None,
    unix_s: float = 0.0,
) -> Machine:
    """Return a machine that has started at time 0."""
    machine = Machine(
        node_id=name,
        epoch=epoch,
        cluster_id=cluster_id,
        data_address="10.0.0.1",
        config=config or GossipConfig.lan(),
        keys=KEYS,
        identity=identity or MemoryAuthority(cluster_id).identity(name, is_manager=is_manager),
        rng=Random(name),
        wall_offset_s=unix_s,
    )
    machine.start(address(name), now=0.0)
    return machine


def exchange(*machines: Machine, now: float = 0.0) -> int:
    """Hand over packets until nobody has any; return how many there were."""
    count = 0
    by_address = {machine.me.address: machine for machine in machines}
    for _ in range(20):
        sent = [(m, d, a) for m in machines for d, a in m.datagrams_to_send()]
        if not sent:
            break
        for machine, data, destination in sent:
            if destination in by_address:
                count += 1
                by_address[destination].receive_datagram(data, machine.me.address, now=now)
    return count


def meet(*machines: Machine, now: float = 0.0) -> None:
    """Let all machines know each other."""
    for machine in machines[1:]:
        machine.join([machines[0].me.address])
        exchange(*machines, now=now)
    for machine in machines[1:]:
        machine.handle_timer(now=now)
    exchange(*machines, now=now)


def member(machine: Machine, name: str) -> MemberView | None:
    """Return what a machine believes of a member."""
    return next((view for view in machine.members() if view.node_id == name), None)


def records(machine: Machine, scope: str) -> dict[tuple[str, str], bytes]:
    """Return the records a machine sees."""
    found: list[RecordView] = list(machine.records(scope))
    return {(view.owner, view.key): view.value for view in found}
