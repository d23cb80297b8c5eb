"""Peers over real loopback sockets: datagrams, streams, junk, and leaving."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from gossip.peer import GossipConfig, GossipKey, InvalidError, KeyState, State
from tests.unit.gossip.peers import (
    FAST,
    KEYS,
    MANY,
    address_of,
    fill,
    make_peer,
    records_of,
    running,
    send_junk,
    states_of,
    wait_until,
)


async def test_keys_are_known_by_the_time_of_their_state(tmp_path: Path) -> None:
    peer = make_peer(tmp_path, "a")
    (first,) = peer.keys()
    fresh = GossipKey(2, b"n" * 32, KeyState.ACCEPT)
    peer.set_keys([*KEYS, fresh])
    kept, added = peer.keys()
    assert (kept, added.state) == (first, KeyState.ACCEPT)
    assert first.since is not None
    assert added.since is not None
    assert added.since > first.since

    peer.set_keys(
        [replace(KEYS[0], state=KeyState.RETIRED), replace(fresh, state=KeyState.PRIMARY)]
    )
    retired, primary = peer.keys()
    assert retired.since == primary.since != added.since


async def test_a_peer_that_is_behind_with_its_keys_says_so(tmp_path: Path) -> None:
    a, b = (make_peer(tmp_path, name) for name in "ab")
    a.set_keys([GossipKey(2, b"n" * 32, KeyState.PRIMARY)])
    async with running(b, a):  # a looks for b
        await b.keys_wanted.wait()
        assert states_of(b) == {"b": State.ALIVE}
        b.set_keys([GossipKey(2, b"n" * 32, KeyState.PRIMARY)])
        await wait_until([a, b], lambda: len(states_of(a)) == len(states_of(b)) == 2)


async def test_peers_meet_share_records_and_notice_a_death(tmp_path: Path) -> None:
    peers = [make_peer(tmp_path, name, config=FAST) for name in "abc"]
    for peer in peers:
        peer.attach("net")
    peers[0].publish("net", "key", b"before it runs")
    async with running(*peers) as tasks:
        await wait_until(peers, lambda: all(len(states_of(peer)) == 3 for peer in peers))
        truth = {("a", "key"): b"before it runs"}
        await wait_until(peers, lambda: all(records_of(peer) == truth for peer in peers))
        peers[0].withdraw("net", "key")
        peers[1].publish("net", "key", b"1")
        truth = {("b", "key"): b"1"}
        await wait_until(peers, lambda: all(records_of(peer) == truth for peer in peers))
        tasks[1].cancel()
        rest = [peers[0], peers[2]]
        await wait_until(rest, lambda: all(states_of(p)["b"] is State.DEAD for p in rest))
        assert all(records_of(peer) == {} for peer in rest)


async def test_process_that_died_is_noticed_by_refused_packets(tmp_path: Path) -> None:
    """Without them it takes 4 s at least."""
    config = replace(GossipConfig.lan(), watch_interval_s=0.1, refused_suspicion_s=0.2)
    peers = [make_peer(tmp_path, name, config=config) for name in "abcd"]
    async with running(*peers) as tasks:
        await wait_until(peers, lambda: all(len(states_of(peer)) == 4 for peer in peers))
        tasks[1].cancel()
        rest = [peers[0], peers[2], peers[3]]
        async with asyncio.timeout(3.0):
            await wait_until(rest, lambda: all(states_of(p)["b"] is State.DEAD for p in rest))
        assert all(peer.stats().machine.counters.suspicions_refused >= 1 for peer in rest)


async def test_leaver_is_known_to_have_left(tmp_path: Path) -> None:
    a, b = make_peer(tmp_path, "a"), make_peer(tmp_path, "b")
    async with running(a, b):
        await wait_until([a, b], lambda: len(states_of(a)) == len(states_of(b)) == 2)
        await b.leave()
        await wait_until([a], lambda: states_of(a)["b"] is State.LEFT)


async def test_much_goes_over_a_stream(tmp_path: Path) -> None:
    a, b = make_peer(tmp_path, "a"), make_peer(tmp_path, "b")
    fill(a, b)
    async with running(a, b):
        await wait_until([b], lambda: len(records_of(b)) == MANY)
        assert a.stats().machine.counters.streams_out >= 1
        assert b.stats().shell.streams_in >= 1
        assert b.stats().shell.streams_broken == 0


async def test_junk_on_both_ports_is_counted_and_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = make_peer(tmp_path, "a"), make_peer(tmp_path, "b")
    async with running(a, b):
        await send_junk(address_of(a))
        await wait_until([a, b], lambda: len(states_of(a)) == len(states_of(b)) == 2)
        b.attach("net")
        b.publish("net", "key", b"1")
        a.attach("net")
        await wait_until([a], lambda: records_of(a) == {("b", "key"): b"1"})
        counters = a.stats().machine.counters
        assert counters.malformed + counters.unknown_key + counters.unauthentic >= 100
        while a.stats().shell.streams_broken < 3:
            await asyncio.sleep(0.01)
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_half_open_connections_are_limited(tmp_path: Path) -> None:
    a, b = make_peer(tmp_path, "a"), make_peer(tmp_path, "b")
    async with running(a, b), contextlib.AsyncExitStack() as stack:
        closed = 0
        for _ in range(20):
            reader, writer = await asyncio.open_connection(*address_of(a))
            stack.callback(writer.close)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    closed += await reader.read(1) == b""
        assert closed == 16
        assert a.stats().shell.streams_refused == 16
        with socket.socket() as other:  # those of another address are taken
            other.bind(("127.0.0.2", 0))
            other.connect(address_of(a))
            await wait_until([a], lambda: a.stats().shell.streams_in == 5)


async def test_address_that_cannot_be_reached_harms_nobody(tmp_path: Path) -> None:
    a, b = make_peer(tmp_path, "a"), make_peer(tmp_path, "b")
    async with running(a, b):
        b.join([("::1", 9), ("255.255.255.255", 9), address_of(a)])
        await wait_until([a, b], lambda: len(states_of(a)) == len(states_of(b)) == 2)
        assert b.stats().shell.send_errors >= 1


async def test_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    a, b = make_peer(tmp_path, "a"), make_peer(tmp_path, "b")
    async with running(a):
        with pytest.raises(OSError, match="in use"):
            await b.run(address_of(a), address_of(a))


async def test_watch_is_silent_when_nothing_changes(tmp_path: Path) -> None:
    a = make_peer(tmp_path, "a")
    async with running(a):
        a.attach("net")
        with a.watch() as changed:
            a.publish("net", "key", b"1")
            assert changed.is_set()
            changed.clear()
            a.publish("net", "key", b"1")
            a.attach("net")
            a.join([])
            assert not changed.is_set()


def test_unusable_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidError):
        make_peer(tmp_path, "n" * 33)
    with pytest.raises(InvalidError):
        make_peer(tmp_path, "a").join([("localhost", 1)])
