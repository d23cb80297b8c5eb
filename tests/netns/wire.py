"""Plans as JSON lines, for the node processes of the lab."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import msgspec

from dataplane.plan import NodePlan


class Answer(msgspec.Struct):
    """What a node process says about one application."""

    error: str = ""
    broken: dict[str, str] = {}
    leftovers: tuple[str, ...] = ()
    operations: int = 0
    """All operations since the process started."""
    forgotten: int = 0
    """Flows that the kernel was asked to forget by then."""
    ms: float = 0.0


def encode_plan(plan: NodePlan) -> bytes:
    """Return the plan as one line."""
    return msgspec.json.encode(plan, enc_hook=str) + b"\n"


def decode_plan(line: bytes) -> NodePlan:
    """Return the plan in one line."""
    return msgspec.json.decode(line, type=NodePlan, dec_hook=_decode)


def _decode(kind: type, value: object) -> object:
    if kind in {IPv4Address, IPv4Network} and isinstance(value, str):
        return kind(value)
    raise TypeError(kind)
