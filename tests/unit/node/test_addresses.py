"""Which addresses a node takes, and what it refuses before it has changed anything."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from cluster.api.backend import InitRequest, JoinRequest, LocalState
from cluster.model.errors import ClusterError, Conflict, Invalid
from cluster.node import addresses
from cluster.node.config import NodeConfig
from cluster.node.node import Node

INTERFACES = {
    "lo": ("127.0.0.1",),
    "eth0": ("10.0.0.1", "10.0.0.2", "192.168.7.1"),
    "eth1": ("172.16.0.1",),
}
ANYWHERE = ("0.0.0.0", 2377)
ELSEWHERE = "192.0.2.7"
"""TEST-NET-1 (RFC 5737): no machine's."""


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        ("10.0.0.2", "10.0.0.2"),
        ("192.168.7.1", "192.168.7.1"),
        ("eth0", "10.0.0.1"),
        ("127.0.0.5", "127.0.0.5"),
        ("", "172.16.0.9"),
    ],
)
def test_data_path_is_any_address_of_this_machine(asked: str, chosen: str) -> None:
    assert addresses.choose_data_path(asked, "172.16.0.9", INTERFACES) == chosen


def test_data_path_of_another_machine_is_refused() -> None:
    with pytest.raises(Invalid, match=r"192.0.2.7 is not on any interface"):
        addresses.choose_data_path(ELSEWHERE, "10.0.0.1", INTERFACES)


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        ("10.0.0.2", ("10.0.0.2", 2377)),
        ("eth1:4000", ("172.16.0.1", 4000)),
        ("192.168.7.1:99", ("192.168.7.1", 99)),
    ],
)
def test_any_address_of_this_machine_is_advertised(asked: str, chosen: tuple[str, int]) -> None:
    assert addresses.choose_advertised(asked, ANYWHERE, INTERFACES) == chosen


def test_address_of_another_machine_is_not_advertised() -> None:
    with pytest.raises(Invalid, match=r"192.0.2.7 is not on any interface.*address translation"):
        addresses.choose_advertised(ELSEWHERE, ANYWHERE, INTERFACES)


def test_one_interface_with_several_addresses_leaves_no_doubt_which_is_meant() -> None:
    one = {"lo": ("127.0.0.1",), "eth0": ("10.0.0.1", "10.0.0.2")}
    assert addresses.choose_advertised("", ANYWHERE, one) == ("10.0.0.1", 2377)
    with pytest.raises(Invalid, match=r"10.0.0.1 on eth0 and 172.16.0.1 on eth1"):
        addresses.choose_advertised("", ANYWHERE, INTERFACES)


def check_unchanged(node: Node, data_root: Path) -> None:
    assert node.membership().state is LocalState.INACTIVE
    assert not list(data_root.iterdir())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (InitRequest(advertise_address=ELSEWHERE), "advertise address 192.0.2.7 is not on any"),
        (InitRequest(listen_address=f"{ELSEWHERE}:2377"), "listen address 192.0.2.7 is not on any"),
        (
            InitRequest(advertise_address="127.0.0.1", data_path_address=ELSEWHERE),
            "data path address 192.0.2.7 is not on any",
        ),
    ],
)
async def test_init_with_an_address_of_another_machine_changes_nothing(
    tmp_path: Path, request_: InitRequest, why: str
) -> None:
    node = Node(NodeConfig(data_root=tmp_path, run_root=tmp_path))
    with pytest.raises(Invalid, match=why):
        await node.swarm_init(request_)
    check_unchanged(node, tmp_path)


@pytest.mark.parametrize("kind", ["control", "gossip", "gossip udp"])
async def test_init_with_a_taken_port_changes_nothing(tmp_path: Path, kind: str) -> None:
    type_ = socket.SOCK_DGRAM if kind == "gossip udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, type_) as other:
        other.bind(("127.0.0.1", 0))
        if type_ is socket.SOCK_STREAM:
            other.listen()
        taken, free = int(other.getsockname()[1]), free_port()
        control, gossip = (taken, free) if kind == "control" else (free, taken)
        node = Node(NodeConfig(data_root=tmp_path, run_root=tmp_path, gossip_port=gossip))
        wish = InitRequest(
            listen_address=f"127.0.0.1:{control}", advertise_address=f"127.0.0.1:{control}"
        )
        with pytest.raises(Conflict, match=f"port {taken}/.* is taken"):
            await node.swarm_init(wish)
    check_unchanged(node, tmp_path)


async def test_join_with_an_address_of_another_machine_asks_no_manager(tmp_path: Path) -> None:
    node = Node(NodeConfig(data_root=tmp_path, run_root=tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as manager:
        manager.setblocking(False)
        remote = (f"127.0.0.1:{manager.getsockname()[1]}",)
        for wish in (
            JoinRequest(remote, "SWMTKN-1-x", advertise_address=ELSEWHERE),
            JoinRequest(remote, "SWMTKN-1-x", listen_address=ELSEWHERE),
            JoinRequest(remote, "SWMTKN-1-x", data_path_address=ELSEWHERE),
        ):
            with pytest.raises(ClusterError, match=r"192.0.2.7 is not on any"):
                await node.swarm_join(wish)
        with pytest.raises(BlockingIOError):
            manager.accept()
