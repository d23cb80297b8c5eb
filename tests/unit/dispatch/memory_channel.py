"""Channels without a network, whose machine can vanish."""

from __future__ import annotations

import asyncio

from cluster.dispatch.channel import ChannelClosed, CloseCode


class MemoryChannel:
    """One end of a pair."""

    def __init__(self) -> None:
        self.is_lost = False
        """Whether what is sent from here vanishes, as when the other machine has no power."""
        self.closed_with: tuple[CloseCode, str] | None = None
        self.incoming: asyncio.Queue[bytes | ChannelClosed] = asyncio.Queue()
        self._is_closed = False
        self.other = self

    async def send(self, data: bytes) -> None:
        if self._is_closed:
            raise ChannelClosed(None, "closed")
        if not self.is_lost:
            self.other.incoming.put_nowait(data)
        await asyncio.sleep(0)

    async def receive(self) -> bytes:
        if self._is_closed and self.incoming.empty():
            raise ChannelClosed(None, "closed")
        data = await self.incoming.get()
        if isinstance(data, ChannelClosed):
            self._is_closed = True
            raise data
        return data

    async def close(self, code: CloseCode, reason: str) -> None:
        if self.closed_with is None:
            self.closed_with = code, reason
        if not self._is_closed:
            self._is_closed = True
            if not self.is_lost:
                self.other.incoming.put_nowait(ChannelClosed(code, reason))
            self.incoming.put_nowait(ChannelClosed(code, reason))


def channel_pair() -> tuple[MemoryChannel, MemoryChannel]:
    """Return the two ends of a channel."""
    left, right = MemoryChannel(), MemoryChannel()
    left.other, right.other = right, left
    return left, right
