"""Durations, sizes, ports, filters as people type them."""

from __future__ import annotations

import click
import pytest

from cluster.cli import values


@pytest.mark.parametrize(
    ("text", "ns"),
    [("10s", 10**10), ("1h30m", 5400 * 10**9), ("500ms", 5 * 10**8), ("1.5s", 15 * 10**8),
     ("0", 0), ("0s", 0), ("7ns", 7)],
)  # fmt: skip
def test_durations(text: str, ns: int) -> None:
    assert values.duration_ns(text) == ns


@pytest.mark.parametrize("text", ["", "10", "s", "-1s", "1d", "1 s", "1h-5m", "1.s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(click.BadParameter):
        values.duration_ns(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("64M", 64 << 20), ("1g", 1 << 30), ("512", 512), ("1.5k", 1536), ("4MiB", 4 << 20)],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert values.size_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:9323", ("127.0.0.1", 9323)), ("[::1]:1", ("::1", 1)), ("m1:65535", ("m1", 65535))],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert values.host_and_port(text) == address


@pytest.mark.parametrize("text", ["", "9323", ":9323", "m1:", "m1:0", "m1:65536", "::1:80", "a:b"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(click.BadParameter):
        values.host_and_port(text)


def test_no_sizes_and_no_cpus() -> None:
    for text in ("", "M", "-1", "1x"):
        with pytest.raises(click.BadParameter):
            values.size_bytes(text)
    for text in ("", "-1", "nan", "1e3", "½"):
        with pytest.raises(click.BadParameter):
            values.nano_cpus(text)
    assert values.nano_cpus("0.5") == 500_000_000


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [("tcp", 80, None, "ingress")]),
        ("8080:80", [("tcp", 80, 8080, "ingress")]),
        ("53:53/udp", [("udp", 53, 53, "ingress")]),
        ("8000-8001:80-81", [("tcp", 80, 8000, "ingress"), ("tcp", 81, 8001, "ingress")]),
        ("published=8080,target=80,mode=host", [("tcp", 80, 8080, "host")]),
        ("target=53,protocol=udp", [("udp", 53, None, "ingress")]),
    ],
)
def test_ports(text: str, ports: list[tuple[str, int, int | None, str]]) -> None:
    keys = ("Protocol", "TargetPort", "PublishedPort", "PublishMode")
    assert [tuple(port.get(key) for key in keys) for port in values.ports([text])] == ports


@pytest.mark.parametrize(
    "text",
    ["", "0", "x", "70000", "8080:", "1-3:1-2", "9-8:9-8", "published=80", "target=80,color=red",
     "99999999999999999999", "٣"],
)  # fmt: skip
def test_no_ports(text: str) -> None:
    with pytest.raises(click.UsageError):
        values.ports([text])


def test_networks_and_filters() -> None:
    assert values.networks(["shop", "name=db,alias=a,alias=b"]) == [
        {"Target": "shop"},
        {"Target": "db", "Aliases": ["a", "b"]},
    ]
    for text in ("alias=a", "name=a,name=b", "name=a,ip=10.0.0.1"):
        with pytest.raises(click.UsageError):
            values.networks([text])
    assert values.filters(["label=a=b", "name=x", "name=y"]) == {
        "label": ["a=b"],
        "name": ["x", "y"],
    }
    with pytest.raises(click.UsageError):
        values.filters(["name"])
