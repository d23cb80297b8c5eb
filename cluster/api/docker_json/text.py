"""Times, durations, names and signals as Docker writes them (pure)."""

from __future__ import annotations

import re
import signal
from datetime import UTC, datetime

from cluster.model.errors import Invalid

NAME_LENGTH_MAX = 63
"""A DNS label's limit: a service's name is one."""
_SERVICE_NAME = re.compile(r"[a-zA-Z0-9](?:[-_]*[A-Za-z0-9])*")
"""Swarm's rule (swarmkit controlapi/common.go), written so that it cannot backtrack."""
_DNS_NAME = re.compile(r"[a-zA-Z0-9_](?:[-_.]*[A-Za-z0-9_])*")
"""Names of hosts and aliases; underscores are common in compose files."""
_NETWORK_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


def timestamp(unix_s: float) -> str:
    """Return RFC 3339 in UTC with microseconds; Go's zero time for 0."""
    if unix_s <= 0:
        return "0001-01-01T00:00:00Z"
    moment = datetime.fromtimestamp(unix_s, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def timestamp_ns(unix_ns: int) -> str:
    """Return RFC 3339 in UTC with nanoseconds."""
    seconds, rest = divmod(unix_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def nanoseconds(seconds: float) -> int:
    """Return a duration as Docker writes it."""
    return round(seconds * 1e9)


def check_service_name(name: str) -> None:
    """Raise Invalid, in Swarm's words, for a name that a service cannot have."""
    if len(name) > NAME_LENGTH_MAX:
        raise Invalid(
            f"rpc error: code = InvalidArgument desc = name must be {NAME_LENGTH_MAX} characters "
            "or fewer"
        )
    if not _SERVICE_NAME.fullmatch(name):
        raise Invalid(
            "rpc error: code = InvalidArgument desc = name must be valid as a DNS name component"
        )


def check_network_name(name: str) -> None:
    """Raise Invalid for a name that a network cannot have."""
    if not name:
        raise Invalid("rpc error: code = InvalidArgument desc = name must be provided")
    if len(name) > NAME_LENGTH_MAX or not _NETWORK_NAME.fullmatch(name):
        raise Invalid(
            f"invalid network name {name!r}: letters, digits, '_', '.' and '-', starting with a "
            f"letter or digit, at most {NAME_LENGTH_MAX} characters"
        )


def check_dns_name(what: str, name: str) -> None:
    """Raise Invalid for a name that DNS could not answer for."""
    if len(name) > NAME_LENGTH_MAX or not _DNS_NAME.fullmatch(name):
        raise Invalid(f"{what}: {name!r} is no host name of at most {NAME_LENGTH_MAX} characters")


def signal_name(text: str) -> str:
    """Return `SIGTERM` for `SIGTERM`, `TERM`, `sigterm` or `15`.

    Raises:
        Invalid: there is no such signal.
    """
    wanted = text.strip().upper()
    if wanted.isdecimal() and len(wanted) <= len("999"):
        number = int(wanted)
        names = [s.name for s in signal.Signals if s.value == number]
        if names:
            return names[0]
    else:
        name = wanted if wanted.startswith("SIG") else f"SIG{wanted}"
        if name in signal.Signals.__members__:
            return signal.Signals[name].name
    raise Invalid(f"invalid stop signal: {text!r}")
