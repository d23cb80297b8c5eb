"""Subnets do not overlap; addresses are given around, once each."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.control.addresses import AddressPool, carve, parse_subnet
from cluster.model.network import SubnetSpec

POOL = IPv4Network("10.0.0.0/23")
SUBNETS = st.tuples(st.integers(int(POOL[0]) - 1024, int(POOL[-1]) + 1024), st.integers(8, 32)).map(
    lambda block: IPv4Network(block, strict=False)
)


@settings(deadline=None)
@given(st.lists(SUBNETS, max_size=12), st.integers(23, 29))
def test_carve_returns_the_lowest_subnet_clear_of_the_taken(
    taken: list[IPv4Network], length: int
) -> None:
    expected = next(
        (s for s in POOL.subnets(new_prefix=length) if not any(s.overlaps(t) for t in taken)), None
    )
    assert carve([POOL], length, taken) == expected


def test_carve_goes_on_to_the_next_pool() -> None:
    pools = [IPv4Network("10.0.0.0/24"), IPv4Network("10.9.0.0/30"), IPv4Network("10.5.0.0/23")]
    first = carve(pools, 24, [])
    assert first == pools[0]
    assert carve(pools, 24, [pools[0]]) == IPv4Network("10.5.0.0/24")
    assert carve(pools, 24, [pools[0], pools[2]]) is None


def all_of(pool: AddressPool) -> list[str]:
    return list(iter(pool.take, None))


def test_addresses_go_around_from_the_recent_one() -> None:
    subnet = IPv4Network("10.0.0.0/29")
    held = {int(subnet[1]), int(subnet[3])}
    pool = AddressPool(subnet, None, held, int(subnet[4]))
    assert all_of(pool) == ["10.0.0.5", "10.0.0.6", "10.0.0.2", "10.0.0.4"]
    pool.give_back("10.0.0.2")
    assert all_of(pool) == ["10.0.0.2"]


def test_addresses_stay_in_the_range() -> None:
    subnet = IPv4Network("10.0.0.0/24")
    wish = SubnetSpec("10.0.0.0/24", ip_range="10.0.0.252/30")
    assert all_of(AddressPool(subnet, wish, set(), 0)) == ["10.0.0.252", "10.0.0.253", "10.0.0.254"]


@settings(deadline=None)
@given(st.integers(24, 29), st.sets(st.integers(0, 255)), st.integers(-5, 300))
def test_every_host_is_given_once(length: int, held: set[int], recent: int) -> None:
    subnet = IPv4Network(f"10.0.0.0/{length}")
    base = int(subnet[0])
    given_out = all_of(AddressPool(subnet, None, {base + h for h in held}, base + recent))
    free = {str(host) for host in subnet.hosts() if int(host) - base not in held}
    assert len(given_out) == len(set(given_out))
    assert set(given_out) == free


@settings(deadline=None)
@given(st.text(max_size=20))
def test_any_text_is_a_subnet_or_none(text: str) -> None:
    subnet = parse_subnet(text)
    assert subnet is None or IPv4Address(subnet[0]) == subnet.network_address
