"""Performing the operations on networks: a namespace with a bridge and a tunnel device each.

The tunnel device is made by a request in the node's namespace, which its UDP socket then stays
in, but directly inside the network's. Every function may run again over what an interrupted run
left.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path

from dataplane.diff import AddRemotes, DropRemotes, SetSegment
from dataplane.kernel import inventory
from dataplane.kernel import rtnetlink as rt
from dataplane.kernel.channel import Channel, NetlinkError
from dataplane.kernel.names import NETWORK_BRIDGE, NETWORK_TUNNEL, network_path
from dataplane.kernel.netns import (
    delete_namespace,
    furnish_namespace,
    is_namespace,
    open_namespace,
    run_in_namespace,
)
from dataplane.state import Segment

_VNI_RETRY_S = 0.02
_VNI_RETRIES = 100
"""A namespace that lost its last pin gives its VNIs back when the kernel gets round to it."""
_SYSCTLS = (
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    # Only there with br_netfilter loaded, and then on in every new namespace.
    ("net/bridge/bridge-nf-call-iptables", "0"),
    ("net/bridge/bridge-nf-call-ip6tables", "0"),
    ("net/bridge/bridge-nf-call-arptables", "0"),
)


def make_network(directory: Path, network: str) -> None:
    """Perform `MakeNetwork`."""

    def make_bridge() -> None:
        with Channel() as channel:
            channel.request(rt.make_bridge(NETWORK_BRIDGE), ignore=(errno.EEXIST,))

    furnish_namespace(network_path(directory, network), _SYSCTLS, make_bridge)


def set_segment(directory: Path, operation: SetSegment) -> None:
    """Perform `SetSegment`.

    Raises:
        NetlinkError: EEXIST says that another device on this node has the VNI and port.
    """
    path = network_path(directory, operation.network)

    def clear() -> None:
        with Channel() as channel:
            channel.request(rt.remove_link(NETWORK_TUNNEL), ignore=(errno.ENODEV,))

    run_in_namespace(path, clear)
    _make_tunnel(path, operation)

    def attach() -> None:
        with Channel() as channel:
            bridge = socket.if_nametoindex(NETWORK_BRIDGE)
            channel.request(rt.set_link(socket.if_nametoindex(NETWORK_TUNNEL), master=bridge))

    run_in_namespace(path, attach)


def _make_tunnel(path: Path, operation: SetSegment) -> None:
    segment = operation.segment
    namespace = open_namespace(path)
    try:
        message = rt.make_vxlan(
            NETWORK_TUNNEL,
            vni=segment.vni,
            local=segment.tunnel,
            port=segment.port,
            mtu=segment.mtu,
            proxy=True,
            namespace=namespace,
        )
        with Channel() as channel:
            for _ in range(_VNI_RETRIES):
                try:
                    channel.request(message)
                except NetlinkError as error:
                    if error.errno != errno.EEXIST:
                        raise
                    if _is_taken_for_good(channel, segment):
                        break
                    time.sleep(_VNI_RETRY_S)
                else:
                    return
        raise NetlinkError(
            errno.EEXIST,
            f"another VXLAN device on this node uses VNI {segment.vni} and UDP port {segment.port}",
        )
    finally:
        os.close(namespace)


def _is_taken_for_good(channel: Channel, segment: Segment) -> bool:
    """Return whether a device that is not ours, and so stays, is in the way."""
    links = inventory.read_links(channel.dump(rt.list_links()))
    return any(link.vni == segment.vni and link.port == segment.port for link in links)


def add_remotes(directory: Path, operation: AddRemotes) -> None:
    """Perform `AddRemotes`."""

    def add() -> None:
        tunnel = socket.if_nametoindex(NETWORK_TUNNEL)
        with Channel() as channel:
            channel.request(
                *(rt.set_tunnel_entry(tunnel, r.mac, r.tunnel) for r in operation.remotes),
                *(rt.set_neighbour(tunnel, r.address, r.mac) for r in operation.remotes),
            )

    run_in_namespace(network_path(directory, operation.network), add)


def drop_remotes(directory: Path, operation: DropRemotes) -> None:
    """Perform `DropRemotes`."""

    def drop() -> None:
        tunnel = socket.if_nametoindex(NETWORK_TUNNEL)
        with Channel() as channel:
            channel.request(
                *(rt.remove_neighbour(tunnel, address) for address in operation.addresses),
                *(rt.remove_tunnel_entry(tunnel, mac) for mac in operation.macs),
                ignore=(errno.ENOENT,),
            )

    run_in_namespace(network_path(directory, operation.network), drop)


def remove_network(directory: Path, network: str) -> None:
    """Perform `RemoveNetwork`."""
    path = network_path(directory, network)
    if is_namespace(path):
        # By name, not with the namespace: the VNI is free when this returns.
        def clear() -> None:
            with Channel() as channel:
                channel.request(
                    rt.remove_link(NETWORK_TUNNEL),
                    rt.remove_link(NETWORK_BRIDGE),
                    ignore=(errno.ENODEV,),
                )

        run_in_namespace(path, clear)
    delete_namespace(path)
