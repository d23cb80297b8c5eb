"""`hivewire version`, `info`, `events`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version

import click

from cluster.cli import template
from cluster.cli.document import Document, decode
from cluster.cli.failure import DaemonUnreachable
from cluster.cli.options import client, format_option
from cluster.cli.values import filters as parse_filters


@click.command()
@format_option
def version(style: str) -> None:
    """Show the versions of client and daemon."""
    try:
        server: Document | None = client().get("/version")
        problem = None
    except DaemonUnreachable as error:
        server, problem = None, error
    versions = {
        "Client": {"Version": _own_version()},
        "Server": server.raw() if server is not None else None,
    }
    if style == "json":
        click.echo(json.dumps(versions))
    elif style:
        click.echo(template.render(style, versions))
    else:
        click.echo(f"Client:  {_own_version()}")
        if server is not None:
            click.echo(f"Server:  {server.text('Version')}")
            click.echo(
                f"API:     {server.text('ApiVersion')} (from {server.text('MinAPIVersion')})"
            )
    if problem is not None:
        raise problem


def _own_version() -> str:
    try:
        return package_version("hivewire")
    except PackageNotFoundError:
        return "unknown"


@click.command()
@format_option
def info(style: str) -> None:
    """Show this node and its cluster."""
    engine = client().get("/info")
    if style == "json":
        click.echo(json.dumps(engine.raw()))
    elif style:
        click.echo(template.render(style, engine.raw()))
    else:
        for name, value in _lines(engine):
            click.echo(f"{name + ':':<20}{value}")


def _lines(engine: Document) -> list[tuple[str, str]]:
    swarm = engine.at("Swarm")
    lines = [
        ("Name", engine.text("Name")),
        ("Version", engine.text("ServerVersion")),
        ("System", f"{engine.text('OperatingSystem')}, kernel {engine.text('KernelVersion')}"),
        ("CPUs", str(engine.number("NCPU"))),
        ("Memory", f"{engine.number('MemTotal') / 2**30:.2f} GiB"),
        ("Data", engine.text("DockerRootDir")),
        ("Swarm", swarm.text("LocalNodeState")),
    ]
    if swarm.text("Error"):
        lines.append(("Error", swarm.text("Error")))
    if swarm.text("NodeID"):
        lines += [
            ("Node", swarm.text("NodeID")),
            ("Address", swarm.text("NodeAddr")),
            ("Manager", "yes" if swarm.flag("ControlAvailable") else "no"),
        ]
    if swarm.flag("ControlAvailable"):
        lines += [
            ("Cluster", swarm.text("Cluster.ID")),
            ("Nodes", f"{swarm.number('Nodes')}, {swarm.number('Managers')} of them managers"),
        ]
    managers = [peer.text("Addr") for peer in swarm.items("RemoteManagers")]
    return [*lines, ("Managers", ", ".join(managers))] if managers else lines


@click.command()
@click.option("--since", default="", help="Show from this time on: Unix seconds.")
@click.option("--until", default="", help="Stop at this time: Unix seconds.")
@click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE")
@format_option
def events(since: str, until: str, filters: tuple[str, ...], style: str) -> None:
    """Print what happens in the cluster, as it happens."""
    query: dict[str, str | dict[str, list[str]]] = {}
    query |= {k: v for k, v in (("since", since), ("until", until)) if v}
    if filters:
        query["filters"] = parse_filters(filters)
    with client().stream("/events", query) as response:
        while line := response.readline():
            if line.strip():
                click.echo(_event(decode(line), style))


def _event(event: Document, style: str) -> str:
    if style == "json":
        return json.dumps(event.raw())
    if style:
        return template.render(style, event.raw())
    seconds, rest = divmod(event.number("timeNano"), 1_000_000_000)
    moment = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
    attributes = ", ".join(
        f"{key}={value}" for key, value in sorted(event.fields("Actor.Attributes").items())
    )
    return (
        f"{moment} {event.text('Type')} {event.text('Action')} {event.text('Actor.ID')} "
        f"({attributes})"
    )
