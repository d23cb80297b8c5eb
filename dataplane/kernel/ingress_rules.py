"""The firewall tables of the node: published ports, and the way back through the entry node (pure).

A client's connection to a published port is sent to a backend's gateway address, here or through
the ingress VXLAN, with the client's address on it. The backend's node remembers in the connection
mark which node it came in by (told by the Ethernet source), so that the reply leaves by the same
tunnel: a routing rule sends marked packets to a next hop that stands for "the entry node", and
the egress hook of the tunnel writes that node's MAC. Source addresses are only translated where
the reply would not come back otherwise: a node's own, loopback's, and from a sandbox to one on
the same node (it may be the same one).

The original direction of each such connection has a conntrack zone per entry node, since one
client port may reach the same backend by two of them.

A connection that a backend does not answer is balanced anew when its SYN is repeated, and does not
keep its client's port bound to that backend (120 s, if the kernel has its way).

Source: nft(8); architecture, walk ii.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from dataplane.addressing import gateway_address, gateway_subnet, ingress_address, ingress_mac
from dataplane.kernel import nft
from dataplane.kernel.names import (
    GATEWAY_DEVICE,
    INGRESS_DEVICE,
    INSIDE_GROUP,
    MARK,
    MARK_MASK,
    TABLE,
)
from dataplane.plan import Peer, Protocol
from dataplane.state import IngressRules

TABLE_NAME = f"ip {TABLE}"
EGRESS_TABLE_NAME = f"netdev {TABLE}"
_BALANCER = nft.Balancer(TABLE_NAME, "ports", "inet_proto . inet_service", "rejected")
_ZONE = 0x4000
"""Conntrack zones: this plus the entry node's index."""
_IS_MARKED = f"& {MARK_MASK:#x} == {MARK:#x}"
_TUNNEL = f'"{INGRESS_DEVICE}"'
_FROM_INSIDE = f"iifgroup {INSIDE_GROUP}"
_TO_INSIDE = f"oifgroup {INSIDE_GROUP}"
_FROM_SANDBOX = f"{_FROM_INSIDE} iifname != {_TUNNEL}"
_TO_SANDBOX = f"{_TO_INSIDE} oifname != {_TUNNEL}"
_TO_NOBODY = f'oifname "{GATEWAY_DEVICE}"'
"""Gateway addresses that no sandbox has."""
_BALANCE = "fib daddr type local meta l4proto . th dport vmap @ports"

_TIMEOUT = "unanswered"
_SYN_SENT_S = 2
"""A client repeats its SYN after 1 s and 2 s more (RFC 6298): the second time it goes elsewhere."""


def _timeout_block(others: Sequence[tuple[str, int]] = ()) -> list[str]:
    """Return the lines of the time-outs; others: see `Abilities.timeouts_s`."""
    policy = {**dict(others), "syn_sent": _SYN_SENT_S}
    values = ", ".join(f"{state} : {seconds}" for state, seconds in policy.items())
    head = [f" ct timeout {_TIMEOUT} {{", "  protocol tcp", "  l3proto ip"]
    return [*head, f"  policy = {{ {values} }}", " }"]


EGRESS_HOOK_PROBE = (
    "table netdev hivewire_probe {\n chain egress {\n"
    '  type filter hook egress device "lo" priority 0;\n }\n}\n'
)
"""To be checked, not applied: passes where the kernel has an egress hook."""


def timeouts_probe(others: Sequence[tuple[str, int]] = ()) -> str:
    """Return what passes where the kernel has time-outs of their own for connections."""
    return "\n".join(["table ip hivewire_probe {", *_timeout_block(others), "}\n"])


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a kernel may lack; `preflight` says what must be there."""

    has_egress_hook: bool = True
    """NETFILTER_EGRESS, Linux 5.16."""
    has_timeouts: bool = True
    """NF_CONNTRACK_TIMEOUT."""
    timeouts_s: tuple[tuple[str, int], ...] = ()
    """The node's own TCP time-outs (sysctl), by nft's names of the states, to be kept but for one:
    nft gives those that are not named values of its own. Sorted."""


LEAST_ABILITIES = Abilities(has_egress_hook=False, has_timeouts=False)
"""What every kernel has that will do."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """What the node's tables hold for some rules."""

    rules: IngressRules
    kernel: Abilities
    targets: tuple[nft.Target, ...]
    digest: str


def render(rules: IngressRules, kernel: Abilities) -> Rendered:
    """Return what the node's tables hold for these rules."""
    limits = {Protocol.TCP: f"ct timeout set {_TIMEOUT} "} if kernel.has_timeouts else {}
    targets = tuple(
        nft.Target(
            chain=f"port_{port.protocol}_{port.port}",
            key=f"{port.protocol} . {port.port}",
            match=f"meta l4proto {port.protocol} {limits.get(port.protocol, '')}",
            backends=tuple(f"{b.address} . {b.port}" for b in port.backends),
            may_be_datagrams=port.protocol is Protocol.UDP,
        )
        for port in rules.ports
    )
    base = rules.base
    digest = nft.digest(
        (
            f"{base.index} {base.address} {base.port} {kernel.has_egress_hook}",
            *_timeouts(kernel),
            *(f"{peer.index} {peer.address}" for peer in _sorted(rules.peers)),
            *nft.describe(targets),
        )
    )
    return Rendered(rules, kernel, targets, digest)


def full(rendered: Rendered, rotation: int, *, is_new: bool = False) -> str:
    """Return the commands that make both tables so, whatever they were; is_new: never any."""
    generation = nft.chain_block(nft.generation_chain(rendered.digest), [])
    first = [*generation, *nft.datagrams_block(is_new=is_new)]
    return _tables(rendered, rendered.targets, first, rotation)


def build(rendered: Rendered, rotation: int, *, is_new: bool) -> tuple[str, ...]:
    """Return the transactions that make both tables where there are none; is_new: nor ever were."""
    if len(rendered.targets) <= nft.TARGETS_MAX:
        return (full(rendered, rotation, is_new=is_new),)
    empty = _tables(rendered, (), nft.datagrams_block(is_new=is_new), rotation)
    generation = f"add chain {TABLE_NAME} {nft.generation_chain(rendered.digest)}"
    parts = nft.additions(_BALANCER, rendered.targets, rotation)
    return nft.transactions([empty], parts, [generation], parts_max=1)


def _tables(
    rendered: Rendered, targets: Sequence[nft.Target], first: Sequence[str], rotation: int
) -> str:
    rules, has_hook = rendered.rules, rendered.kernel.has_egress_hook
    table = nft.replace_table(
        TABLE_NAME,
        [
            *first,
            *_timeouts(rendered.kernel),
            *nft.set_block("nodes", "ipv4_addr", _nodes(rules)),
            *nft.balancer_blocks(_BALANCER, targets, rotation),
            *_hooks(rules, has_egress_hook=has_hook),
        ],
    )
    if not has_hook:
        return table
    hook = f"type filter hook egress device {_TUNNEL} priority 0"
    egress = nft.chain_block("egress_mac", _egress(rules.peers), hook)
    return table + nft.replace_table(EGRESS_TABLE_NAME, egress)


def delta(before: Rendered, after: Rendered, rotation: int) -> tuple[str, ...]:
    """Return the transactions that lead from one to the other; both have the same base."""
    commands = [f"delete chain {TABLE_NAME} {nft.generation_chain(before.digest)}"]
    if before.rules.peers != after.rules.peers:
        commands.extend(_changed_peers(before.rules, after))
    return nft.transactions(
        commands,
        nft.changes(_BALANCER, before.targets, after.targets, rotation),
        [f"add chain {TABLE_NAME} {nft.generation_chain(after.digest)}"],
        parts_max=nft.TARGETS_MAX,
    )


def remove() -> str:
    """Return the commands that remove both tables."""
    return nft.delete_table(TABLE_NAME) + nft.delete_table(EGRESS_TABLE_NAME)


def _timeouts(kernel: Abilities) -> list[str]:
    return _timeout_block(kernel.timeouts_s) if kernel.has_timeouts else []


def _hooks(rules: IngressRules, *, has_egress_hook: bool) -> list[str]:
    blocks = [
        *nft.chain_block(
            "prerouting_raw", _raw(rules), "type filter hook prerouting priority -300"
        ),
        *nft.chain_block(
            "output_raw",
            [f"udp dport {rules.base.port} notrack"],
            "type filter hook output priority -300",
        ),
        *nft.chain_block(
            "prerouting_mark", _mark(rules), "type filter hook prerouting priority -150"
        ),
        # What the node itself answers for a sandbox (reset, unreachable) goes back the same way.
        *nft.chain_block(
            "output_mark",
            [f"ct mark {_IS_MARKED} meta mark set ct mark"],
            "type route hook output priority -150",
        ),
        *nft.chain_block("prerouting_nat", [_BALANCE], "type nat hook prerouting priority -100"),
        *nft.chain_block("output_nat", [_BALANCE], "type nat hook output priority -100"),
        *nft.chain_block("forward", _FORWARD, "type filter hook forward priority 0"),
        *nft.chain_block("input", _INPUT, "type filter hook input priority 0"),
        *nft.chain_block("output", _OUTPUT, "type filter hook output priority 0"),
        *nft.chain_block(
            "postrouting_nat",
            _sources(rules.base.index),
            "type nat hook postrouting priority 100",
        ),
    ]
    if not has_egress_hook:
        # The mark must not reach the routing of what the tunnel sends: that would loop.
        rule = f"oifname {_TUNNEL} meta mark {_IS_MARKED} meta mark set 0"
        hook = "type filter hook postrouting priority -150"
        blocks.extend(nft.chain_block("postrouting_mark", [rule], hook))
    return blocks


def _reject(match: str) -> list[str]:
    return [
        f"{match} meta l4proto tcp reject with tcp reset",
        f"{match} reject with icmp type port-unreachable",
    ]


_FORWARD = [
    f"oifname {_TUNNEL} tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu",
    # Gateway addresses are for ingress, not a network that all sandboxes share.
    f"{_FROM_SANDBOX} {_TO_INSIDE} ct direction original ct status & dnat == 0 drop",
    # A connection to a sandbox that is gone is reset, not left to hang.
    *_reject(_TO_NOBODY),
]
_INPUT = _reject("ct state new meta l4proto . th dport @rejected fib daddr type local")
_OUTPUT = [
    # A reply that turns round on the node is no reason to tell a sandbox of a shortcut.
    f"{_TO_INSIDE} icmp type redirect drop",
    *_reject(_TO_NOBODY),
]


def _sources(index: int) -> list[str]:
    tunnel, gateway, subnet = ingress_address(index), gateway_address(index), gateway_subnet(index)
    return [
        f"ct status & dnat != 0 ip saddr 127.0.0.0/8 oifname {_TUNNEL} snat to {tunnel}",
        f"ct status & dnat != 0 ip saddr 127.0.0.0/8 {_TO_INSIDE} snat to {gateway}",
        f"ct status & dnat != 0 ip saddr @nodes oifname {_TUNNEL} snat to {tunnel}",
        f"ct status & dnat != 0 {_FROM_SANDBOX} {_TO_SANDBOX} snat to {gateway}",
        f"ct status & dnat == 0 ip saddr {subnet} oifgroup != {INSIDE_GROUP} masquerade",
    ]


def _raw(rules: IngressRules) -> list[str]:
    made = [
        f"{_FROM_INSIDE} ip daddr 127.0.0.0/8 drop",
        f"iifgroup != {INSIDE_GROUP} udp dport {rules.base.port} notrack",
    ]
    if zones := [f"{ingress_mac(p.index)} : {_ZONE + p.index}" for p in _sorted(rules.peers)]:
        zone = f"ct original zone set ether saddr map {{ {', '.join(zones)} }}"
        made.append(f"iifname {_TUNNEL} {zone}")
    return made


def _mark(rules: IngressRules) -> list[str]:
    made: list[str] = []
    if marks := [f"{ingress_mac(p.index)} : {MARK + p.index:#x}" for p in _sorted(rules.peers)]:
        mark = f"ct mark set ether saddr map {{ {', '.join(marks)} }}"
        made.append(f"iifname {_TUNNEL} ct state new {mark}")
    made.append(f"{_FROM_INSIDE} ct mark {_IS_MARKED} meta mark set ct mark")
    return made


def _egress(peers: frozenset[Peer]) -> list[str]:
    macs = [f"{MARK + peer.index:#x} : {ingress_mac(peer.index)}" for peer in _sorted(peers)]
    if not macs:
        return []
    rewrite = f"ether daddr set meta mark map {{ {', '.join(macs)} }}"
    return [f"meta mark {_IS_MARKED} {rewrite} meta mark set 0"]


def _changed_peers(before: IngressRules, rendered: Rendered) -> list[str]:
    after = rendered.rules
    tables = [
        (TABLE_NAME, "prerouting_raw", _raw(after)),
        (TABLE_NAME, "prerouting_mark", _mark(after)),
    ]
    if rendered.kernel.has_egress_hook:
        tables.append((EGRESS_TABLE_NAME, "egress_mac", _egress(after.peers)))
    commands: list[str] = []
    for table, chain, rules in tables:
        commands.append(f"flush chain {table} {chain}")
        commands.extend(f"add rule {table} {chain} {rule}" for rule in rules)
    old = {peer.address for peer in before.peers} | {before.base.address}
    new = {peer.address for peer in after.peers} | {after.base.address}
    commands.extend(_changed_set("nodes", frozenset(old), frozenset(new)))
    return commands


def _changed_set(
    name: str, before: frozenset[IPv4Address], after: frozenset[IPv4Address]
) -> list[str]:
    return [
        f"{verb} element {TABLE_NAME} {name} {{ {', '.join(map(str, sorted(elements)))} }}"
        for verb, elements in (("delete", before - after), ("add", after - before))
        if elements
    ]


def _nodes(rules: IngressRules) -> list[str]:
    addresses = {rules.base.address, *(peer.address for peer in rules.peers)}
    return [str(address) for address in sorted(addresses)]


def _sorted(peers: frozenset[Peer]) -> list[Peer]:
    return sorted(peers, key=lambda peer: peer.index)
