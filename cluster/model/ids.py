"""Identifiers: 25 characters of base36, like Swarm's, so that prefix matching works (pure)."""

from __future__ import annotations

from random import Random
from typing import NewType

ClusterId = NewType("ClusterId", str)
NodeId = NewType("NodeId", str)
NetworkId = NewType("NetworkId", str)
ServiceId = NewType("ServiceId", str)
TaskId = NewType("TaskId", str)

ID_LENGTH = 25
"""128 random bits in base36 need at most 25 digits."""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def new_id(rng: Random) -> str:
    """Return a fresh identifier: 128 bits of `rng`, base36, padded to 25 characters."""
    return base36(rng.getrandbits(128), ID_LENGTH)


def base36(number: int, width: int) -> str:
    """Return `number` in base36, padded on the left with zeros to `width` digits."""
    digits: list[str] = []
    while number:
        number, rest = divmod(number, 36)
        digits.append(_DIGITS[rest])
    return "".join(reversed(digits)).rjust(width, "0")


def is_id(text: str) -> bool:
    """Return whether `text` has the shape of an identifier."""
    return len(text) == ID_LENGTH and all(c in _DIGITS for c in text)


def is_same_name(a: str, b: str) -> bool:
    """Return whether two services, or two networks, with these names would be one.

    Case makes no difference, as in Swarm: it makes none in DNS (RFC 4343).
    """
    return a.lower() == b.lower()
