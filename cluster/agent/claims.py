"""Who is right when two endpoints claim one thing (pure).

All records are proven by the managers, but a node may go on saying what it was once allowed to: an
address that another task has by now, a port, name or virtual IP that another service has. The later
allocation is right; the loser loses what is contested, and nothing else. So it is with a slot of a
service, which is a share of its connections: of two tasks that serve it, the later gets them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from cluster.agent.sightings import Endpoint
from cluster.allocation.records import EndpointRecord, Phase, RecordPort
from cluster.model.ids import ServiceId
from dataplane.plan import Protocol

Claim = str | IPv4Address | tuple[Protocol, int]
"""What one service of a scope has alone: its name (lower case), a virtual IP, a published port."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The endpoints of one scope, and what came of their claims."""

    at: Mapping[IPv4Address, Endpoint] = field(default_factory=dict[IPv4Address, Endpoint])
    """The endpoint at each address, in the order of addresses."""
    lost: AbstractSet[tuple[ServiceId, Claim]] = frozenset()
    conflicts: int = 0
    """Addresses and claims that were contested."""

    def vip_of(self, record: EndpointRecord) -> IPv4Address | None:
        """Return the record's virtual IP; None: it has none, or lost it."""
        return None if (record.service, record.vip) in self.lost else record.vip

    def has_name(self, record: EndpointRecord) -> bool:
        """Return whether the record's service may be called by its name."""
        return (record.service, record.service_name.lower()) not in self.lost

    def has_port(self, record: EndpointRecord, port: RecordPort) -> bool:
        """Return whether the record's service may have this port."""
        return (record.service, (port.protocol, port.published)) not in self.lost


def retire(endpoints: Collection[Endpoint]) -> list[Endpoint]:
    """Return the endpoints of one scope, those drained whose slot a later task serves.

    What they have goes on, for nobody can tell a task that is about to be stopped from one that was
    stopped long ago. While no later one serves, they get connections as before.
    """
    latest: dict[tuple[ServiceId, str], int] = {}
    for record in (endpoint.record for endpoint in endpoints):
        if record.phase is Phase.SERVING:
            slot = _slot(record)
            latest[slot] = max(record.allocation, latest.get(slot, 0))
    return [
        replace(endpoint, record=replace(endpoint.record, phase=Phase.DRAINING))
        if endpoint.record.phase is Phase.SERVING
        and endpoint.record.allocation < latest[_slot(endpoint.record)]
        else endpoint
        for endpoint in endpoints
    ]


def settle(endpoints: Iterable[Endpoint]) -> Settled:
    """Return what each endpoint of one scope may have."""
    at: dict[IPv4Address, Endpoint] = {}
    claimed: defaultdict[Claim, dict[ServiceId, int]] = defaultdict(dict)
    contested = set[IPv4Address]()
    for endpoint in sorted(endpoints, key=_seniority):
        record = endpoint.record
        if record.address is not None:
            if record.address in at:
                contested.add(record.address)
            at[record.address] = endpoint
        for claim in _claims(record):
            ranks = claimed[claim]
            ranks[record.service] = max(record.service_allocation, ranks.get(record.service, 0))
    disputes = {claim: ranks for claim, ranks in claimed.items() if len(ranks) > 1}
    return Settled(
        at={address: at[address] for address in sorted(at, key=int)},
        lost={lost for claim, ranks in disputes.items() for lost in _losers(claim, ranks)},
        conflicts=len(contested) + len(disputes),
    )


def _slot(record: EndpointRecord) -> tuple[ServiceId, str]:
    # A task's name is its service's, its slot (or its node, of a global service) and its own id.
    return (record.service, record.task_name.removesuffix(record.task))


def _seniority(endpoint: Endpoint) -> tuple[int, str, str]:
    return (endpoint.record.allocation, endpoint.record.task, endpoint.owner)


def _claims(record: EndpointRecord) -> Iterator[Claim]:
    yield record.service_name.lower()
    if record.vip is not None:
        yield record.vip
    for port in record.ports:
        yield (port.protocol, port.published)


def _losers(claim: Claim, ranks: Mapping[ServiceId, int]) -> Iterator[tuple[ServiceId, Claim]]:
    winner = max(ranks, key=lambda service: (ranks[service], service))
    return ((service, claim) for service in ranks if service != winner)
