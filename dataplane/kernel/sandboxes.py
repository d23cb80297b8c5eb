"""Performing the operations on sandboxes: a namespace per task with its interfaces.

A cable is made in one request on its far side (the network's bridge, or the node), with the other
end already inside the sandbox. Every function may run again over what an interrupted run left.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from ipaddress import IPv4Network
from pathlib import Path

from dataplane.addressing import endpoint_mac, gateway_address
from dataplane.diff import Plug, RemoveSandboxes, Unplug
from dataplane.kernel import rtnetlink as rt
from dataplane.kernel.channel import Channel
from dataplane.kernel.names import (
    INSIDE_GROUP,
    NETWORK_BRIDGE,
    REMOVAL_GROUP,
    UPLINK_MAC,
    interface_name,
    network_path,
    port_name,
    sandbox_path,
)
from dataplane.kernel.netns import (
    delete_namespace,
    furnish_namespace,
    is_namespace,
    open_namespace,
    run_in_namespace,
    write_sysctl,
)
from dataplane.state import Port, Uplink

_LOOPBACK_INDEX = 1
_HOST_PREFIX_LENGTH = 32
_EVERYWHERE = IPv4Network("0.0.0.0/0")
_SYSCTLS = (
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
)


def make_sandbox(directory: Path, sandbox: str) -> None:
    """Perform `MakeSandbox`."""

    def raise_loopback() -> None:
        with Channel() as channel:
            channel.request(rt.set_link(_LOOPBACK_INDEX))

    furnish_namespace(sandbox_path(directory, sandbox), _SYSCTLS, raise_loopback)


def plug(directory: Path, operation: Plug) -> None:
    """Perform `Plug`."""
    path = sandbox_path(directory, operation.sandbox)
    name = interface_name(operation.number)
    _remove_interface(path, name)
    namespace = open_namespace(path)
    try:
        interface = operation.interface
        far = port_name(operation.sandbox, operation.number)
        if isinstance(interface, Uplink):
            _connect_uplink(far, name, interface, namespace)
        else:
            place = network_path(directory, interface.network)
            run_in_namespace(place, lambda: _connect_port(far, name, interface, namespace))
    finally:
        os.close(namespace)
    run_in_namespace(path, lambda: _configure(name, interface))


def _connect_port(far: str, name: str, port: Port, namespace: int) -> None:
    with Channel() as channel:
        channel.request(
            rt.make_veth(
                far,
                master=socket.if_nametoindex(NETWORK_BRIDGE),
                mtu=port.mtu,
                peer_name=name,
                peer_mac=port.mac,
                peer_namespace=namespace,
            )
        )
        # Static: the bridge may remember the MAC from when its sandbox was on another node.
        channel.request(rt.set_port_entry(socket.if_nametoindex(far), port.mac))


def _connect_uplink(far: str, name: str, uplink: Uplink, namespace: int) -> None:
    # Routed, not bridged: a bridge would let sandboxes speak with each other past the node's
    # rules, and with br_netfilter (Docker loads it) translate addresses without routing.
    mac = endpoint_mac(uplink.address)
    with Channel() as channel:
        channel.request(
            rt.make_veth(
                far,
                mac=UPLINK_MAC,
                group=INSIDE_GROUP,
                mtu=uplink.mtu,
                peer_name=name,
                peer_mac=mac,
                peer_namespace=namespace,
            )
        )
        write_sysctl(f"net/ipv6/conf/{far}/disable_ipv6", "1")
        # A client on the node may ask 127.0.0.1; the reply comes in by this device.
        write_sysctl(f"net/ipv4/conf/{far}/route_localnet", "1")
        index = socket.if_nametoindex(far)
        gateway = gateway_address(uplink.node_index)
        channel.request(
            rt.set_neighbour(index, uplink.address, mac),
            rt.set_route(IPv4Network(uplink.address), index=index, source=gateway),
        )


def _configure(name: str, interface: Port | Uplink) -> None:
    index = socket.if_nametoindex(name)
    with Channel() as channel:
        if isinstance(interface, Port):
            address = rt.set_address(index, interface.address, interface.prefix_length)
            channel.request(address, rt.set_link(index))
            return
        gateway = gateway_address(interface.node_index)
        channel.request(
            rt.set_address(index, interface.address, _HOST_PREFIX_LENGTH),
            rt.set_link(index),
            rt.set_neighbour(index, gateway, UPLINK_MAC),
            rt.set_route(_EVERYWHERE, index=index, via=gateway),
        )


def unplug(directory: Path, operation: Unplug) -> None:
    """Perform `Unplug`."""
    path = sandbox_path(directory, operation.sandbox)
    _remove_interface(path, interface_name(operation.number))


def _remove_interface(path: Path, name: str) -> None:
    def remove() -> None:
        with Channel() as channel:
            channel.request(rt.remove_link(name), ignore=(errno.ENODEV,))

    run_in_namespace(path, remove)


def remove_sandboxes(directory: Path, operation: RemoveSandboxes) -> None:
    """Perform `RemoveSandboxes`.

    Their cables are removed by name, all of one namespace at once: a process may linger in a
    sandbox, and its address has to be free all the same.

    Raises:
        OSError: of the first that could not be forgotten; all were tried.
    """
    far: set[str] = set()
    for sandbox in operation.sandboxes:
        path = sandbox_path(directory, sandbox)
        if is_namespace(path):
            # One that cannot be entered has no cables that are known by name.
            with contextlib.suppress(OSError):
                links = run_in_namespace(path, socket.if_nameindex)
                far |= {port_name(sandbox, number) for number in range(len(links))}
    for place in (None, *directory.glob("n-*")):
        run_in_namespace(place, lambda: _remove_links(far))
    failed: OSError | None = None
    for sandbox in operation.sandboxes:
        try:
            delete_namespace(sandbox_path(directory, sandbox))
        except OSError as error:
            failed = failed or error
    if failed is not None:
        raise failed


def _remove_links(names: set[str]) -> None:
    present = [name for _, name in socket.if_nameindex() if name in names]
    if not present:
        return
    with Channel() as channel:
        channel.request(*(rt.group_link(name, REMOVAL_GROUP) for name in present))
        channel.request(rt.remove_group(REMOVAL_GROUP), ignore=(errno.ENODEV,))
