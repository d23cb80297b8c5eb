"""Addresses that follow from a node's index: the same on every node without any exchange (pure).

The range is 100.64.0.0/10 (RFC 6598, shared address space), which no overlay subnet may overlap:
node N owns the gateway subnet 100.64.0.0 + N * 256 / 24, and the address 100.127.x.y on the
ingress VXLAN.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

NODE_INDEX_MAX = 4094
"""The index must fit the 12 bits of the firewall mark that remembers a connection's entry node."""
RESERVED = IPv4Network("100.64.0.0/10")
INGRESS_VNI = 4096
"""VXLAN network identifier of the routed ingress network; overlay networks start above it."""
_INGRESS_BASE = int(IPv4Address("100.127.0.0"))


def gateway_subnet(index: int) -> IPv4Network:
    """Return the /24 that node `index` gives its sandboxes' gateway interfaces from."""
    return IPv4Network((int(RESERVED.network_address) + (_checked(index) << 8), 24))


def gateway_address(index: int) -> IPv4Address:
    """Return the address of node `index` itself in its gateway subnet."""
    return gateway_subnet(index).network_address + 1


def ingress_address(index: int) -> IPv4Address:
    """Return the address of node `index` on the ingress VXLAN."""
    return IPv4Address(_INGRESS_BASE + _checked(index))


def ingress_mac(index: int) -> str:
    """Return the MAC of node `index` on the ingress VXLAN."""
    return f"02:fe:00:00:{_checked(index) >> 8:02x}:{index & 255:02x}"


def endpoint_mac(address: IPv4Address) -> str:
    """Return the MAC of the endpoint with this overlay address (Docker's 02:42 scheme)."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in address.packed)


def _checked(index: int) -> int:
    if not 1 <= index <= NODE_INDEX_MAX:
        raise ValueError(f"node index {index} is not in 1..{NODE_INDEX_MAX}")
    return index
