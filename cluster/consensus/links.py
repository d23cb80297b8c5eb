"""The two ends of a session between managers: asyncio protocols over TLS.

The dialling end says hello and then only sends; the accepting end answers the hello and then only
receives. Neither decides who may speak: that is the `Mesh`.

Invariants:
    nothing is delivered before the hello was accepted, or after the link began to close;
    frames, waiting bytes and the time to greet are bounded.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol, cast

from cluster.consensus.errors import MalformedMessageError
from cluster.consensus.identity import CertificateIdentity, certificate_identity
from cluster.consensus.messages import (
    FrameBuffer,
    Hello,
    Message,
    PeerMessage,
    RefusalReason,
    Refused,
    Welcome,
    decode_untrusted,
    encode,
)

WAITING_BYTES_MAX = 16 * 1024 * 1024
"""A peer that lets more than this wait is cut off."""
GREETING_S = 5.0
"""How long a connection may take to say hello."""
_UNANSWERED_MS = 3000
"""A peer that has not acknowledged TCP data for so long is cut off (TCP_USER_TIMEOUT): otherwise a
session that a partition killed would wait out the kernel's retransmissions after it healed."""
_KEEPALIVE_IDLE_S, _KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT = 2, 1, 3


class OutgoingLink(asyncio.Protocol):
    """The end that dialled. `greeted` and `closed` tell how far it is."""

    def __init__(
        self, *, hello: Hello, is_expected: Callable[[CertificateIdentity | None], bool]
    ) -> None:
        loop = asyncio.get_running_loop()
        self.greeted: asyncio.Future[Welcome | Refused | None] = loop.create_future()
        """The answer to the hello; None if the connection ended before."""
        self.closed: asyncio.Future[None] = loop.create_future()
        self._hello = hello
        self._is_expected = is_expected
        self._frames = FrameBuffer(frame_bytes_max=4096)
        self._queue: list[bytes] = []
        self._queued_bytes = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello, if this is who was dialled."""
        self._transport = cast("asyncio.Transport", transport)
        set_dead_peer_timeouts(transport)
        if not self._is_expected(certificate_identity(transport)):
            self.abort()
            return
        self._transport.write(encode(self._hello))

    def data_received(self, data: bytes) -> None:
        """Take the answer to the hello; there is nothing else to receive."""
        try:
            for body in self._frames.feed_untrusted(data):
                self._take_answer(decode_untrusted(body))
        except MalformedMessageError:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Tell whoever waits."""
        if not self.greeted.done():
            self.greeted.set_result(None)
        if not self.closed.done():
            self.closed.set_result(None)

    @property
    def waiting_bytes(self) -> int:
        """How much was sent to this link and has not reached the kernel."""
        if self._transport is None:
            return 0
        return self._queued_bytes + self._transport.get_write_buffer_size()

    @property
    def is_open(self) -> bool:
        """Whether something sent now may arrive."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, frame: bytes) -> None:
        """Queue a frame until `flush`."""
        self._queue.append(frame)
        self._queued_bytes += len(frame)

    def flush(self) -> None:
        """Write what is queued."""
        queue, self._queue = self._queue, []
        self._queued_bytes = 0
        if queue and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(queue))
            if self._transport.get_write_buffer_size() > WAITING_BYTES_MAX:
                self.abort()

    def abort(self) -> None:
        """Close at once; what waits is lost."""
        # A closing one may have let go of its TLS already; CPython 3.11.2 then fails to abort.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.abort()

    def _take_answer(self, message: Message) -> None:
        if self.greeted.done() or not isinstance(message, Welcome | Refused):
            raise MalformedMessageError("only one answer to the hello may come")
        self.greeted.set_result(message)


class IncomingOwner(Protocol):
    """Who decides about incoming links."""

    def greet(self, link: IncomingLink, hello: Hello) -> Welcome | Refused:
        """Decide on a link whose certificate and hello are in order."""
        ...

    def may_connect(self, link: IncomingLink, identity: CertificateIdentity | None) -> bool:
        """Decide, by its certificate, whether a connection may say hello."""
        ...

    def receive(self, link: IncomingLink, message: PeerMessage) -> None:
        """Take a message."""
        ...

    def lost(self, link: IncomingLink) -> None:
        """Forget a link."""
        ...

    def count_malformed(self) -> None:
        """Count a link that sent something else than messages."""
        ...


class IncomingLink(asyncio.Protocol):
    """The end that was dialled."""

    def __init__(self, owner: IncomingOwner) -> None:
        self.node_id = ""
        """By its certificate."""
        self.epoch = (0, 0)
        self._owner = owner
        self._frames = FrameBuffer()
        self._is_greeted = False
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the hello."""
        self._transport = cast("asyncio.Transport", transport)
        set_dead_peer_timeouts(transport)
        identity = certificate_identity(transport)
        if not self._owner.may_connect(self, identity):
            self.abort()
            return
        self.node_id = "" if identity is None else identity.node_id
        self._timer = asyncio.get_running_loop().call_later(GREETING_S, self.abort)

    def data_received(self, data: bytes) -> None:
        """Take the hello, then messages."""
        try:
            for body in self._frames.feed_untrusted(data):
                if self._transport is None or self._transport.is_closing():
                    return
                self._take(decode_untrusted(body), self._transport)
        except MalformedMessageError:
            self._owner.count_malformed()
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Tell the owner."""
        self._stop_timer()
        self._owner.lost(self)

    def pause_reading(self) -> None:
        """Receive nothing more for now."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on to receive."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once."""
        self._stop_timer()
        # A closing one may have let go of its TLS already; CPython 3.11.2 then fails to abort.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.abort()

    def _take(self, message: Message, transport: asyncio.Transport) -> None:
        if isinstance(message, Welcome | Refused) or (
            isinstance(message, Hello) is self._is_greeted
        ):
            raise MalformedMessageError("a hello must come first, and once")
        if isinstance(message, Hello):
            self._greet(message, transport)
        else:
            self._owner.receive(self, message)

    def _greet(self, message: Hello, transport: asyncio.Transport) -> None:
        if message.node_id != self.node_id:
            answer: Welcome | Refused = Refused(RefusalReason.IDENTITY)
        else:
            answer = self._owner.greet(self, message)
        self._stop_timer()
        transport.write(encode(answer))
        if isinstance(answer, Refused):
            transport.close()
        else:
            self.epoch = message.epoch
            self._is_greeted = True

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def set_dead_peer_timeouts(transport: asyncio.BaseTransport) -> None:
    """Have the kernel end a connection whose peer is gone."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNANSWERED_MS)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_COUNT)
