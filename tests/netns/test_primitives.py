"""Namespaces, sysctls, nftables and the preflight, one by one."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Generator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from dataplane.kernel import inventory, netns, preflight, uplink
from dataplane.kernel.channel import NETLINK_NETFILTER, Channel, NetlinkError
from dataplane.kernel.nftables import CommandNft, LibraryNft, Nft, NftError
from dataplane.kernel.rtnetlink import list_links, make_bridge, set_address


@pytest.fixture
def place(tmp_path: Path) -> Generator[Path]:
    """Return a new namespace."""
    path = tmp_path / "place"
    netns.create_namespace(path)
    yield path
    netns.delete_namespace(path)


def own_namespace() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino


def test_work_is_done_inside_and_the_caller_stays_outside(place: Path) -> None:
    outside = own_namespace()
    inside = netns.run_in_namespace(place, own_namespace)

    assert inside == place.stat().st_ino
    assert inside != outside
    assert own_namespace() == outside


def test_what_the_work_raises_is_raised_here(place: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        netns.run_in_namespace(place, lambda: 1 // 0)
    errors = netns.run_in_each([place], lambda path: path.rmdir(), threads_max=1)
    assert [type(error) for error in errors.values()] == [NotADirectoryError]


def test_sockets_stay_where_they_were_opened(place: Path) -> None:
    with (
        netns.open_socket_in(place, socket.AF_INET, socket.SOCK_DGRAM) as inside,
        pytest.raises(OSError, match="unreachable"),
    ):
        # Nothing is up there, not even loopback.
        inside.connect(("198.18.0.1", 9))


def test_missing_namespace_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        netns.run_in_namespace(tmp_path / "none", own_namespace)
    (tmp_path / "plain").touch()
    assert not netns.is_namespace(tmp_path / "plain")
    assert not netns.is_namespace(tmp_path / "none")
    with pytest.raises(FileExistsError):
        netns.create_namespace(tmp_path / "plain")
    netns.delete_namespace(tmp_path / "plain")
    assert list(tmp_path.iterdir()) == []


def test_sysctls_are_the_namespaces_own(place: Path) -> None:
    assert netns.run_in_namespace(place, lambda: netns.write_sysctl("net/ipv4/ip_forward", "1"))
    assert not netns.run_in_namespace(place, lambda: netns.write_sysctl("net/ipv4/none", "1"))
    read = Path("/proc/sys/net/ipv4/ip_forward").read_text
    assert netns.run_in_namespace(place, read) == "1\n"


def test_first_refusal_of_a_batch_is_raised_and_the_rest_is_done(place: Path) -> None:
    def make() -> list[str]:
        with Channel() as channel, pytest.raises(NetlinkError, match="File exists"):
            channel.request(make_bridge("one"), make_bridge("one"), make_bridge("two"))
        return [name for _, name in socket.if_nameindex()]

    assert {"one", "two"} <= set(netns.run_in_namespace(place, make))


@pytest.mark.parametrize(
    "nft",
    [
        pytest.param(LibraryNft(), id="library"),
        pytest.param(
            CommandNft(),
            id="command",
            marks=pytest.mark.skipif(shutil.which("nft") is None, reason="needs the nft command"),
        ),
    ],
)
def test_nft_commands_are_one_transaction(place: Path, nft: Nft) -> None:
    def chains() -> list[tuple[int, str]]:
        with Channel(NETLINK_NETFILTER) as channel:
            return inventory.read_chains(channel.dump(inventory.list_chains()), "t")

    def run(commands: str, *, is_check: bool = False) -> list[tuple[int, str]]:
        netns.run_in_namespace(place, lambda: nft.run(commands, is_check=is_check))
        return netns.run_in_namespace(place, chains)

    assert run("table ip t {\n chain a {\n }\n}\n", is_check=True) == []
    assert run("table ip t {\n chain a {\n }\n}\n") == [(socket.AF_INET, "a")]
    with pytest.raises(NftError, match=r"No such file"):
        run("add chain ip t b\ndelete chain ip t c\n")
    assert netns.run_in_namespace(place, chains) == [(socket.AF_INET, "a")]


def test_this_machine_has_what_it_takes() -> None:
    assert preflight.missing() == []


def test_forward_policy_of_others_is_noticed(place: Path) -> None:
    # As Docker leaves it.
    rules = "table ip filter {\n chain FORWARD {\n  type filter hook forward priority 0;\n"
    rules += "  policy drop;\n }\n}\n"
    before = netns.run_in_namespace(place, preflight.degraded)
    netns.run_in_namespace(place, lambda: LibraryNft().run(rules))

    (told,) = set(netns.run_in_namespace(place, preflight.degraded)) - set(before)
    assert "FORWARD" in told


def test_no_mount_is_left() -> None:
    listed = subprocess.run(["cat", "/proc/self/mounts"], capture_output=True, check=True)
    assert b"hivewire-preflight" not in listed.stdout


def test_all_addresses_of_a_device_are_its_own(place: Path) -> None:
    def add() -> dict[str, tuple[str, ...]]:
        with Channel() as channel:
            channel.request(make_bridge("own", mtu=1234))
            (link,) = [
                link for link in inventory.read_links(channel.dump(list_links()))
                if link.name == "own"
            ]  # fmt: skip
            for address in ("198.18.9.1", "198.18.9.2", "192.0.2.1"):
                channel.request(set_address(link.index, IPv4Address(address), 24))
        assert uplink.device_mtu(IPv4Address("198.18.9.2")) == 1234
        assert uplink.device_mtu(IPv4Address("198.18.9.3")) is None
        return uplink.own_addresses()

    assert netns.run_in_namespace(place, add)["own"][0] == "198.18.9.1"
    assert set(netns.run_in_namespace(place, uplink.own_addresses)["own"]) == {
        "198.18.9.1", "198.18.9.2", "192.0.2.1",
    }  # fmt: skip
