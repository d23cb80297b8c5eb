"""What a change of the plan, or the end of a driver, does to connections; and what is left."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from dataplane.kernel import inventory, netns, resolver
from dataplane.kernel import rtnetlink as rt
from dataplane.kernel.channel import NETLINK_NETFILTER, Channel
from dataplane.kernel.names import ROUTE_TABLE, TABLE
from dataplane.kernel.nft import TARGETS_MAX
from dataplane.kernel.nftables import LibraryNft
from dataplane.plan import NodePlan, VirtualService
from tests.netns.lab import Lab, connection, count, lab, load, tcp_ask, udp_client, udp_say
from tests.netns.wire import encode_plan
from tests.netns.world import PUBLISHED, TCP_PORT, UDP_PORT, VIP, Replica, World, underlay

WEB = (Replica("a", 1, 11), Replica("b", 2, 12), Replica("c", 3, 13))
OTHER = Replica("other", 1, 21)
HERE = (Replica("a", 1, 11), Replica("f", 1, 12))
MORE = (Replica("d", 2, 14), Replica("e", 3, 15))
WORLD = World(3, (*WEB, OTHER), WEB)
WITHOUT_B = replace(WORLD, replicas=(WEB[0], WEB[2], OTHER), backends=(WEB[0], WEB[2]))
CONNECTIONS = 100
"""How many new connections pass before the next change under load."""


async def test_equal_plan_costs_no_operation(three: Lab) -> None:
    first = await three.apply(WORLD)
    second = await three.apply(WORLD)

    assert min(first.values()) > 0
    assert set(second.values()) == {0}


async def test_new_driver_finds_nothing_to_do_after_a_kill_under_load(three: Lab) -> None:
    await three.apply(WORLD)
    await three.serve(*WEB)
    async with (
        load(three.client, underlay(1), PUBLISHED) as outside,
        load(three.sandbox(OTHER), VIP, TCP_PORT) as inside,
    ):
        for node in three.nodes.values():
            await node.kill()
        await outside.wait_until_answers(CONNECTIONS)
        for node in three.nodes.values():
            await node.start()
        operations = await three.apply(WORLD)
        await outside.wait_until_answers(CONNECTIONS)
        await inside.wait_until_answers(CONNECTIONS)

    assert set(operations.values()) == {0}
    assert outside.errors == inside.errors == []


async def test_new_driver_catches_up_with_what_it_missed(three: Lab) -> None:
    grown = replace(WORLD, replicas=(*WORLD.replicas, *MORE), backends=(*WEB, *MORE))
    await three.apply(grown)
    await three.serve(*WEB)
    async with load(three.sandbox(OTHER), WEB[2].address, TCP_PORT) as steady:
        for node in three.nodes.values():
            await node.kill()
            await node.start()
        await three.apply(WORLD)
        await steady.wait_until_answers(10)
    answers, _ = await count(tcp_ask, three.client, underlay(2), PUBLISHED, 9)

    assert steady.errors == []
    assert answers == {"a": 3, "b": 3, "c": 3}
    assert set((await three.apply(WORLD)).values()) == {0}


async def test_scaling_under_load_fails_no_connection(three: Lab) -> None:
    await three.apply(WORLD)
    await three.serve(*WEB)
    with_more = replace(WORLD, replicas=(*WORLD.replicas, *MORE))
    async with (
        load(three.client, underlay(1), PUBLISHED) as outside,
        load(three.sandbox(OTHER), VIP, TCP_PORT) as inside,
    ):
        for _ in range(2):
            await three.apply(with_more)
            await three.serve(*MORE)
            await three.apply(replace(with_more, backends=(*WEB, *MORE)))
            await outside.wait_until_answers(CONNECTIONS)
            await inside.wait_until_answers(CONNECTIONS)
            # Draining: out of every balancer first, gone when nobody uses it any more.
            await three.apply(with_more)
            await outside.wait_until_answers(CONNECTIONS)
            three.stop(*(replica.name for replica in MORE))
            await three.apply(WORLD)

    assert {"d", "e"} <= outside.answers.keys()
    assert {"d", "e"} <= inside.answers.keys()
    assert outside.errors == inside.errors == []


async def test_established_connections_survive_while_a_backend_drains(three: Lab) -> None:
    await three.apply(replace(WORLD, backends=WEB[1:2]))
    await three.serve(*WEB)
    async with (
        connection(three.sandbox(OTHER), VIP, TCP_PORT) as (inside, to_inside),
        connection(three.client, underlay(3), PUBLISHED) as (outside, to_outside),
    ):
        await inside.readline()
        await outside.readline()
        await three.apply(replace(WORLD, backends=(WEB[0], WEB[2])))
        for reader, writer in ((inside, to_inside), (outside, to_outside)):
            writer.write(b"still there?\n")
            assert await asyncio.wait_for(reader.readline(), 3) == b"still there?\n"
        answers, _ = await count(tcp_ask, three.sandbox(OTHER), VIP, TCP_PORT, 6)

    assert answers == {"a": 3, "c": 3}


@pytest.mark.parametrize("entry", [1, 2, 3])
async def test_connections_to_a_backend_that_is_gone_are_reset(three: Lab, entry: int) -> None:
    await three.apply(replace(WORLD, backends=WEB[1:2]))
    await three.serve(*WEB)
    async with (
        connection(three.sandbox(OTHER), VIP, TCP_PORT) as (inside, to_inside),
        connection(three.client, underlay(entry), PUBLISHED) as (outside, to_outside),
    ):
        await inside.readline()
        await outside.readline()
        await three.apply(WITHOUT_B)
        for reader, writer in ((inside, to_inside), (outside, to_outside)):
            writer.write(b"still there?\n")
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(reader.readline(), 3)


async def test_connections_through_a_node_that_is_gone_are_reset(three: Lab) -> None:
    await three.apply(replace(WORLD, backends=WEB[1:2]))
    await three.serve(*WEB)
    async with connection(three.client, underlay(1), PUBLISHED) as (reader, writer):
        await reader.readline()
        world = replace(WITHOUT_B, nodes=3)
        plan = world.plan(1)
        peers = tuple(peer for peer in plan.peers if peer.index != WEB[1].node)
        await three.nodes[1].apply(replace(plan, peers=peers))
        writer.write(b"still there?\n")
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.readline(), 3)


async def test_datagram_flows_move_to_another_backend(three: Lab) -> None:
    await three.apply(replace(WORLD, backends=WEB[1:2]))
    await three.serve(*WEB)
    with (
        udp_client(three.sandbox(OTHER), VIP, UDP_PORT) as inside,
        udp_client(three.client, underlay(1), PUBLISHED) as outside,
    ):
        before = [(await udp_say(client))[0] for client in (inside, outside) for _ in range(2)]
        await three.apply(replace(WORLD, backends=WEB[2:]))
        after = [(await udp_say(client))[0] for client in (inside, outside) for _ in range(2)]

    assert before == ["b"] * 4
    assert after == ["c"] * 4


async def test_datagram_flows_from_before_a_repair_move_too(three: Lab) -> None:
    world = replace(WORLD, backends=WEB[1:2])
    await three.apply(world)
    await three.serve(*WEB)
    node, place = three.nodes[1], three.sandbox(OTHER)
    with (
        udp_client(place, VIP, UDP_PORT) as inside,
        udp_client(three.client, underlay(1), PUBLISHED) as outside,
    ):
        assert [(await udp_say(client))[0] for client in (inside, outside)] == ["b", "b"]
        for flushed in (place, node.namespace):
            netns.run_in_namespace(flushed, lambda: LibraryNft().run("flush ruleset"))
        await node.ask(b"distrust\n")
        await node.apply(world.plan(1))
        await three.apply(replace(WORLD, backends=WEB[2:]))
        assert [(await udp_say(client))[0] for client in (inside, outside)] == ["c", "c"]


async def test_no_flow_is_looked_for_where_no_datagram_was_balanced(three: Lab) -> None:
    """Each look is one at all connections of the machine."""
    await three.apply(replace(WORLD, backends=WEB[1:2]))
    await three.serve(*WEB)
    place = three.sandbox(OTHER)
    netns.run_in_namespace(place, lambda: resolver.lead("127.0.0.11", 53, 5353))
    with udp_client(place, IPv4Address("127.0.0.11"), 53) as name_asked:
        name_asked.send(b"?")
    await tcp_ask(place, VIP, TCP_PORT)
    await tcp_ask(three.client, underlay(1), PUBLISHED)
    plan = replace(WORLD, backends=WEB[2:]).plan(1)
    assert (await three.nodes[1].ask(encode_plan(plan))).forgotten == 0

    with udp_client(place, VIP, UDP_PORT) as inside:
        await udp_say(inside)
    plan = replace(WORLD, backends=WEB[:1]).plan(1)
    assert (await three.nodes[1].ask(encode_plan(plan))).forgotten == 1


async def test_endpoint_that_moved_to_another_node_is_followed(three: Lab) -> None:
    await three.apply(WORLD)
    await three.serve(*WEB)
    place = three.sandbox(OTHER)
    assert await tcp_ask(place, WEB[1].address, TCP_PORT) == ("b", str(OTHER.address))

    for node in (3, 1):
        moved = Replica(f"b-on-{node}", node, WEB[1].number)
        await three.apply(replace(WORLD, replicas=(WEB[0], moved, WEB[2], OTHER)))
        await three.serve(moved)
        answer = await tcp_ask(place, WEB[1].address, TCP_PORT)
        assert answer == (moved.name, str(OTHER.address))


async def test_distrusted_kernel_is_repaired(three: Lab) -> None:
    await three.apply(WORLD)
    await three.serve(*WEB)
    node = three.nodes[1]
    nft = LibraryNft()

    def remove(name: str) -> Callable[[], None]:
        def body() -> None:
            with Channel() as channel:
                channel.request(rt.remove_link(name))

        return body

    damages: list[tuple[Path, Callable[[], None]]] = [
        (node.namespace, lambda: nft.run("flush ruleset")),
        (node.namespace, remove("vx-ing")),
        (node.namespace, remove("hw-gw")),
        (node.directory / "netns" / "n-blue", remove("vx0")),
        (three.sandbox(OTHER), remove("eth0")),
        (three.sandbox(OTHER), remove("eth1")),
        (three.sandbox(OTHER), lambda: nft.run("flush ruleset")),
    ]
    for place, damage in damages:
        netns.run_in_namespace(place, damage)
        await node.ask(b"distrust\n")
        assert await node.apply(WORLD.plan(1)) > 0
        assert await node.apply(WORLD.plan(1)) == 0
        for client, address, port in (
            (three.client, underlay(1), PUBLISHED),
            (three.sandbox(OTHER), VIP, TCP_PORT),
        ):
            answers, _ = await count(tcp_ask, client, address, port, 6)
            assert answers == {"a": 2, "b": 2, "c": 2}


async def test_rules_flushed_by_others_are_repaired_by_the_next_change(three: Lab) -> None:
    await three.apply(WORLD)
    await three.serve(*WEB)
    nft = LibraryNft()
    for place in (three.nodes[1].namespace, three.sandbox(OTHER)):
        netns.run_in_namespace(place, lambda: nft.run("flush ruleset"))

    await three.apply(WITHOUT_B)

    for client, address, port in (
        (three.client, underlay(1), PUBLISHED),
        (three.sandbox(OTHER), VIP, TCP_PORT),
    ):
        answers, _ = await count(tcp_ask, client, address, port, 6)
        assert answers == {"a": 3, "c": 3}


async def test_many_services_are_written_in_parts_and_recognised(tmp_path: Path) -> None:
    vips = [IPv4Address("198.19.0.100") + number for number in range(2 * TARGETS_MAX)]

    def plan(backends: tuple[Replica, ...]) -> NodePlan:
        made = World(1, (*HERE, OTHER), HERE).plan(1)
        addresses = tuple(sorted(replica.address for replica in backends))
        services = tuple(VirtualService(vip, addresses) for vip in vips)
        ports = tuple(replace(made.ports[0], port=20_000 + number) for number in range(len(vips)))
        return replace(made, networks=(replace(made.networks[0], services=services),), ports=ports)

    async with lab(tmp_path, nodes=1) as made:
        node = made.nodes[1]
        assert await node.apply(plan(HERE)) > 0
        await made.serve(*HERE)
        for vip in (vips[0], vips[TARGETS_MAX], vips[-1]):
            answers, _ = await count(tcp_ask, made.sandbox(OTHER), vip, TCP_PORT, 4)
            assert answers == {"a": 2, "f": 2}
        answers, _ = await count(tcp_ask, made.client, underlay(1), 20_000 + len(vips) - 1, 4)
        assert answers == {"a": 2, "f": 2}
        await node.kill()
        await node.start()
        assert await node.apply(plan(HERE)) == 0
        assert await node.apply(plan(HERE[:1])) > 0
        answers, _ = await count(tcp_ask, made.sandbox(OTHER), vips[-1], TCP_PORT, 4)
        assert answers == {"a": 4}
        await node.kill()
        await node.start()
        assert await node.apply(plan(HERE[:1])) == 0


async def test_half_made_things_are_completed_or_removed(three: Lab) -> None:
    directory = three.nodes[1].directory / "netns"
    directory.mkdir(parents=True)
    # As a driver leaves them that is killed between two steps.
    (directory / "t-a").touch()
    (directory / "t-stale").touch()
    netns.create_namespace(directory / "t-other")
    netns.create_namespace(directory / "n-blue")
    netns.create_namespace(directory / "n-stale")
    await three.apply(WORLD)
    await three.serve(*WEB)

    answers, _ = await count(tcp_ask, three.sandbox(OTHER), VIP, TCP_PORT, 6)
    assert answers == {"a": 2, "b": 2, "c": 2}
    assert {path.name for path in directory.iterdir()} == {"t-a", "t-other", "n-blue"}


async def test_cluster_that_changes_its_port_and_a_node_its_index(three: Lab) -> None:
    await three.apply(WORLD)
    await three.serve(*WEB)
    world = replace(WORLD, vxlan_port=4790)
    await three.apply(world)
    answers, _ = await count(tcp_ask, three.sandbox(OTHER), VIP, TCP_PORT, 6)
    assert answers == {"a": 2, "b": 2, "c": 2}

    plan = world.plan(1)
    assert plan.underlay is not None
    await three.nodes[1].apply(
        replace(
            plan,
            underlay=replace(plan.underlay, index=7),
            sandboxes=tuple(replace(s, gateway_address=None) for s in plan.sandboxes),
            ports=tuple(replace(port, backends=port.backends[1:]) for port in plan.ports),
        )
    )
    for number in (2, 3):
        plan = world.plan(number)
        peers = tuple(replace(p, index=7) if p.index == 1 else p for p in plan.peers)
        await three.nodes[number].apply(replace(plan, peers=peers))
    answers, clients = await count(tcp_ask, three.client, underlay(1), PUBLISHED, 6)
    assert (answers, clients) == ({"b": 3, "c": 3}, {"198.18.0.100"})
    assert netns.run_in_namespace(three.nodes[1].namespace, _throw_routes) == ["100.64.7.0/24"]


def _throw_routes() -> list[str]:
    with Channel() as channel:
        routes = inventory.read_routes(channel.dump(rt.list_routes()))
    return [
        str(route.destination) for route in routes if route.table == ROUTE_TABLE and not route.index
    ]


async def test_empty_plan_leaves_nothing(three: Lab) -> None:
    await three.apply(WORLD)
    for node in three.nodes.values():
        await node.apply(NodePlan())

        assert list((node.directory / "netns").iterdir()) == []
        assert netns.run_in_namespace(node.namespace, _ours) == []
        assert await node.apply(NodePlan()) == 0


def _ours() -> list[str]:
    """Return what is in a node's namespace besides what the lab put there."""
    with Channel() as channel:
        links = inventory.read_links(channel.dump(rt.list_links()))
        routes = inventory.read_routes(channel.dump(rt.list_routes()))
        rules = inventory.read_rules(channel.dump(rt.list_rules()))
    with Channel(NETLINK_NETFILTER) as channel:
        chains = inventory.read_chains(channel.dump(inventory.list_chains()), TABLE)
    return [
        *(link.name for link in links if link.name not in {"lo", "eth0"}),
        *(str(route) for route in routes if route.table not in {254, 255}),
        *(str(rule) for rule in rules if rule.priority not in {0, 32766, 32767}),
        *map(str, chains),
    ]


async def test_taken_vni_is_named_and_does_not_stop_the_rest(three: Lab) -> None:
    def take() -> None:
        with Channel() as channel:
            channel.request(
                rt.make_vxlan("taken", vni=5001, local=underlay(1), port=4789, mtu=1450)
            )

    node = three.nodes[1]
    netns.run_in_namespace(node.namespace, take)
    with pytest.raises(AssertionError, match=r"network blue.*VNI 5001"):
        await node.apply(WORLD.plan(1))
    await three.nodes[2].apply(WORLD.plan(2))
    await three.serve(WEB[1])
    # Ingress doesn't need the network.
    world = replace(WORLD, backends=WEB[1:2])
    with pytest.raises(AssertionError, match="VNI 5001"):
        await node.apply(world.plan(1))
    assert (await tcp_ask(three.client, underlay(1), PUBLISHED))[0] == "b"

    def give_back() -> None:
        with Channel() as channel:
            channel.request(rt.remove_link("taken"))

    netns.run_in_namespace(node.namespace, give_back)
    await node.apply(world.plan(1))
    assert (await tcp_ask(three.sandbox(OTHER), VIP, TCP_PORT))[0] == "b"


async def test_sandbox_with_a_lingering_process_gives_its_addresses_back(three: Lab) -> None:
    await three.apply(WORLD)
    lingering = netns.open_socket_in(three.sandbox(WEB[1]), socket.AF_INET, socket.SOCK_STREAM)
    heir = Replica("heir", 2, WEB[1].number)
    with lingering:
        heirs = (WEB[0], heir, WEB[2])
        await three.apply(replace(WORLD, replicas=(*heirs, OTHER), backends=heirs))
        await three.serve(*heirs)
        answers, _ = await count(tcp_ask, three.client, underlay(1), PUBLISHED, 6)

    assert answers == {"a": 2, "heir": 2, "c": 2}
