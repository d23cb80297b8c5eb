"""The asyncio shell around `Machine`: one UDP socket, one TCP listener, one timer.

It decides nothing. Whatever happened, `flush` hands out the machine's events, sends what it wants
sent and arms the timer. Streams carry sealed frames (length 4 bytes, big endian) one way, inside
TLS when contexts are given; the frames are sealed like datagrams, so junk is refused either way.
Who is at the other end of a stream in TLS its certificate says, not the seal.

Invariants:
    an error of the socket or of a peer is counted, never fatal; a bug ends `run`;
    at most `_STREAMS_MAX` connections exist each way, each for at most `_STREAM_S`, and from one
    address at most `_STREAMS_PER_ADDRESS_MAX`: half-open ones do not shut out the members.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable

from gossip.events import Event
from gossip.machine import Machine
from gossip.outbox import StreamPush
from gossip.refusals import ask_for_refusals, take_refusals
from gossip.stats import ShellCounters
from gossip.wire import Address

logger = logging.getLogger(__name__)

Contexts = Callable[[], ssl.SSLContext]
"""Gives the TLS context of the next connection, so that renewed certificates are used."""

_DATAGRAM_BYTES_MAX = 9216
_BATCH = 64
"""Datagrams read before the machine's answers are sent."""
_SEND_TRIES = 3
_BUFFER_BYTES = 1 << 20
_STREAMS_MAX = 16
_STREAMS_PER_ADDRESS_MAX = 4
_STREAM_S = 10.0
_FRAME_BYTES_MAX = 4 << 20
_STREAM_BYTES_MAX = 20 << 20
_PORT_TRIES = 32
_ACCEPT_PAUSE_S = 0.1


class Sockets:
    """The UDP and TCP sockets of one node, on one port."""

    def __init__(self, bind: Address) -> None:
        """Open both; port 0 picks a port that is free for both. Raises OSError."""
        host, port = bind
        for attempt in range(_PORT_TRIES):
            self.udp = _open(host, port, socket.SOCK_DGRAM)
            try:
                self.tcp = _open(host, self.udp.getsockname()[1], socket.SOCK_STREAM)
            except OSError:
                self.udp.close()
                if port or attempt == _PORT_TRIES - 1:
                    raise
            else:
                self.tcp.listen(64)
                return

    @property
    def port(self) -> int:
        """The port both are bound to."""
        return int(self.udp.getsockname()[1])

    def close(self) -> None:
        """Close both."""
        self.udp.close()
        self.tcp.close()


class Transport:
    """Feeds packets and time to a machine, and its packets to the sockets."""

    def __init__(
        self,
        machine: Machine,
        sockets: Sockets,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        on_event: Callable[[Event], None],
        server_ssl: Contexts | None,
        client_ssl: Contexts | None,
    ) -> None:
        self.counters = ShellCounters()
        self._machine = machine
        self._sockets = sockets
        self._clock = clock
        self._wall = wall
        self._on_event = on_event
        self._server_ssl = server_ssl
        self._client_ssl = client_ssl
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._streams_in: Counter[str] = Counter()
        """By address."""
        self._streams_out = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._group: asyncio.TaskGroup | None = None
        self._failure: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Serve until cancelled."""
        loop = self._loop = asyncio.get_running_loop()
        self._failure = loop.create_future()
        loop.add_reader(self._sockets.udp, self._call, self._read)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                group.create_task(self._accept(group))
                self.flush()
                await self._failure
        finally:
            self._group = self._loop = None
            loop.remove_reader(self._sockets.udp)
            if self._timer is not None:
                self._timer.cancel()

    def flush(self) -> None:
        """Do what the machine wants done; to be called after every call to it."""
        if self._loop is None:
            return
        for event in self._machine.events():
            self._on_event(event)
        for data, address in self._machine.datagrams_to_send():
            self._send(data, address)
        for push in self._machine.streams_to_send():
            self._start_push(push)
        due = self._machine.next_timer()
        if self._timer is None or due != self._timer_at:
            if self._timer is not None:
                self._timer.cancel()  # cheaper than to wake for what is no longer due
            self._timer_at = due
            delay_s = max(0.0, due - self._clock())
            self._timer = self._loop.call_later(delay_s, self._call, self._fire)

    def _send(self, data: bytes, address: Address) -> None:
        for _ in range(_SEND_TRIES):
            try:
                self._sockets.udp.sendto(data, address)
            except ConnectionRefusedError:  # an earlier datagram was, and this one not sent
                pass
            except OSError:  # no route, no buffer, no such family: as if lost on the way
                break
            else:
                return
        self.counters.send_errors += 1

    def _take_refusals(self) -> None:
        for address in take_refusals(self._sockets.udp):
            self._machine.receive_refusal(address, now=self._clock())

    def _call(self, callback: Callable[[], None]) -> None:
        """Run a callback of the loop; what it raises is a bug, and `run` raises it."""
        try:
            callback()
        except Exception as exc:  # noqa: BLE001 - the loop would log it and go on half dead
            if self._failure is not None and not self._failure.done():
                self._failure.set_exception(exc)

    def _fire(self) -> None:
        self._timer = None
        now = self._clock()
        self._machine.set_wall_offset(self._wall() - now)
        if self._machine.next_timer() <= now:
            self._machine.handle_timer(now=now)
        self.flush()

    def _read(self) -> None:
        for count in range(_BATCH):
            try:
                data, address = self._sockets.udp.recvfrom(_DATAGRAM_BYTES_MAX)
            except (BlockingIOError, InterruptedError):
                if count == 0:  # awake for the error queue alone
                    self._take_refusals()
                break
            except OSError:  # an ICMP error of an earlier datagram
                self.counters.receive_errors += 1
                self._take_refusals()
                continue
            source = (str(address[0]), int(address[1]))
            self._machine.receive_datagram(data, source, now=self._clock())
        self.flush()

    async def _accept(self, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self._sockets.tcp)
            except OSError as exc:  # out of descriptors, or the peer has gone already
                self.counters.receive_errors += 1
                logger.warning("gossip stream not accepted error=%s", exc)
                await asyncio.sleep(_ACCEPT_PAUSE_S)
                continue
            source = (str(address[0]), int(address[1]))
            if (
                self._streams_in.total() >= _STREAMS_MAX
                or self._streams_in[source[0]] >= _STREAMS_PER_ADDRESS_MAX
            ):
                self.counters.streams_refused += 1
                connection.close()
                continue
            self._streams_in[source[0]] += 1
            group.create_task(self._serve(connection, source))

    async def _serve(self, connection: socket.socket, source: Address) -> None:
        context = None if self._server_ssl is None else self._server_ssl()
        reader = asyncio.StreamReader()
        transport: asyncio.BaseTransport | None = None
        self.counters.streams_in += 1
        try:
            async with asyncio.timeout(_STREAM_S):
                transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: asyncio.StreamReaderProtocol(reader),
                    connection,
                    ssl=context,
                    ssl_handshake_timeout=None if context is None else _STREAM_S / 2,
                )
                await self._read_frames(reader, source, self._peer(transport))
        except (OSError, TimeoutError, asyncio.IncompleteReadError, _JunkError) as exc:
            self.counters.streams_broken += 1
            logger.debug("gossip stream broken peer=%s error=%r", source[0], exc)
        finally:
            self._streams_in[source[0]] -= 1
            if not self._streams_in[source[0]]:
                del self._streams_in[source[0]]
            _abort(transport)
            connection.close()

    def _peer(self, transport: asyncio.BaseTransport) -> str | None:
        """Return the node whose certificate was shown; None outside TLS."""
        tls = transport.get_extra_info("ssl_object")
        if tls is None:
            return None
        peer = self._machine.bearer_untrusted(tls.getpeercert(binary_form=True) or b"")
        if peer is None:
            raise _JunkError("a certificate of no node of this cluster")
        return peer

    def _check_peer(self, transport: asyncio.BaseTransport, node_id: str) -> None:
        peer = self._peer(transport)
        if peer not in {None, node_id}:
            self.counters.streams_astray += 1
            raise _JunkError(f"node {peer} is where node {node_id} should be")

    async def _read_frames(
        self, reader: asyncio.StreamReader, source: Address, peer: str | None
    ) -> None:
        total = 0
        while True:
            head = await reader.read(4)
            if not head:
                return
            head += await reader.readexactly(4 - len(head))
            size = int.from_bytes(head, "big")
            total += size
            if size > _FRAME_BYTES_MAX or total > _STREAM_BYTES_MAX:
                raise _JunkError("frame or stream too long")
            frame = await reader.readexactly(size)
            if not self._machine.receive_frame(frame, source, peer=peer, now=self._clock()):
                raise _JunkError("not a frame of this cluster")
            self.flush()
            await asyncio.sleep(0)  # many small frames may be here already

    def _start_push(self, push: StreamPush) -> None:
        if self._group is None or self._streams_out >= _STREAMS_MAX:
            self._machine.stream_done(push.node_id, is_sent=False, now=self._clock())
            return
        self._streams_out += 1
        self._group.create_task(self._push(push))

    async def _push(self, push: StreamPush) -> None:
        context = None if self._client_ssl is None else self._client_ssl()
        is_sent = False
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(_STREAM_S):
                host, port = push.address
                _, writer = await asyncio.open_connection(host, port, ssl=context)
                self._check_peer(writer.transport, push.node_id)
                for frame in push.frames:
                    writer.write(len(frame).to_bytes(4, "big") + frame)
                    await writer.drain()
                writer.close()
                await writer.wait_closed()
                is_sent = True
        except (OSError, TimeoutError, _JunkError) as exc:
            logger.debug("gossip stream not sent peer=%s error=%r", push.address[0], exc)
        finally:
            self._streams_out -= 1
            if writer is not None:
                _abort(writer.transport)
            self._machine.stream_done(push.node_id, is_sent=is_sent, now=self._clock())


class _JunkError(Exception):
    """A stream carries something else than frames of this cluster, or leads to another node."""


def _abort(transport: asyncio.BaseTransport | None) -> None:
    # One that is closing may have let go of its TLS already; CPython 3.11.2 then fails to abort.
    if isinstance(transport, asyncio.WriteTransport) and not transport.is_closing():
        with contextlib.suppress(OSError):
            transport.abort()


def _open(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if kind == socket.SOCK_STREAM:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            ask_for_refusals(opened)
        opened.bind((host, port))
    except OSError:
        opened.close()
        raise
    return opened
