"""What reaches whom, with what client address, and how evenly."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from dataplane.addressing import endpoint_mac
from dataplane.kernel import netns
from dataplane.plan import Interface, Network, NodePlan, Protocol, VirtualService
from tests.netns.lab import Lab, connection, count, lab, ping, tcp_ask, udp_count
from tests.netns.world import PUBLISHED, TCP_PORT, UDP_PORT, VIP, Replica, World, underlay

WEB = (Replica("a", 1, 11), Replica("b", 2, 12), Replica("c", 3, 13))
OTHER = Replica("other", 1, 21)
WORLD = World(3, (*WEB, OTHER), WEB)
EVEN = {"a": 30, "b": 30, "c": 30}
LOCALHOST = IPv4Address("127.0.0.1")


async def test_sandboxes_of_a_network_reach_each_other_across_nodes(three: Lab) -> None:
    await three.apply(WORLD)
    await three.serve(*WEB, OTHER)

    for here in (*WEB, OTHER):
        for there in (*WEB, OTHER):
            await ping(three.sandbox(here), there.address)
            answer = await tcp_ask(three.sandbox(here), there.address, TCP_PORT)
            assert answer == (there.name, str(here.address))


async def test_virtual_address_balances_exactly_and_keeps_the_client(three: Lab) -> None:
    await three.apply(WORLD)
    await three.serve(*WEB)
    place = three.sandbox(OTHER)

    assert await count(tcp_ask, place, VIP, TCP_PORT, 90) == (EVEN, {str(OTHER.address)})
    assert await udp_count(place, VIP, UDP_PORT, 90) == (EVEN, {str(OTHER.address)})
    # A service may reach itself by its own address.
    hairpin = await count(tcp_ask, three.sandbox(WEB[0]), VIP, TCP_PORT, 9)
    assert hairpin == ({"a": 3, "b": 3, "c": 3}, {str(WEB[0].address)})


async def test_every_node_is_an_entry_and_the_client_address_arrives(three: Lab) -> None:
    await three.apply(WORLD)
    await three.serve(*WEB)

    for node in three.nodes:
        entry, client = underlay(node), {"198.18.0.100"}
        assert await count(tcp_ask, three.client, entry, PUBLISHED, 90) == (EVEN, client)
        assert await udp_count(three.client, entry, PUBLISHED, 90) == (EVEN, client)


async def test_nodes_and_sandboxes_are_clients_of_published_ports_too(three: Lab) -> None:
    await three.apply(WORLD)
    await three.serve(*WEB)

    for node in three.nodes.values():
        for address in (LOCALHOST, *map(underlay, three.nodes)):
            answers, _ = await count(tcp_ask, node.namespace, address, PUBLISHED, 3)
            assert answers == {"a": 1, "b": 1, "c": 1}, address
    for replica in (*WEB, OTHER):
        for entry in map(underlay, three.nodes):
            answers, _ = await count(tcp_ask, three.sandbox(replica), entry, PUBLISHED, 3)
            assert answers == {"a": 1, "b": 1, "c": 1}, (replica, entry)


async def test_one_client_port_through_two_entries_to_one_backend(three: Lab) -> None:
    await three.apply(replace(WORLD, backends=WEB[1:2]))
    await three.serve(*WEB)
    clients: list[socket.socket] = []

    for _ in range(2):
        client = netns.open_socket_in(three.client, socket.AF_INET, socket.SOCK_STREAM)
        clients.append(client)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind(("198.18.0.100", 45678))
        client.setblocking(False)
    answers = [await _hello(client, node) for client, node in zip(clients, (1, 3), strict=True)]

    assert answers == ["b 198.18.0.100\n"] * 2


async def _hello(client: socket.socket, node: int) -> str:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(3):
        await loop.sock_connect(client, (str(underlay(node)), PUBLISHED))
        text = (await loop.sock_recv(client, 100)).decode()
    client.close()
    return text


async def test_service_without_backends_refuses_at_once(three: Lab) -> None:
    await three.apply(replace(WORLD, backends=()))
    place = three.sandbox(OTHER)

    for entry, port in ((VIP, TCP_PORT), (underlay(2), PUBLISHED)):
        with pytest.raises(ConnectionRefusedError):
            await tcp_ask(place, entry, port)
        with pytest.raises(ConnectionRefusedError):
            await udp_count(place, entry, port, 1)
    for entry in map(underlay, three.nodes):
        with pytest.raises(ConnectionRefusedError):
            await tcp_ask(three.client, entry, PUBLISHED)
        with pytest.raises(ConnectionRefusedError):
            await udp_count(three.client, entry, PUBLISHED, 1)


async def test_replica_that_does_not_listen_refuses(three: Lab) -> None:
    closed = ((Protocol.TCP, PUBLISHED, 1), (Protocol.UDP, PUBLISHED, 1))
    await three.apply(replace(WORLD, ports=closed))

    for entry in map(underlay, three.nodes):
        for _ in WEB:
            with pytest.raises(ConnectionRefusedError):
                await tcp_ask(three.client, entry, PUBLISHED)
        with pytest.raises(ConnectionRefusedError):
            await udp_count(three.client, entry, PUBLISHED, 1)


async def test_a_connection_that_a_replica_does_not_answer_is_tried_with_another(
    three: Lab,
) -> None:
    await three.apply(WORLD)
    await three.serve(*WEB)
    mute = "table ip mute {\nchain input {\ntype filter hook input priority 0; policy drop;\n}\n}\n"
    command = ["nft", mute]
    netns.run_in_namespace(
        three.sandbox(WEB[1]), lambda: subprocess.run(command, check=True)
    )  # "b" keeps its place in the rotation, as one that hangs or is just cut off
    for entry in three.nodes:
        answers = await asyncio.gather(*(_patient_hello(three.client, entry) for _ in WEB))
        assert {answer.split()[0] for answer in answers} == {"a", "c"}, entry


async def _patient_hello(place: Path, node: int) -> str:
    client = netns.open_socket_in(place, socket.AF_INET, socket.SOCK_STREAM)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    with client:
        async with asyncio.timeout(20):  # two repetitions of a SYN, or three, take 3 or 7 s
            await loop.sock_connect(client, (str(underlay(node)), PUBLISHED))
            return (await loop.sock_recv(client, 100)).decode()


async def test_sandbox_on_two_networks_uses_the_services_of_both(three: Lab) -> None:
    both = second_network(WORLD, OTHER)
    await three.apply(WORLD)
    await three.nodes[1].apply(both)
    await three.serve(*WEB)
    place = three.sandbox(OTHER)

    # The uplink moved from eth1 to eth2 while the sandbox ran.
    for address, port in ((VIP, TCP_PORT), (SECOND_VIP, TCP_PORT), (underlay(2), PUBLISHED)):
        answers, _ = await count(tcp_ask, place, address, port, 6)
        assert answers == ({"a": 6} if address == SECOND_VIP else {"a": 2, "b": 2, "c": 2})
    await three.apply(WORLD)
    assert (await count(tcp_ask, place, VIP, TCP_PORT, 3))[0] == {"a": 1, "b": 1, "c": 1}
    assert (await count(tcp_ask, place, underlay(2), PUBLISHED, 3))[0] == {"a": 1, "b": 1, "c": 1}


SECOND_VIP = IPv4Address("198.19.1.200")


def second_network(world: World, *members: Replica) -> NodePlan:
    """Return node 1's plan with `members` and replica a in a network of their own, too."""
    plan = world.plan(1)
    subnet = IPv4Network("198.19.1.0/24")
    backend = subnet.network_address + WEB[0].number
    green = Network(
        id="green",
        name="green",
        vni=5002,
        subnet=subnet,
        gateway=subnet.network_address + 1,
        services=(VirtualService(SECOND_VIP, (backend,)),),
        mtu=1400,
    )
    numbers = {replica.name: replica.number for replica in (*members, WEB[0])}
    addresses = {name: subnet.network_address + number for name, number in numbers.items()}
    return replace(
        plan,
        networks=(*plan.networks, green),
        sandboxes=tuple(
            replace(
                sandbox,
                interfaces=(
                    *sandbox.interfaces,
                    Interface("green", addresses[sandbox.id], endpoint_mac(addresses[sandbox.id])),
                ),
            )
            for sandbox in plan.sandboxes
        ),
    )


async def test_gateway_addresses_are_no_network_between_sandboxes(three: Lab) -> None:
    await three.apply(WORLD)
    await three.serve(*WEB)
    neighbour = Replica("neighbour", 1, 22)
    await three.apply(replace(WORLD, replicas=(*WORLD.replicas, neighbour)))
    await three.serve(neighbour)

    for there in (neighbour, WEB[1]):
        with pytest.raises(TimeoutError):
            await ping(three.sandbox(OTHER), there.gateway_address, timeout_s=0.5)


async def test_sandboxes_reach_the_outside_under_the_nodes_address(three: Lab) -> None:
    await three.apply(WORLD)
    with netns.open_socket_in(three.client, socket.AF_INET, socket.SOCK_STREAM) as outside:
        outside.bind(("198.18.0.100", 7000))
        outside.listen()
        async with connection(three.sandbox(WEB[1]), underlay(100), 7000):
            accepted, (host, _) = outside.accept()
            accepted.close()

    assert host == "198.18.0.2"


async def test_large_transfers_pass_through_overlay_and_ingress(three: Lab) -> None:
    await three.apply(replace(WORLD, backends=WEB[1:2]))
    await three.serve(*WEB)
    line = b"x" * 60_000 + b"\n"

    for place, address, port in (
        (three.sandbox(OTHER), VIP, TCP_PORT),
        (three.client, underlay(1), PUBLISHED),
    ):
        async with connection(place, address, port) as (reader, writer):
            await reader.readline()
            writer.write(line)
            assert await reader.readexactly(len(line)) == line


async def test_connections_to_published_ports_have_the_time_outs_of_the_node(
    tmp_path: Path,
) -> None:
    async with lab(tmp_path) as made:
        place = made.nodes[1].namespace
        tuned = "net/netfilter/nf_conntrack_tcp_timeout_established"
        netns.run_in_namespace(place, lambda: netns.write_sysctl(tuned, "600"))
        await made.apply(WORLD)
        await made.serve(*WEB)
        async with connection(made.client, underlay(1), PUBLISHED) as (reader, _):
            await reader.readline()
            tracked = Path("/proc/thread-self/net/nf_conntrack")
            table = netns.run_in_namespace(place, tracked.read_text)
    (entry,) = [line for line in table.splitlines() if f"dport={PUBLISHED} " in line]
    assert "ESTABLISHED" in entry
    assert 590 <= int(entry.split()[4]) <= 600


async def test_ingress_with_what_every_kernel_has(tmp_path: Path) -> None:
    async with lab(tmp_path, options=("bare-kernel",)) as made:
        await made.apply(WORLD)
        await made.serve(*WEB)
        for node in made.nodes:
            answers = await count(tcp_ask, made.client, underlay(node), PUBLISHED, 30)
            assert answers == ({"a": 10, "b": 10, "c": 10}, {"198.18.0.100"})
        await made.apply(replace(WORLD, nodes=2, replicas=WEB[:2], backends=WEB[:2]))
        answers = await count(tcp_ask, made.client, underlay(1), PUBLISHED, 30)
        assert answers == ({"a": 15, "b": 15}, {"198.18.0.100"})
