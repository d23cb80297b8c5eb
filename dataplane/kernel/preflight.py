"""What this machine lacks for the kernel driver, in words that say what to do.

Called by an operator's command before anything is changed; it tries things out in a namespace of
its own that ends with it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

from dataplane.diff import Flow
from dataplane.kernel import ingress_rules, inventory, netns
from dataplane.kernel import rtnetlink as rt
from dataplane.kernel.channel import NETLINK_NETFILTER, Channel
from dataplane.kernel.conntrack import forget
from dataplane.kernel.netlink import Message
from dataplane.kernel.nftables import Nft, NftError, find_nft
from dataplane.plan import NodePlan, Underlay
from dataplane.state import wanted_state

_NEEDED = "run as root, with CAP_NET_ADMIN and CAP_SYS_ADMIN, or inside a user namespace"
_SOMEWHERE = IPv4Address("192.0.2.1")


def missing() -> list[str]:
    """Return what the kernel driver needs and this machine lacks, a sentence each."""
    nft = find_nft()
    if nft is None:
        return ["nftables is missing: install libnftables1 or nftables"]
    with tempfile.TemporaryDirectory(prefix="hivewire-preflight-") as directory:
        path = Path(directory) / "namespace"
        try:
            netns.create_namespace(path)
        except OSError as error:
            return [f"cannot make a network namespace ({error.strerror}): {_NEEDED}"]
        try:
            return netns.run_in_namespace(path, lambda: _missing_inside(nft))
        finally:
            netns.delete_namespace(path)


def degraded() -> list[str]:
    """Return what the kernel driver does without on this machine, a sentence each."""
    nft = find_nft()
    found: list[str] = []
    optional = {
        ingress_rules.EGRESS_HOOK_PROBE: (
            "the kernel has no egress hook (NETFILTER_EGRESS, Linux 5.16): ingress uses a "
            "routing rule per node, which costs throughput with hundreds of nodes"
        ),
        ingress_rules.timeouts_probe(): (
            "the kernel has no time-outs of their own for connections (NF_CONNTRACK_TIMEOUT): a "
            "connection that a replica does not answer is not tried with another"
        ),
    }
    if nft is not None:
        for probe, lacking in optional.items():
            if not _passes(partial(nft.run, probe, is_check=True)):
                found.append(lacking)
    if _has_forward_drop():
        found.append(
            "the FORWARD policy of iptables is DROP (Docker sets it): published ports and the "
            "sandboxes' way out need ACCEPT, or accepting rules in DOCKER-USER"
        )
    return found


def _missing_inside(nft: Nft) -> list[str]:
    checks: list[tuple[str, Callable[[], None]]] = [
        ("bridges (CONFIG_BRIDGE)", lambda: _make(rt.make_bridge("hw-check"))),
        ("VXLAN (CONFIG_VXLAN, module vxlan)", _make_vxlan),
        ("cables between namespaces (CONFIG_VETH, module veth)", _make_veth),
        (
            "nftables with nft_nat, nft_numgen, nft_fib_ipv4, nft_reject_ipv4 and nft_ct",
            lambda: nft.run(_some_rules(), is_check=True),
        ),
        (
            "forgetting connections (CONFIG_NF_CT_NETLINK, module nf_conntrack_netlink, Linux 5.8)",
            _forget_nothing,
        ),
        (
            "routing by mark (CONFIG_IP_MULTIPLE_TABLES)",
            lambda: _make(rt.make_rule(mark=1, mask=1, table=1, priority=1)),
        ),
    ]
    return [f"the kernel lacks {what}" for what, check in checks if not _passes(check)]


def _passes(check: Callable[[], None]) -> bool:
    try:
        check()
    except (OSError, NftError):
        return False
    return True


def _make(message: Message) -> None:
    with Channel() as channel:
        channel.request(message)


def _make_vxlan() -> None:
    _make(rt.make_vxlan("hw-vxlan", vni=1, local=_SOMEWHERE, port=4789, mtu=1450))


def _make_veth() -> None:
    namespace = netns.open_namespace(Path("/proc/thread-self/ns/net"))
    try:
        message = rt.make_veth(
            "hw-near",
            mtu=1450,
            peer_name="hw-far",
            peer_mac="02:00:00:00:00:01",
            peer_namespace=namespace,
        )
        _make(message)
    finally:
        os.close(namespace)


def _some_rules() -> str:
    plan = NodePlan(underlay=Underlay(index=1, address=_SOMEWHERE))
    rules = wanted_state(plan).rules
    if rules is None:
        raise ValueError("a plan with an underlay has rules")
    return ingress_rules.full(ingress_rules.render(rules, ingress_rules.LEAST_ABILITIES), 0)


def _forget_nothing() -> None:
    with Channel(NETLINK_NETFILTER) as channel:
        channel.request(forget(Flow(_SOMEWHERE)))


def _has_forward_drop() -> bool:
    """Return whether some other table's forward chain drops by default."""
    try:
        with Channel(NETLINK_NETFILTER) as channel:
            dump = channel.dump(inventory.list_chains())
    except OSError:
        return False
    return inventory.has_dropping_forward_chain(dump)
