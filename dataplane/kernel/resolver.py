"""The way to a sandbox's resolver.

Tasks ask at port 53 (resolv.conf cannot name another), and nobody listens there: a task that is a
name server itself binds 0.0.0.0:53, which a listener at 127.0.0.11:53 would take from it. So the
resolver listens at another port, and a rule in the sandbox's namespace leads there. Docker does so
too. The rule has a table of its own, which the planned ones leave alone; it stays when the daemon
is killed. Writing it again would cost a grace period of the kernel (11 ms, measured; 0.7 ms the
first time), in every sandbox before a daemon that starts again can answer: so it looks first.
"""

from __future__ import annotations

from socket import AF_INET

from dataplane.kernel import inventory
from dataplane.kernel.channel import NETLINK_NETFILTER, Channel
from dataplane.kernel.nftables import NftError, find_nft

_TABLE = "hivewire-dns"
_COMMANDS = """\
table ip {table} {{
 chain {chain} {{
  type nat hook output priority -101
  ip daddr {address} udp dport {port} dnat to {address}:{to}
  ip daddr {address} tcp dport {port} dnat to {address}:{to}
 }}
}}
"""
"""-101: before the virtual addresses' chain."""


def lead(address: str, port: int, to: int) -> None:
    """Lead what processes of this thread's namespace send to `port` at `address` to port `to`.

    Raises:
        OSError: the kernel refused.
    """
    chain = f"port_{port}_to_{to}"
    with Channel(NETLINK_NETFILTER) as channel:
        chains = inventory.read_chains(channel.dump(inventory.list_chains()), _TABLE)
    if (int(AF_INET), chain) in chains:
        return  # one transaction makes both: where the chain is, the rules are
    nft = find_nft()
    if nft is None:
        raise OSError("neither libnftables.so.1 nor the nft command is installed")
    try:
        nft.run(_COMMANDS.format(table=_TABLE, chain=chain, address=address, port=port, to=to))
    except NftError as error:
        raise OSError(f"no way to the resolver: {error}") from error
