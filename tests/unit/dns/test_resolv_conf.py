"""The machine's own resolvers."""

from __future__ import annotations

from dataplane.dns.resolv_conf import parse_upstreams


def test_upstreams_are_the_first_three_addresses() -> None:
    text = """\
# nameserver 9.9.9.9
search example.com
nameserver 10.0.0.1
nameserver  fe80::1%eth0 # comment
nameserver 10.0.0.1
nameserver nonsense
nameserver
nameserver 10.0.0.2
nameserver 10.0.0.3
"""
    assert parse_upstreams(text) == ("10.0.0.1", "fe80::1%eth0", "10.0.0.2")
    assert parse_upstreams("") == ()
