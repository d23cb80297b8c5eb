"""What waits for a certificate to come (pure).

Invariant: at most `_HELD_MAX` records and claims wait, each for at most `_WAIT_S`; what is dropped
comes again with anti-entropy.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from gossip.wire import Address, Claim, NodeRecord

_HELD_MAX = 1024
_HELD_PER_CERTIFICATE_MAX = 8
_WAIT_S = 5.0
_ASK_PAUSE_S = 0.2
"""Between two requests for the same certificate."""


@dataclass(frozen=True, slots=True)
class Held:
    """Something that was said, and how it came."""

    said: NodeRecord | Claim
    source: Address
    is_relayed: bool
    """Whether it is to be passed on."""
    since: float


@dataclass(slots=True)
class _Queue:
    asked_at: float
    held: list[Held]


class Waiting:
    """Records and claims by the certificate they wait for."""

    def __init__(self) -> None:
        self.dropped = 0
        self._queues: OrderedDict[bytes, _Queue] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def hold(self, fingerprint: bytes, held: Held, *, now: float) -> bool:
        """Keep something; tell whether its source is to be asked for the certificate."""
        self._expire(now)
        queue = self._queues.get(fingerprint)
        if queue is None:
            queue = self._queues[fingerprint] = _Queue(now - _ASK_PAUSE_S, [])
        if all(held.said != other.said for other in queue.held):
            if len(queue.held) >= _HELD_PER_CERTIFICATE_MAX:
                queue.held.pop(0)
                self._count -= 1
                self.dropped += 1
            queue.held.append(held)
            self._count += 1
        if now < queue.asked_at + _ASK_PAUSE_S:
            return False
        queue.asked_at = now
        return True

    def release(self, fingerprint: bytes) -> list[Held]:
        """Return and forget what waited for a certificate, oldest first."""
        queue = self._queues.pop(fingerprint, None)
        if queue is None:
            return []
        self._count -= len(queue.held)
        return queue.held

    def _expire(self, now: float) -> None:
        while self._queues:
            fingerprint, queue = next(iter(self._queues.items()))
            is_old = not queue.held or queue.held[0].since < now - _WAIT_S
            if not is_old and self._count < _HELD_MAX:
                return
            self.dropped += len(self.release(fingerprint))
