"""A netlink socket: batches of requests with their errors, and dumps.

Driven synchronously: the kernel answers within the system call, so `recv` never waits for anybody.
The socket belongs to the namespace of the thread that made it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from dataplane.kernel.netlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    Message,
    Received,
    pack_message,
    unpack_messages,
)

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_RECEIVE_BYTES = 1 << 18
_BUFFER_BYTES = 4 << 20
_BATCH_MESSAGES = 256
"""Acknowledgements of a batch wait in the receive buffer: each is ~36 bytes and ~800 of memory."""
_TIMEOUT_S = 10.0
_DUMP_RETRIES = 5
_NLM_F_DUMP_INTR = 0x10


class NetlinkError(OSError):
    """The kernel refused a request; `errno` says why."""


class Channel:
    """A netlink socket of one family in the calling thread's network namespace."""

    def __init__(self, family: int = NETLINK_ROUTE) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family
        )
        self._sequence = 0
        self._socket.bind((0, 0))
        self._socket.settimeout(_TIMEOUT_S)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def request(self, *messages: Message, ignore: Iterable[int] = ()) -> None:
        """Perform the requests, in order; all are tried.

        ignore: error numbers that mean that a request had nothing to do.

        Raises:
            NetlinkError: the first error.
        """
        ignored = frozenset(ignore)
        for start in range(0, len(messages), _BATCH_MESSAGES):
            self._batch(messages[start : start + _BATCH_MESSAGES], ignored)

    def dump(self, message: Message) -> list[Received]:
        """Return what the kernel lists for `message`; lists again when it changed meanwhile."""
        found, is_interrupted = self._dump(message)
        for _ in range(_DUMP_RETRIES):
            if not is_interrupted:
                break
            found, is_interrupted = self._dump(message)
        return found

    def _batch(self, messages: Sequence[Message], ignored: frozenset[int]) -> None:
        first = self._sequence + 1
        packed = [
            pack_message(message, first + number, NLM_F_REQUEST | NLM_F_ACK)
            for number, message in enumerate(messages)
        ]
        self._sequence += len(messages)
        self._socket.send(b"".join(packed))
        pending = set(range(first, self._sequence + 1))
        failed: NetlinkError | None = None
        while pending:
            for received in unpack_messages(self._socket.recv(_RECEIVE_BYTES)):
                if received.type != NLMSG_ERROR or received.sequence not in pending:
                    continue
                pending.discard(received.sequence)
                code = received.error()
                if code and code not in ignored and failed is None:
                    failed = NetlinkError(code, os.strerror(code))
        if failed is not None:
            raise failed

    def _dump(self, message: Message) -> tuple[list[Received], bool]:
        self._sequence += 1
        flags = NLM_F_REQUEST | NLM_F_DUMP
        self._socket.send(pack_message(message, self._sequence, flags))
        found: list[Received] = []
        is_interrupted = False
        while True:
            for received in unpack_messages(self._socket.recv(_RECEIVE_BYTES)):
                if received.sequence != self._sequence:
                    continue
                is_interrupted |= bool(received.flags & _NLM_F_DUMP_INTR)
                if received.type == NLMSG_DONE:
                    return found, is_interrupted
                if received.type == NLMSG_ERROR:
                    code = received.error()
                    if code == errno.ENOENT:
                        return [], False
                    raise NetlinkError(code, os.strerror(code))
                found.append(received)
