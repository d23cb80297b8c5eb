"""A small web service: answers with its task's name and the client's address, as JSON.

It is run as a file by an isolated interpreter (`python -I -S whoami.py PORT`), so it imports
nothing but the standard library. SIGTERM: it takes no new connection, finishes the requests it has
and ends with 0, as a service that wants no failed request must.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import typing

READ_TIMEOUT_S = 10.0


async def _serve(port: int) -> None:
    stopping = asyncio.Event()
    busy: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            busy.add(task)
        try:
            await _answer(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()
            if task is not None:
                busy.discard(task)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    server = await asyncio.start_server(handle, "0.0.0.0", port, backlog=1024)  # noqa: S104
    udp, _ = await loop.create_datagram_endpoint(_Echo, local_addr=("0.0.0.0", port))  # noqa: S104
    await stopping.wait()
    server.close()
    udp.close()
    if busy:
        await asyncio.wait(list(busy), timeout=READ_TIMEOUT_S)


def _answer_for(client: tuple[str, int]) -> bytes:
    name = os.environ.get("HIVEWIRE_TASK_NAME") or socket.gethostname()
    return json.dumps({"task": name, "client": client[0]}).encode()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async with asyncio.timeout(READ_TIMEOUT_S):
        await reader.readuntil(b"\r\n\r\n")
        body = _answer_for(writer.get_extra_info("peername"))
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()


class _Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: CPython's own transport became a DatagramTransport only in 3.12.
        self._transport = typing.cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        del data
        self._transport.sendto(_answer_for(addr), addr)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
