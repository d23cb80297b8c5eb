"""Who is let in at port 2377, and who is believed: over real TLS on loopback."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cluster.ca.certificates import new_request, new_root_ca, read_identity_untrusted
from cluster.ca.files import CertificateDirectory
from cluster.ca.tls import ALPN_RAFT, pinning_context
from cluster.ca.tokens import TOKEN_LENGTH
from cluster.dispatch.calls import NotThatManager, call, http_session
from cluster.dispatch.channel import Channel, ChannelClosed, CloseCode
from cluster.dispatch.join import join
from cluster.dispatch.messages import ManagerAddress, Registration
from cluster.dispatch.requests import JOIN_PATH, LogQuery, RenewRequest, SightingReport
from cluster.model.errors import Conflict, Forbidden, Invalid, Unavailable
from cluster.model.ids import ClusterId, NodeId
from cluster.model.logs import LogOptions
from cluster.model.node import Availability, NodeDescription, Role
from cluster.state.changes import DeleteNode, PutCluster, PutNode
from tests.unit.dispatch.control_plane import (
    REGISTRATION,
    Certified,
    Manager,
    World,
    join_with,
    listening,
    running,
    running_managers,
    wait_until,
)


def real_clock() -> float:
    return datetime.now(UTC).timestamp()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "ours", real_clock)


@pytest.fixture
async def manager(world: World) -> AsyncGenerator[Manager]:
    async with running(Manager(world)) as manager:
        yield manager


async def open_session(certified: Certified, manager: ManagerAddress) -> Channel:
    async with certified.peers() as peers:
        channel = await peers.open_session(manager)
        await channel.close(CloseCode.NORMAL, "")
        return channel


async def first_word(certified: Certified, manager: ManagerAddress) -> CloseCode:
    """Return why a manager ends a session before anything was said in it."""
    async with certified.peers() as peers:
        channel = await peers.open_session(manager)
        with pytest.raises(ChannelClosed) as told:
            await channel.receive()
        await channel.close(CloseCode.NORMAL, "")
        return CloseCode(told.value.code or 0)


# Joining.


@pytest.mark.parametrize("role", Role)
async def test_a_token_lets_in_with_its_role(world: World, manager: Manager, role: Role) -> None:
    tokens = world.cluster.join_tokens
    token = tokens.manager if role is Role.MANAGER else tokens.worker
    joined = await join_with(world, [manager.address], f" {token}\n")
    assert joined.identity.role is role
    assert joined.identity.cluster == world.cluster.id
    assert joined.response.managers[0] == manager.at
    node = world.snapshot().nodes[joined.identity.node]
    assert node.spec.role is role
    assert node.index == 2
    assert node.description == REGISTRATION.description
    assert (node.address, node.data_address) == ("127.0.0.1", "127.0.0.1")
    assert node.manager_address == ("127.0.0.1:2377" if role is Role.MANAGER else "")
    directory = CertificateDirectory(world.state / "joined")
    directory.save(joined.credentials)
    await open_session(Certified(world, joined.identity.node, directory), manager.at)


async def test_what_a_joiner_says_of_itself_is_kept(world: World, manager: Manager) -> None:
    registration = Registration(
        NodeDescription(hostname="far", engine_labels={"zone": "b"}),
        address="192.0.2.7",
        gossip_port=17946,
        data_address="198.51.100.7",
        control_port=12377,
    )
    joined = await join(
        [manager.address],
        world.cluster.join_tokens.manager,
        new_request(),
        registration,
        availability=Availability.DRAIN,
        clock=real_clock,
    )
    node = world.snapshot().nodes[joined.identity.node]
    assert node.address == joined.response.address == "192.0.2.7"
    assert node.manager_address == "192.0.2.7:12377"
    assert (node.data_address, node.gossip_port) == ("198.51.100.7", 17946)
    assert node.spec.availability is Availability.DRAIN


async def test_joining_again_with_the_same_key_is_the_same_node(
    world: World, manager: Manager
) -> None:
    request, tokens = new_request(), world.cluster.join_tokens

    async def attempt(token: str) -> NodeId:
        joined = await join([manager.address], token, request, REGISTRATION, clock=real_clock)
        return joined.identity.node

    first = await attempt(tokens.worker)
    assert await attempt(tokens.worker) == first
    assert len(world.snapshot().nodes) == 2
    with pytest.raises(Conflict, match="has joined already, as worker"):
        await attempt(tokens.manager)


async def test_many_join_at_once_through_several_managers(world: World) -> None:
    async with running_managers(world, 3) as managers:
        addresses = [m.address for m in managers]
        async with asyncio.TaskGroup() as group:
            for n in range(12):
                at = addresses[n % 3 :] + addresses[: n % 3]
                group.create_task(join_with(world, at, world.cluster.join_tokens.worker))
    nodes = world.snapshot().nodes.values()
    assert len(nodes) == 15
    assert len({n.index for n in nodes}) == 15


async def test_wrong_tokens_get_clear_words(world: World, manager: Manager, tmp_path: Path) -> None:
    token = world.cluster.join_tokens.worker
    other = World(tmp_path / "other", real_clock, seed=9).cluster.join_tokens.worker
    wrong_secret = token[:-25] + "1" * 25
    cases = {
        token[:-3]: f"invalid join token: it is cut short, {TOKEN_LENGTH - 3} of {TOKEN_LENGTH}",
        "docker": "invalid join token: it does not begin with SWMTKN-1-",
        wrong_secret: "^A valid join token is necessary to join this cluster$",
        other: "^remote CA does not match fingerprint. Expected: [0-9a-f]{64}, got: .*another",
    }
    for wrong, words in cases.items():
        with pytest.raises(Invalid, match=words) as caught:
            await join_with(world, [manager.address], wrong)
        assert wrong[-25:] not in str(caught.value) or wrong == "docker"
    assert len(world.snapshot().nodes) == 1


async def test_someone_in_between_is_noticed_before_the_token_is_shown(
    world: World, tmp_path: Path
) -> None:
    impostor = World(tmp_path / "impostor", real_clock, seed=5)
    async with running(Manager(impostor)) as between:
        with pytest.raises(Invalid, match="remote CA does not match fingerprint"):
            await join_with(world, [between.address], world.cluster.join_tokens.worker)
    # This one hands out our CA certificate (it is public) but has no key for it.
    impostor = World(tmp_path / "impostor2", real_clock, seed=6)
    async with running(Manager(impostor)) as between:
        stolen = replace(impostor.cluster, ca_certificate=world.cluster.ca_certificate)
        await impostor.propose(PutCluster(stolen))
        with pytest.raises(Invalid, match="is not who was called: its certificate is wrong"):
            await join_with(world, [between.address], world.cluster.join_tokens.worker)
        assert len(impostor.snapshot().nodes) == 1


async def test_a_worker_cannot_pose_as_a_manager(world: World) -> None:
    """It has a certificate of the right CA, and a token shown to it would be stolen."""
    posing = Manager(world)
    posing.certified = world.certify(Role.WORKER)
    posing.contexts = posing.certified.contexts()
    async with running(posing):
        with pytest.raises(Invalid, match=r"is not who was called: node \w+ is not a manager"):
            await join_with(world, [posing.address], world.cluster.join_tokens.worker)
        with pytest.raises(NotThatManager, match="is not a manager"):
            await open_session(world.certify(Role.WORKER), posing.at)


async def test_the_next_address_is_tried(world: World, manager: Manager) -> None:
    token = world.cluster.join_tokens.worker
    joined = await join_with(world, ["127.0.0.1:1", manager.address], token)
    assert joined.identity.node in world.snapshot().nodes
    with pytest.raises(Unavailable, match=r"the manager at 127\.0\.0\.1:1 cannot be reached"):
        await join_with(world, ["127.0.0.1:1"], token)


async def test_malformed_joins_are_refused(world: World, manager: Manager) -> None:
    async with http_session() as session:
        with pytest.raises(Invalid, match="malformed request: JoinRequest"):
            await call(
                session,
                manager.address,
                JOIN_PATH,
                context=pinning_context(),
                body=RenewRequest(b"x"),
            )
        with pytest.raises(Invalid, match="at most 65536 bytes"):
            await call(
                session,
                manager.address,
                JOIN_PATH,
                context=pinning_context(),
                body=RenewRequest(b"x" * 70_000),
            )
    bad = replace(REGISTRATION, address="not an address")
    with pytest.raises(Invalid, match="does not appear to be an IPv4 or IPv6 address"):
        await join_with(world, [manager.address], world.cluster.join_tokens.worker, bad)


# Sessions.


async def test_a_member_may_have_a_session(world: World, manager: Manager) -> None:
    for role in Role:
        certified = world.certify(role)
        await world.add_node(certified, role)
        await open_session(certified, manager.at)


async def test_no_certificate_no_session(manager: Manager) -> None:
    async with http_session() as session:
        for path in ("/v1/session", "/v1/logs"):
            with pytest.raises(Forbidden, match="a certificate of this cluster is needed"):
                await call(session, manager.address, path, context=pinning_context())
        for path in ("/v1/renew", "/v1/raft/join", "/v1/sightings"):
            with pytest.raises(Forbidden, match="a certificate of this cluster is needed"):
                await call(
                    session,
                    manager.address,
                    path,
                    context=pinning_context(),
                    body=RenewRequest(b""),
                )


async def test_a_foreign_ca_is_not_believed(world: World, manager: Manager) -> None:
    foreign = world.certify(Role.MANAGER, root=new_root_ca(real_clock()), node=manager.node)
    with pytest.raises(Unavailable, match="does not accept this node's certificate"):
        await open_session(foreign, manager.at)


async def test_another_clusters_certificate_is_not_believed(world: World, manager: Manager) -> None:
    """Even one that our own CA has signed."""
    other = world.certify(Role.MANAGER, cluster=ClusterId("o" * 25), node=manager.node)
    with pytest.raises(Forbidden, match="is of cluster ooooo"):
        await open_session(other, manager.at)
    posing = Manager(world)
    posing.certified, posing.contexts = other, other.contexts()
    async with listening(posing):
        at = ManagerAddress(other.node, posing.address)
        with pytest.raises(NotThatManager, match="is of another cluster"):
            await open_session(world.certify(Role.WORKER), at)


async def test_a_removed_node_is_refused_and_its_session_ended(
    world: World, manager: Manager
) -> None:
    certified = world.certify(Role.WORKER)
    assert await first_word(certified, manager.at) is CloseCode.REMOVED
    await world.add_node(certified, Role.WORKER)
    await open_session(certified, manager.at)
    await world.propose(DeleteNode(certified.node))
    assert await first_word(certified, manager.at) is CloseCode.REMOVED


async def test_another_manager_than_the_one_called_is_not_believed(world: World) -> None:
    worker = world.certify(Role.WORKER)
    async with running_managers(world, 2) as (first, second):
        await world.add_node(worker, Role.WORKER)
        mixed_up = ManagerAddress(first.node, second.address)
        with pytest.raises(NotThatManager, match=r"its certificate is wrong .*Hostname mismatch"):
            await open_session(worker, mixed_up)


# Expired certificates.


async def test_an_expired_certificate_only_renews(world: World, manager: Manager) -> None:
    expired = world.certify(Role.WORKER, now=real_clock() - 10 * 86400)
    await world.add_node(expired, Role.WORKER)
    with pytest.raises(Forbidden, match="expired on"):
        await open_session(expired, manager.at)
    async with expired.peers() as peers:
        renewed = await peers.renew([manager.at], new_request().csr)
    identity = read_identity_untrusted(renewed)
    assert identity.node == expired.node
    assert identity.not_after > real_clock()


async def test_too_long_expired_or_removed_does_not_even_renew(
    world: World, manager: Manager
) -> None:
    ancient = world.certify(Role.WORKER, now=real_clock() - 3 * 365 * 86400)
    await world.add_node(ancient, Role.WORKER)
    stranger = world.certify(Role.WORKER, now=real_clock() - 10 * 86400)
    for certified, words in ((ancient, "expired on"), (stranger, "is not a member")):
        async with certified.peers() as peers:
            with pytest.raises(Forbidden, match=words):
                await peers.renew([manager.at], new_request().csr)


async def test_a_manager_from_the_future_is_not_believed(world: World) -> None:
    ahead = Manager(world)
    ahead.certified = world.certify(Role.MANAGER, now=real_clock() + 10 * 86400)
    ahead.contexts = ahead.certified.contexts()
    async with running(ahead):
        with pytest.raises(NotThatManager, match="not yet valid; is a clock wrong"):
            await open_session(world.certify(Role.WORKER), ahead.at)


async def test_an_expired_manager_is_not_believed(world: World) -> None:
    old = Manager(world)
    old.certified = world.certify(Role.MANAGER, now=real_clock() - 10 * 86400)
    old.contexts = old.certified.contexts()
    worker = world.certify(Role.WORKER)
    async with running(old):
        with pytest.raises(NotThatManager, match="has expired; is a clock wrong"):
            await open_session(worker, old.at)
        # It renews its own certificate, being an authority, and is believed again.
        fresh = world.certify(Role.MANAGER, node=old.node)
        old.contexts.reload(fresh.directory)
        await world.add_node(worker, Role.WORKER)
        await open_session(worker, old.at)


async def test_renewal_gives_the_role_that_is_wished(world: World, manager: Manager) -> None:
    worker = world.certify(Role.WORKER)
    node = await world.add_node(worker, Role.WORKER)
    await world.propose(PutNode(replace(node, spec=replace(node.spec, role=Role.MANAGER))))
    async with worker.peers() as peers:
        renewed = await peers.renew([manager.at], new_request().csr)
    assert read_identity_untrusted(renewed).role is Role.MANAGER


# What only managers may do.


@pytest.mark.parametrize(
    ("certified_as", "known_as"),
    [(Role.WORKER, Role.WORKER), (Role.WORKER, Role.MANAGER), (Role.MANAGER, Role.WORKER)],
)
async def test_manager_endpoints_need_a_manager_by_certificate_and_by_wish(
    world: World, manager: Manager, certified_as: Role, known_as: Role
) -> None:
    certified = world.certify(certified_as)
    await world.add_node(certified, known_as)
    async with certified.peers() as peers:
        with pytest.raises(Forbidden, match="is not a manager"):
            await peers.raft_join(manager.at, "127.0.0.1:2377")
        with pytest.raises(Forbidden, match="is not a manager"):
            await peers.report_sightings(manager.at, SightingReport(()))
        with pytest.raises(Forbidden, match="is not a manager"):
            async for _ in peers.logs(manager.at, LogQuery((), LogOptions())):
                pass
    assert manager.raft_joins == []


async def test_whoever_was_removed_may_nothing_and_hears_what_to_do(
    world: World, manager: Manager
) -> None:
    certified = world.certify(Role.MANAGER)
    await world.add_node(certified, Role.MANAGER)
    await world.propose(DeleteNode(certified.node, timestamp=real_clock()))
    words = f"node {certified.node} was removed .*`swarm leave --force` .* then join again"
    async with certified.peers() as peers:
        with pytest.raises(Forbidden, match=words):
            await peers.renew([manager.at], new_request().csr)
        with pytest.raises(Forbidden, match=words):
            await peers.raft_join(manager.at, "127.0.0.1:2377")
        with pytest.raises(Forbidden, match=words):
            await peers.report_sightings(manager.at, SightingReport(()))
        with pytest.raises(Forbidden, match=words):
            async for _ in peers.logs(manager.at, LogQuery((), LogOptions())):
                pass
    assert await first_word(certified, manager.at) is CloseCode.REMOVED
    assert manager.raft_joins == []


async def test_managers_may(world: World) -> None:
    async with running_managers(world, 2) as (first, second):
        async with second.certified.peers() as peers:
            assert await peers.raft_join(first.at, second.address) == (first.at,)
            await peers.report_sightings(first.at, SightingReport(()))
        assert first.raft_joins == [(second.node, second.address)]


async def test_a_manager_that_has_not_caught_up_says_so(world: World) -> None:
    new = Manager(world)
    new.has_caught_up = False
    async with listening(new):
        with pytest.raises(Unavailable, match="has not caught up"):
            await join_with(world, [new.address], world.cluster.join_tokens.worker)
        with pytest.raises(Unavailable, match="has not caught up"):
            await open_session(world.certify(Role.WORKER), new.at)


# Raft on the same port.


async def speak_raft(manager: Manager, context: ssl.SSLContext) -> bytes:
    host, _, port = manager.address.rpartition(":")
    try:
        reader, writer = await asyncio.open_connection(
            host, int(port), ssl=context, server_hostname=manager.node
        )
    except ConnectionError:
        return b""
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    except OSError:
        return b""
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def test_raft_is_for_managers_with_a_valid_certificate(
    world: World, manager: Manager
) -> None:
    assert await speak_raft(manager, world.certify(Role.MANAGER).contexts().raft) == b"raft"
    refused = [
        world.certify(Role.WORKER),
        world.certify(Role.MANAGER, now=real_clock() - 10 * 86400),
        world.certify(Role.MANAGER, cluster=ClusterId("o" * 25)),
        world.certify(Role.MANAGER, root=new_root_ca(real_clock())),
    ]
    for certified in refused:
        assert await speak_raft(manager, certified.contexts().raft) == b""
    anonymous = pinning_context()
    anonymous.set_alpn_protocols([ALPN_RAFT])
    assert await speak_raft(manager, anonymous) == b""
    assert manager.port.stats().refused == 4


# Those who never get as far as TLS.


async def test_junk_and_silence_are_cut_off_and_counted(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    manager = Manager(world, handshake_s=0.2, anonymous_s=0.4)
    async with running(manager):
        host, _, port = manager.address.rpartition(":")
        for data in (b"", b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 64):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(data)
            with suppress(ConnectionError):
                async with asyncio.timeout(2):
                    await reader.read()
            writer.close()
        await wait_until(lambda: manager.port.stats().handshakes_failed == 3)
        # A connection without a certificate does not stay either.
        reader, writer = await asyncio.open_connection(host, int(port), ssl=pinning_context())
        async with asyncio.timeout(2):
            assert await reader.read() == b""
        writer.close()
        assert manager.port.stats().accepted == 4
    assert caplog.records == []


async def test_tls_1_2_is_too_old(manager: Manager) -> None:
    old = pinning_context()
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    host, _, port = manager.address.rpartition(":")
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await asyncio.open_connection(host, int(port), ssl=old)
