"""What the API refuses, in words that say what to do."""

from __future__ import annotations

import pytest

from cluster.control.admission import check_ingress, check_ports, validate_network
from cluster.model.cluster import Cluster, ClusterSpec, JoinTokens
from cluster.model.errors import Conflict, FailedPrecondition, Invalid
from cluster.model.ids import ClusterId, NetworkId, NodeId, ServiceId
from cluster.model.network import Network, NetworkSpec, SubnetSpec
from cluster.model.node import Node, NodeDescription, NodeSpec, Role
from cluster.model.service import PortSpec, PublishMode, Service, ServiceSpec, TaskSpec
from cluster.state.apply import apply
from cluster.state.changes import PutCluster, PutNetwork, PutNode, PutService
from cluster.state.snapshot import Snapshot


def spec(subnet: str, gateway: str = "", ip_range: str = "", name: str = "app") -> NetworkSpec:
    return NetworkSpec(name, subnets=(SubnetSpec(subnet, gateway, ip_range),))


TAKEN = apply(
    Snapshot(),
    [
        PutNetwork(Network(NetworkId("1"), NetworkSpec("old"), 4097, "10.1.0.0/16", "10.1.0.1")),
        PutNetwork(Network(NetworkId("2"), spec("10.2.0.0/24", name="new"))),
        PutNetwork(Network(NetworkId("3"), NetworkSpec("waiting"))),
    ],
    1,
)


@pytest.mark.parametrize(
    "wish",
    [
        NetworkSpec("app"),
        spec("10.3.0.0/24"),
        spec("10.3.0.0/29", "10.3.0.6"),
        spec("172.20.0.0/16", "172.20.0.1", "172.20.5.0/24"),
        spec("192.168.0.0/16"),
    ],
)
def test_a_network_that_makes_sense(wish: NetworkSpec) -> None:
    validate_network(wish, TAKEN)


@pytest.mark.parametrize(
    ("wish", "complaint"),
    [
        (spec("nonsense"), "subnet 'nonsense' is no CIDR address"),
        (spec("10.3.0.0/33"), "is no CIDR address"),
        (spec("10.3.0.0"), "too small"),
        (spec("10.3.0.0/30"), "subnet 10.3.0.0/30 is too small: use /29 or larger"),
        (spec("10.3.0.5/24"), "has host bits set: did you mean 10.3.0.0/24?"),
        (spec("fd00::/64"), "IPv6 is not supported"),
        (spec("100.64.8.0/24"), "overlaps 100.64.0.0/10, which hivewire reserves"),
        (spec("127.0.0.0/24"), "overlaps 127.0.0.0/8, which no host can use"),
        (spec("0.0.0.0/0"), "which no host can use"),
        (spec("10.3.0.0/24", "10.4.0.1"), "gateway 10.4.0.1 is no host address"),
        (spec("10.3.0.0/24", "10.3.0.0"), "is no host address"),
        (spec("10.3.0.0/24", "10.3.0.255"), "is no host address"),
        (spec("10.3.0.0/24", "x"), "gateway 'x' is no IPv4 address"),
        (spec("10.3.0.0/24", ip_range="10.4.0.0/25"), "is not inside subnet"),
        (spec("10.3.0.0/24", ip_range="10.3.0.1/25"), "without host bits"),
        (spec("10.3.0.0/24", ip_range="x"), "IP range 'x' is no CIDR"),
        (spec("10.3.0.0/24", ip_range="10.3.0.1/32"), "leaves no address"),
        (spec("10.3.0.0/24", ip_range="10.3.0.255/32"), "leaves no address"),
        (NetworkSpec("app", subnets=(SubnetSpec("10.3.0.0/24"),) * 2), "at most one subnet"),
    ],
)
def test_a_network_that_makes_none(wish: NetworkSpec, complaint: str) -> None:
    with pytest.raises(Invalid) as error:
        validate_network(wish, TAKEN)
    assert complaint in str(error.value)


@pytest.mark.parametrize("subnet", ["10.1.5.0/24", "10.0.0.0/8", "10.2.0.128/25"])
def test_a_network_over_another(subnet: str) -> None:
    with pytest.raises(Conflict, match="overlaps network"):
        validate_network(spec(subnet), TAKEN)


@pytest.mark.parametrize("subnet", ["192.168.7.0/24", "192.168.0.0/16", "172.20.0.0/29"])
def test_a_network_over_the_nodes_own_addresses(subnet: str) -> None:
    node = Node(
        NodeId("n"),
        NodeSpec(Role.WORKER),
        NodeDescription("w1"),
        address="192.168.7.9",
        data_address="172.20.0.3",
    )
    nodes = apply(TAKEN, [PutNode(node)], 2)
    with pytest.raises(Conflict, match="contains the address of node w1"):
        validate_network(spec(subnet), nodes)


def service(*ports: PortSpec) -> ServiceSpec:
    return ServiceSpec("web", TaskSpec("x"), ports=ports)


def port(number: int, protocol: str = "tcp", mode: PublishMode = PublishMode.INGRESS) -> PortSpec:
    return PortSpec(protocol, 80, number, mode)


HOLDER = apply(
    Snapshot(),
    [
        PutService(
            Service(ServiceId("w"), service(port(80), port(81, mode=PublishMode.HOST), port(0)))
        )
    ],
    1,
)
OTHER = ServiceId("o")


def test_ports_that_are_free() -> None:
    check_ports(service(port(80, "udp"), port(82), port(0), port(0)), HOLDER, OTHER)
    check_ports(service(port(80)), HOLDER, ServiceId("w"))
    check_ports(service(port(81, mode=PublishMode.HOST)), HOLDER, OTHER)


def test_ports_that_are_taken() -> None:
    taken = r"port '80' is already in use by service 'web' \(w\) as an ingress port"
    with pytest.raises(FailedPrecondition, match=taken):
        check_ports(service(port(80)), HOLDER, OTHER)
    with pytest.raises(FailedPrecondition, match=taken):
        check_ports(service(port(80, mode=PublishMode.HOST)), HOLDER, OTHER)
    with pytest.raises(FailedPrecondition, match="as a host-published port"):
        check_ports(service(port(81)), HOLDER, OTHER)


def test_a_port_given_twice() -> None:
    with pytest.raises(Invalid, match="published port 90/tcp is given twice"):
        check_ports(service(port(90), port(90, mode=PublishMode.HOST)), HOLDER, OTHER)


@pytest.mark.parametrize("mode", PublishMode)
@pytest.mark.parametrize(
    ("number", "protocol"),
    [(4789, "udp"), (7947, "udp"), (7947, "tcp"), (2378, "tcp"), (7946, "udp")],
)
def test_a_port_that_the_nodes_need(number: int, protocol: str, mode: PublishMode) -> None:
    manager = Node(
        NodeId("m"),
        NodeSpec(Role.MANAGER),
        NodeDescription("m1"),
        index=1,
        gossip_port=7947,
        manager_address="192.168.7.9:2378",
    )
    worker = Node(NodeId("w"), NodeSpec(Role.WORKER), NodeDescription("w1"), index=2)
    nodes = apply(HOLDER, [PutNode(manager), PutNode(worker)], 2)
    taken = rf"port '{number}' \({protocol}\) is already in use by the nodes of the cluster"
    with pytest.raises(FailedPrecondition, match=taken):
        check_ports(service(port(number, protocol, mode)), nodes, OTHER)
    other = "tcp" if protocol == "udp" else "udp"
    if number not in (7946, 7947):
        check_ports(service(port(number, other, mode)), nodes, OTHER)


def test_the_tunnels_port_is_the_clusters() -> None:
    cluster = Cluster(
        ClusterId("c"), ClusterSpec(), b"", b"", JoinTokens("", ""), (), data_path_port=5000
    )
    snapshot = apply(HOLDER, [PutCluster(cluster)], 2)
    check_ports(service(port(4789, "udp")), snapshot, OTHER)
    with pytest.raises(FailedPrecondition, match="by the nodes of the cluster"):
        check_ports(service(port(5000, "udp")), snapshot, OTHER)


def test_a_port_through_an_ingress_network_that_is_not_there() -> None:
    check_ingress(service(port(80, mode=PublishMode.HOST)), TAKEN)
    with pytest.raises(FailedPrecondition, match="no ingress network is present"):
        check_ingress(service(port(80)), TAKEN)
    ingress = Network(NetworkId("i"), NetworkSpec("ingress", ingress=True))
    check_ingress(service(port(80)), apply(TAKEN, [PutNetwork(ingress)], 2))
