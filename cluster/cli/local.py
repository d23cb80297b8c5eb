"""`hivewire local`: a cluster of several real daemons on this machine, with or without root."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cluster.local.control import Answer, Request, ask
from cluster.local.layout import Layout, default_directory, load
from cluster.local.lifecycle import NOT_FORWARDED, is_forwarded, start, stop
from cluster.model.errors import ClusterError

directory_option = click.option(
    "--dir", "directory", type=click.Path(path_type=Path, file_okay=False),
    default=default_directory, show_default="/var/lib/hivewire-local or the user's state directory",
    help="Where the cluster keeps everything.",
)  # fmt: skip


@click.group()
def local() -> None:
    """Run a cluster of several nodes on this machine."""


@local.command()
@click.option("--managers", default=3, show_default=True, help="Manager nodes.")
@click.option("--workers", default=2, show_default=True, help="Worker nodes.")
@directory_option
def up(managers: int, workers: int, directory: Path) -> None:
    """Start a local cluster and wait until all its nodes are ready."""
    try:
        layout = start(directory, managers, workers, progress=click.echo)
    except ClusterError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{directory}: {error.strerror}") from error
    first = layout.nodes[0]
    click.echo(f"\nTalk to it:\n  export DOCKER_HOST=unix://{layout.socket(first)}")
    click.echo("  hivewire node ls     (or: docker node ls)")
    click.echo(f"Published ports answer on {first.host_address} and the other nodes' addresses.")


@local.command()
@directory_option
def down(directory: Path) -> None:
    """Stop the local cluster and delete everything it kept."""
    try:
        stop(load(directory))
    except ClusterError as error:
        raise click.ClickException(str(error)) from error
    click.echo("The local cluster is gone.")


@local.command()
@directory_option
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table")
def status(directory: Path, style: str) -> None:
    """Show the nodes of the local cluster."""
    try:
        layout = load(directory)
        answer = ask(layout.control_socket, Request(do="status"))
    except ClusterError as error:
        raise click.ClickException(str(error)) from error
    rows = [
        (n.name, "running" if n.pid else "stopped", n.address, n.host_address, n.socket)
        for n in answer.nodes
    ]
    for warning in _warnings(layout, answer):
        click.echo(f"Warning: {warning}.", err=True)
    names = ("node", "state", "address", "host_address", "socket")
    if style == "json":
        click.echo(json.dumps([dict(zip(names, row, strict=True)) for row in rows]))
        return
    for row in [tuple(name.upper().replace("_", " ") for name in names), *rows]:
        click.echo(f"{row[0]:6}{row[1]:9}{row[2]:14}{row[3]:14}{row[4]}")


def _warnings(layout: Layout, answer: Answer) -> list[str]:
    found = [f"nothing listens for {failed}" for failed in answer.unheard]
    if not answer.ready:
        found.append("the cluster is not formed yet")
    if not is_forwarded(layout):
        found.append(f"{NOT_FORWARDED}: `hivewire local down`, then `local up` again")
    return found


@local.command()
@click.argument("node")
@click.option("--tasks", is_flag=True, help="Kill every process of its tasks too.")
@directory_option
def kill(node: str, tasks: bool, directory: Path) -> None:
    """Kill -9 a node's daemon."""
    _command(directory, Request(do="kill", node=node, tasks=tasks))


@local.command(name="start")
@click.argument("node")
@directory_option
def start_node(node: str, directory: Path) -> None:
    """Start the daemon of a node that was killed."""
    _command(directory, Request(do="start", node=node))


def _command(directory: Path, request: Request) -> None:
    try:
        ask(load(directory).control_socket, request)
    except ClusterError as error:
        raise click.ClickException(str(error)) from error
    click.echo(request.node)
