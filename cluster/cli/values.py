"""Values as people type them: durations, sizes, ports, `key=value` (pure)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import TypeVar

import click

_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_DURATION_NS = {
    "ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9,
    "h": 3600 * 10**9,
}  # fmt: skip
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_CPUS = re.compile(r"\d{1,6}(?:\.\d{1,9})?")
_SIZE_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
PORT_MAX = 65535
_F = TypeVar("_F", bound=Callable[..., object])


def duration_ns(text: str) -> int:
    """Return a Go duration (`1m30s`) as nanoseconds. Raises click.BadParameter."""
    parts = _DURATION_PART.findall(text)
    if text == "0":
        return 0
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise click.BadParameter(f"{text!r} is no duration like 10s, 500ms or 1h30m")
    return sum(int(Decimal(number) * _DURATION_NS[unit]) for number, unit in parts)


def size_bytes(text: str) -> int:
    """Return a size (`64M`, `1g`) as bytes. Raises click.BadParameter."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is no size like 64M or 1g")
    return int(Decimal(match[1]) * 1024 ** _SIZE_POWER[match[2].lower()])


def nano_cpus(text: str) -> int:
    """Return a number of CPUs (`0.5`) as billionths. Raises click.BadParameter."""
    if not _CPUS.fullmatch(text):
        raise click.BadParameter(f"{text!r} is no number of CPUs like 0.5")
    return int(Decimal(text) * 10**9)


def host_and_port(text: str) -> tuple[str, int]:
    """Return `host:port` (`[::1]:9323`) in two. Raises click.BadParameter."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    is_port = port.isascii() and port.isdecimal() and 0 < int(port[:6]) <= PORT_MAX
    if not host or not is_port or (":" in host) is not text.startswith("["):
        raise click.BadParameter(f"{text!r} is no address like 127.0.0.1:9323 or [::1]:9323")
    return host, int(port)


def key_values(texts: Iterable[str]) -> dict[str, str]:
    """Return `key=value` texts as a dict; a key alone has the empty value."""
    return {key: value for key, _, value in (text.partition("=") for text in texts)}


def filters(texts: Sequence[str]) -> dict[str, list[str]]:
    """Return `--filter key=value` options as the API takes them.

    Raises:
        click.UsageError: one of them has no value.
    """
    wanted: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"invalid filter {text!r}: use --filter key=value")
        wanted.setdefault(key.strip(), []).append(value.strip())
    return wanted


def ports(texts: Iterable[str]) -> list[dict[str, object]]:
    """Return `--publish` options as the API takes them.

    `[published:]target[/protocol]`, each a port or a range of the same length, or
    `published=8080,target=80,protocol=tcp,mode=ingress`.

    Raises:
        click.UsageError: one of them is neither.
    """
    return [port for text in texts for port in _ports(text)]


def _ports(text: str) -> list[dict[str, object]]:
    if "=" in text:
        return [_long_port(text)]
    numbers, _, protocol = text.partition("/")
    published, _, target = numbers.rpartition(":")
    targets = _range(target, text)
    publisheds = _range(published, text) if published else [0] * len(targets)
    if len(targets) != len(publisheds):
        raise click.UsageError(f"invalid port {text!r}: the two ranges differ in length")
    return [_port(t, p, protocol or "tcp", "ingress") for t, p in zip(targets, publisheds,
                                                                     strict=True)]  # fmt: skip


def _long_port(text: str) -> dict[str, object]:
    options = key_values(text.split(","))
    unknown = set(options) - {"published", "target", "protocol", "mode"}
    if unknown or "target" not in options:
        raise click.UsageError(f"invalid port {text!r}: use published=…,target=…,protocol=…,mode=…")
    published = _number(options["published"], text) if options.get("published") else 0
    return _port(
        _number(options["target"], text),
        published,
        options.get("protocol", "tcp"),
        options.get("mode", "ingress"),
    )


def _port(target: int, published: int, protocol: str, mode: str) -> dict[str, object]:
    port: dict[str, object] = {"Protocol": protocol, "TargetPort": target}
    if published:
        port["PublishedPort"] = published
    return {**port, "PublishMode": mode}


def _range(text: str, whole: str) -> list[int]:
    first, dash, last = text.partition("-")
    start = _number(first, whole)
    end = _number(last, whole) if dash else start
    if end < start:
        raise click.UsageError(f"invalid port {whole!r}: the range runs backwards")
    return list(range(start, end + 1))


def _number(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 0 < int(text[:6]) <= PORT_MAX:
        raise click.UsageError(f"invalid port {whole!r}: ports are numbers from 1 to {PORT_MAX}")
    return int(text)


def networks(texts: Iterable[str]) -> list[dict[str, object]]:
    """Return `--network` options as the API takes them: `name` or `name=…,alias=…`.

    Raises:
        click.UsageError: one of them is neither.
    """
    attachments: list[dict[str, object]] = []
    for text in texts:
        if "=" not in text:
            attachments.append({"Target": text})
            continue
        pairs = [part.partition("=") for part in text.split(",")]
        names = [value for key, _, value in pairs if key == "name"]
        aliases = [value for key, _, value in pairs if key == "alias"]
        if len(names) != 1 or len(names) + len(aliases) != len(pairs):
            raise click.UsageError(f"invalid network {text!r}: use name=…,alias=…")
        attachments.append({"Target": names[0], "Aliases": aliases})
    return attachments


def only_one(name: str, *, metavar: str, help: str) -> Callable[[_F], _F]:  # noqa: A002  (click's)
    """Return an option that docker takes a list of, and we one: a second is refused, not lost."""

    def check(_: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> str:
        if len(values) > 1:
            raise click.BadParameter("a network has one subnet: give it once", param=parameter)
        return "".join(values)

    return click.option(name, multiple=True, metavar=metavar, help=help, callback=check)
