"""The firewall table of a sandbox: virtual addresses balanced where the connection starts (pure).

The rules sit in the output hook of the sandbox's own namespace, so a backend sees its client's
address, replies need no way back through a balancer, and a service may call itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from dataplane.kernel import nft
from dataplane.kernel.names import TABLE
from dataplane.plan import VirtualService

TABLE_NAME = f"ip {TABLE}"
_BALANCER = nft.Balancer(TABLE_NAME, "vips", "ipv4_addr", "rejected")
_REFUSER = "127.72.87.1"
"""Where connections to a virtual address without backends are sent, to be rejected on arrival:
rejecting on the way out would fail a datagram's `send` with EPERM instead of ECONNREFUSED."""
_HOOKS = [
    *nft.chain_block(
        "output_nat",
        ["ip daddr vmap @vips", f"ip daddr @rejected dnat to {_REFUSER}"],
        "type nat hook output priority -100",
    ),
    *nft.chain_block(
        "input",
        [
            f"ip daddr {_REFUSER} meta l4proto tcp reject with tcp reset",
            f"ip daddr {_REFUSER} reject with icmp type port-unreachable",
        ],
        "type filter hook input priority 0",
    ),
]


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a sandbox with some services balances."""

    services: tuple[VirtualService, ...]
    targets: tuple[nft.Target, ...]
    digest: str
    """Name of what the table holds; empty for no table at all."""


def render(services: tuple[VirtualService, ...]) -> Rendered:
    """Return what a sandbox with these services balances."""
    targets = tuple(
        nft.Target(
            chain="vip_" + str(service.vip).replace(".", "_"),
            key=str(service.vip),
            match="",
            backends=tuple(map(str, service.backends)),
            may_be_datagrams=True,
        )
        for service in services
    )
    return Rendered(services, targets, nft.digest(nft.describe(targets)) if targets else "")


def full(rendered: Rendered, rotation: int, *, is_new: bool = False) -> str:
    """Return the commands that make the table so, whatever it was; is_new: never any."""
    if not rendered.targets:
        return nft.delete_table(TABLE_NAME)
    return nft.replace_table(
        TABLE_NAME,
        [
            *nft.chain_block(nft.generation_chain(rendered.digest), []),
            *nft.datagrams_block(is_new=is_new),
            *nft.balancer_blocks(_BALANCER, rendered.targets, rotation),
            *_HOOKS,
        ],
    )


def build(rendered: Rendered, rotation: int, *, is_new: bool) -> tuple[str, ...]:
    """Return the transactions that make the table where there is none; is_new: nor ever was."""
    if len(rendered.targets) <= nft.TARGETS_MAX:
        return (full(rendered, rotation, is_new=is_new),)
    blocks = nft.balancer_blocks(_BALANCER, (), rotation)
    empty = nft.replace_table(TABLE_NAME, [*nft.datagrams_block(is_new=is_new), *blocks, *_HOOKS])
    generation = f"add chain {TABLE_NAME} {nft.generation_chain(rendered.digest)}"
    parts = nft.additions(_BALANCER, rendered.targets, rotation)
    return nft.transactions([empty], parts, [generation], parts_max=1)


def delta(before: Rendered, after: Rendered, rotation: int) -> tuple[str, ...]:
    """Return the transactions that lead from one to the other; neither is without targets."""
    return nft.transactions(
        [f"delete chain {TABLE_NAME} {nft.generation_chain(before.digest)}"],
        nft.changes(_BALANCER, before.targets, after.targets, rotation),
        [f"add chain {TABLE_NAME} {nft.generation_chain(after.digest)}"],
        parts_max=nft.TARGETS_MAX,
    )
