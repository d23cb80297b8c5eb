"""Which resolvers the machine itself uses (pure)."""

from __future__ import annotations

from ipaddress import ip_address

UPSTREAMS_MAX = 3
"""MAXNS of resolv.conf(5), and Swarm's limit."""


def parse_upstreams(text: str) -> tuple[str, ...]:
    """Return the addresses of the `nameserver` lines of a resolv.conf, at most `UPSTREAMS_MAX`.

    What is no address is passed over, as the C library does.
    """
    found: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and _is_address(words[1]):
            found.append(words[1])
    return tuple(dict.fromkeys(found))[:UPSTREAMS_MAX]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
