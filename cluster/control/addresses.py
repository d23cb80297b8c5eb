"""IPv4 subnets and the addresses in them (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from cluster.model.network import SubnetSpec


def parse_subnet(text: str) -> IPv4Network | None:
    """Return the subnet that `text` says in CIDR; None: it says none."""
    try:
        return IPv4Network(text)
    except (AddressValueError, NetmaskValueError, ValueError):
        return None


def carve(
    pools: Iterable[IPv4Network], prefix_length: int, taken: Iterable[IPv4Network]
) -> IPv4Network | None:
    """Return the lowest subnet of `prefix_length` in `pools`, in their order, clear of `taken`.

    None: there is no room. `taken` networks may overlap each other.
    """
    blocks = sorted((int(n.network_address), int(n.broadcast_address)) for n in taken)
    for pool in pools:
        if pool.prefixlen <= prefix_length:
            start = _first_gap(pool, 1 << (32 - prefix_length), blocks)
            if start is not None:
                return IPv4Network((start, prefix_length))
    return None


def _first_gap(pool: IPv4Network, size: int, blocks: Sequence[tuple[int, int]]) -> int | None:
    """Return the lowest multiple of `size` in `pool` whose block is clear of `blocks` (sorted)."""
    start = int(pool.network_address)
    for first, last in blocks:
        if first >= start + size:
            break
        if last >= start:
            start = (last // size + 1) * size
    return start if start + size - 1 <= int(pool.broadcast_address) else None


def first_host(subnet: IPv4Network) -> IPv4Address:
    """Return the address that a gateway has unless the user chose another."""
    return subnet.network_address + 1


class AddressPool:
    """The addresses of one subnet that may still be given, in hand for one look.

    Addresses are given in rising order from the one after `recent`, and around: one that has just
    become free is not given at once, so that those who still remember it reach nobody wrong.
    """

    def __init__(
        self, subnet: IPv4Network, spec: SubnetSpec | None, held: set[int], recent: int
    ) -> None:
        """Give addresses of `subnet` (of its `ip_range`, if `spec` has one) not in `held`."""
        within = parse_subnet(spec.ip_range) if spec and spec.ip_range else None
        span = within or subnet
        self._first = max(int(span.network_address), int(subnet.network_address) + 1)
        self._last = min(int(span.broadcast_address), int(subnet.broadcast_address) - 1)
        self._held = held
        self._next = recent + 1
        self._is_exhausted = False

    def take(self) -> str | None:
        """Return an address that is held from now on; None: there is none left."""
        if self._is_exhausted:
            return None
        start = min(max(self._next, self._first), self._last + 1)
        for span in (range(start, self._last + 1), range(self._first, start)):
            for number in span:
                if number not in self._held:
                    self._held.add(number)
                    self._next = number + 1
                    return str(IPv4Address(number))
        self._is_exhausted = True
        return None

    def give_back(self, address: str) -> None:
        """Make an address free that `take` returned."""
        self._held.discard(int(IPv4Address(address)))
        self._is_exhausted = False
