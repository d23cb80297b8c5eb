"""The error queue of real loopback sockets."""

from __future__ import annotations

import select
import socket

import pytest

from gossip.refusals import ask_for_refusals, take_refusals
from gossip.wire import Address


def _open(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM)
    opened.setblocking(False)
    opened.bind((host, 0))
    return opened


def _closed_port(host: str) -> Address:
    with _open(host) as udp:
        return (host, int(udp.getsockname()[1]))


def _wait(udp: socket.socket) -> None:
    assert select.select([udp], [], [], 5.0)[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_refused_datagrams_are_told_with_where_they_went(host: str) -> None:
    with _open(host) as udp, _open(host) as listener:
        ask_for_refusals(udp)
        closed = [_closed_port(host), _closed_port(host)]
        udp.sendto(b"heard", listener.getsockname())
        udp.sendto(b"x" * 1400, closed[0])
        _wait(udp)
        assert take_refusals(udp) == [closed[0]]
        udp.sendto(b"", closed[1])
        _wait(udp)
        assert take_refusals(udp) == [closed[1]]
        assert take_refusals(udp) == []
        assert select.select([udp], [], [], 0)[0] == []


def test_no_more_than_a_bound_is_read_at_one_time() -> None:
    with _open("127.0.0.1") as udp:
        ask_for_refusals(udp)
        closed = _closed_port("127.0.0.1")
        sent = 0
        while sent < 100:
            try:
                udp.sendto(b"", closed)
            except ConnectionRefusedError:
                continue  # of an earlier one
            sent += 1
        _wait(udp)
        first, second = take_refusals(udp), take_refusals(udp)

    assert len(first) == 64
    assert 1 <= len(second) <= 36
