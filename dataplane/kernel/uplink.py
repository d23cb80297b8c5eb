"""What the machine's own devices are: their addresses, and what fits them."""

from __future__ import annotations

from collections import defaultdict
from ipaddress import IPv4Address

from dataplane.kernel import inventory
from dataplane.kernel import rtnetlink as rt
from dataplane.kernel.channel import Channel


def own_addresses() -> dict[str, tuple[str, ...]]:
    """Return the IPv4 addresses of every device that has one, primary ones first.

    Raises:
        OSError: the kernel does not tell.
    """
    links, addresses = _read()
    names = {link.index: link.name for link in links}
    found: defaultdict[str, list[str]] = defaultdict(list)
    for held in addresses:
        found[names.get(held.index, "")].append(str(held.address))
    return {name: tuple(texts) for name, texts in found.items()}


def device_mtu(address: IPv4Address) -> int | None:
    """Return the MTU of the device that has `address`; None: no device has.

    Raises:
        OSError: the kernel does not tell.
    """
    links, addresses = _read()
    index = next((held.index for held in addresses if held.address == address), None)
    return next((link.mtu for link in links if link.index == index), None)


def _read() -> tuple[list[inventory.Link], list[inventory.Address]]:
    with Channel() as channel:
        links = inventory.read_links(channel.dump(rt.list_links()))
        return links, inventory.read_addresses(channel.dump(rt.list_addresses()))
