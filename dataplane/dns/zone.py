"""What one sandbox may know: the names of its own networks (pure).

`Zone` is built from a plan and asked once per query. What it does not know goes upstream; that a
name does not exist is only said where nobody upstream could be asked.

Names of a network are those of the plan (`web`, `tasks.web`, `web.1.<task id>`, aliases). A name
is first looked for as it is in each network, in the order of the sandbox's interfaces, then as
`name.network` at every dot, as Swarm does (moby daemon/libnetwork/sandbox.go, ResolveName).

Differences from Swarm, on purpose:
    - Swarm gives every answer 600 s. We do so for virtual IPs, which stay. Addresses of tasks
      (`tasks.X`, dnsrr) get `TASK_TTL_S`: clients that cache would go on asking dead tasks.
    - Swarm knows no name of a virtual IP and asks the machine's resolvers, which cannot know it
      either. We call it `service.network`.
    - A sandbox that is on internal networks only asks nobody upstream: DNS would be its way out.

As in Swarm, an unknown name of one label goes upstream too: the machine's resolvers may know it
(a search domain of theirs, a host on the same LAN). That costs little where they cannot be reached:
see `forwarder`.

Invariant: a sandbox gets no answer about a network that it is not in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from random import Random

from dataplane.dns.codec import CLASS_IN, Answer, Query, Rcode, Type, reverse_address
from dataplane.plan import Network, NodePlan, Sandbox

VIP_TTL_S = 600
"""Swarm's."""
TASK_TTL_S = 5
"""As long as a restart delay: a name may answer with a dead task for about one replacement."""


@dataclass(frozen=True, slots=True)
class Forward:
    """Ask the upstream resolvers."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer by ourselves."""

    rcode: Rcode
    answer: Answer = Answer()


@dataclass(frozen=True, slots=True)
class NetworkNames:
    """The names of one network, indexed; shared by all zones that it is part of."""

    network: str
    """Lower case."""
    addresses: Mapping[str, tuple[IPv4Address, ...]]
    pointers: Mapping[IPv4Address, str]
    vips: frozenset[IPv4Address]

    @classmethod
    def of(cls, network: Network) -> NetworkNames:
        """Return the names of `network`."""
        return cls(
            network=network.name.lower(),
            addresses={name.name: name.addresses for name in network.names},
            pointers={pointer.address: pointer.name for pointer in network.pointers},
            vips=frozenset(service.vip for service in network.services),
        )


@dataclass(frozen=True, slots=True)
class Zone:
    """Everything one sandbox can ask about."""

    networks: tuple[NetworkNames, ...] = ()
    """In the order of the sandbox's interfaces."""
    has_upstream: bool = True
    """Whether others may be asked about what is unknown here."""

    def answer(self, query: Query, rng: Random) -> Reply | Forward:
        """Return what to do about `query`; addresses come in random order."""
        refusal = _refusal(query)
        if refusal is not None:
            return Reply(refusal)
        if query.type == Type.PTR:
            return self._answer_pointer(query)
        found = self._find(query.name)
        if found is None:
            return self._unknown(query)
        names, addresses = found
        if query.type != Type.A:
            # The name exists, without records of this type: nobody upstream may say NXDOMAIN.
            return Reply(Rcode.NOERROR)
        ttl_s = VIP_TTL_S if names.vips.issuperset(addresses) else TASK_TTL_S
        shuffled = tuple(rng.sample(addresses, len(addresses)))
        return Reply(Rcode.NOERROR, Answer(shuffled, ttl_s))

    def _find(self, name: str) -> tuple[NetworkNames, tuple[IPv4Address, ...]] | None:
        for names in self.networks:
            if name in names.addresses:
                return names, names.addresses[name]
        for head, tail in _splits(name):
            for names in self.networks:
                if tail == names.network and head in names.addresses:
                    return names, names.addresses[head]
        return None

    def _answer_pointer(self, query: Query) -> Reply | Forward:
        address = reverse_address(query.name)
        for names in self.networks:
            if address is not None and address in names.pointers:
                ttl_s = VIP_TTL_S if address in names.vips else TASK_TTL_S
                return Reply(Rcode.NOERROR, Answer((names.pointers[address],), ttl_s))
        return self._unknown(query)

    def _unknown(self, query: Query) -> Reply | Forward:
        if self.has_upstream:
            return Forward()
        # A single label can only be one of ours, so it does not exist; of others we know nothing.
        return Reply(Rcode.SERVFAIL if "." in query.name else Rcode.NXDOMAIN)


def build_zones(
    plan: NodePlan, previous: Mapping[str, NetworkNames], *, has_upstream: bool
) -> tuple[dict[str, Zone], dict[str, NetworkNames]]:
    """Return the zone of each sandbox of `plan`, by its id, and the names of each network.

    Args:
        plan: what this node forwards.
        previous: names of each network, by its id, from the last call; equal ones are kept.
        has_upstream: whether there are upstream resolvers at all.
    """
    networks = {network.id: network for network in plan.networks}
    names = {id_: NetworkNames.of(network) for id_, network in networks.items()}
    for id_, old in previous.items():
        if names.get(id_) == old:
            names[id_] = old
    zones = {
        sandbox.id: Zone(
            tuple(names[interface.network] for interface in sandbox.interfaces),
            has_upstream and not _is_confined(sandbox, networks),
        )
        for sandbox in plan.sandboxes
    }
    return zones, names


def _refusal(query: Query) -> Rcode | None:
    """Return why a query is not even looked at; None: it is."""
    if not query.is_standard:
        return Rcode.NOTIMP
    if query.edns_version:
        return Rcode.BADVERS
    if query.class_ != CLASS_IN:
        return Rcode.REFUSED
    return None


def _is_confined(sandbox: Sandbox, networks: Mapping[str, Network]) -> bool:
    """Whether the sandbox is in networks, and all of them are internal."""
    used = [networks[interface.network] for interface in sandbox.interfaces]
    return bool(used) and all(network.internal for network in used)


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """Yield what stands before and after each dot, from the left."""
    at = name.find(".")
    while at >= 0:
        yield name[:at], name[at + 1 :]
        at = name.find(".", at + 1)
