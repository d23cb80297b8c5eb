"""The shell around the machine: what streams bring is taken in turns."""

from __future__ import annotations

import asyncio

from gossip.events import Event
from gossip.transport import Sockets, Transport
from gossip.wire import NODES, Delta, Stamp
from tests.unit.gossip.pair import make_machine
from tests.unit.gossip.peers import LOOPBACK, send_stream
from tests.unit.gossip.stranger import Stranger

_FRAMES = 20


def _introduction(z: Stranger) -> bytes:
    return z.seal(z.offer, Delta(NODES, z.name, Stamp(50, 0), 0, 0, 0, (), node=z.record(50)))


async def test_others_have_their_turn_between_two_frames_of_a_stream() -> None:
    """However many of them come at once."""
    turn = 0
    turns: list[int] = []

    def take(_event: Event) -> None:
        turns.append(turn)

    sockets = Sockets(LOOPBACK)
    transport = Transport(
        make_machine("a"),
        sockets,
        clock=lambda: 1.0,
        wall=lambda: 1.0,
        on_event=take,
        server_ssl=None,
        client_ssl=None,
    )
    frames = [_introduction(Stranger(f"z{number}")) for number in range(_FRAMES)]
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        serving = group.create_task(transport.run())
        data = b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)
        await send_stream(("127.0.0.1", sockets.port), data)
        while len(turns) < _FRAMES:
            turn += 1
            await asyncio.sleep(0)
        serving.cancel()
    sockets.close()

    assert len(set(turns)) == _FRAMES
