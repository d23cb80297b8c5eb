"""Which datagrams were refused: the error queue of a UDP socket on Linux (ip(7), IP_RECVERR).

A host where nobody listens on a port answers with an ICMP error, and the kernel keeps it with the
address the datagram was for. Nothing authenticates it: it is a hint.

uvloop 0.23.0 crashes when IP_RECVERR is set on its own sockets; this program runs on asyncio.
"""

from __future__ import annotations

import errno
import socket
import struct

from gossip.wire import Address

_IP_RECVERR = 11
_IPV6_RECVERR = 25
_EXTENDED_ERROR = struct.Struct("=IBBBBII")
"""struct sock_extended_err: errno, origin, type, code, padding, info, data."""
_ORIGINS = frozenset({2, 3})
"""SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6."""
_ANCILLARY_BYTES = 512
_ERRORS_MAX = 64
"""Errors read at one time; the socket stays readable while there are more."""


def ask_for_refusals(udp: socket.socket) -> None:
    """Let the kernel queue the errors of a UDP socket."""
    if udp.family == socket.AF_INET6:
        udp.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
    else:
        udp.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)


def take_refusals(udp: socket.socket) -> list[Address]:
    """Return and forget where datagrams were refused; other errors are dropped.

    Until this is called, the socket reports the error in place of whatever is asked of it.
    """
    refused: list[Address] = []
    for _ in range(_ERRORS_MAX):
        try:
            _, ancillary, _, address = udp.recvmsg(0, _ANCILLARY_BYTES, socket.MSG_ERRQUEUE)
        except OSError:  # the queue is empty
            break
        for _level, _kind, data in ancillary:
            if len(data) < _EXTENDED_ERROR.size:
                continue
            number, origin, *_ = _EXTENDED_ERROR.unpack_from(data)
            if number == errno.ECONNREFUSED and origin in _ORIGINS:
                refused.append((str(address[0]), int(address[1])))
    return refused
