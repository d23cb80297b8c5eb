"""`hivewire task`, and the lists of tasks that `service ps` and `node ps` show."""

from __future__ import annotations

from collections.abc import Mapping

import click

from cluster.cli.client import Client, segment
from cluster.cli.document import Document
from cluster.cli.options import client, format_option, list_options
from cluster.cli.output import Table, ago, short, show, show_objects
from cluster.cli.values import filters as parse_filters

_HEADERS = {
    "ID": "ID", "Name": "NAME", "Image": "IMAGE", "Node": "NODE", "DesiredState": "DESIRED STATE",
    "CurrentState": "CURRENT STATE", "Error": "ERROR", "Ports": "PORTS",
}  # fmt: skip
_ERROR_LENGTH_MAX = 40


@click.group()
def task() -> None:
    """Look at tasks."""


@task.command("ls")
@list_options
def list_tasks(*, filters: tuple[str, ...], style: str, quiet: bool, no_trunc: bool) -> None:
    """List tasks of all services."""
    show_tasks(client(), parse_filters(filters), style, quiet=quiet, full=no_trunc)


@task.command()
@click.argument("names", nargs=-1, required=True, metavar="TASK...")
@format_option
def inspect(*, names: tuple[str, ...], style: str) -> None:
    """Show everything about tasks."""
    daemon = client()
    show_objects([daemon.get(f"/tasks/{segment(name)}") for name in names], style)


def show_tasks(
    daemon: Client, query: Mapping[str, list[str]], style: str, *, quiet: bool, full: bool
) -> None:
    """Print the tasks that the filters let through, each slot's newest first."""
    tasks = daemon.get("/tasks", {"filters": query}).items()
    services = {s.text("ID"): s.text("Spec.Name") for s in daemon.get("/services").items()}
    nodes = {n.text("ID"): n.text("Description.Hostname") for n in daemon.get("/nodes").items()}
    tasks.sort(key=lambda t: t.text("CreatedAt"), reverse=True)
    tasks.sort(key=lambda t: (services.get(t.text("ServiceID"), ""), _slot(t)))
    rows: list[dict[str, str]] = []
    previous = ""
    for item in tasks:
        service = services.get(item.text("ServiceID"), item.text("ServiceID"))
        name = f"{service}.{item.number('Slot') or item.text('NodeID')}"
        is_history = name == previous and not quiet
        previous = name
        rows.append(_row(item, f"\\_ {name}" if is_history else name, nodes, full=full))
    show(Table(_HEADERS, rows), style, quiet=quiet)


def _slot(item: Document) -> tuple[int, str]:
    slot = item.number("Slot")
    return slot, "" if slot else item.text("NodeID")


def _row(item: Document, name: str, nodes: Mapping[str, str], *, full: bool) -> dict[str, str]:
    node_id = item.text("NodeID")
    error = item.text("Status.Err")
    if error and not full and len(error) > _ERROR_LENGTH_MAX:
        error = error[: _ERROR_LENGTH_MAX - 1] + "…"
    state = item.text("Status.State").capitalize()
    return {
        "ID": short(item.text("ID"), full=full),
        "Name": name,
        "Image": item.text("Spec.ContainerSpec.Image"),
        "Node": nodes.get(node_id, node_id),
        "DesiredState": item.text("DesiredState").capitalize(),
        "CurrentState": f"{state} {ago(item.text('Status.Timestamp')).lower()}".strip(),
        "Error": f'"{error}"' if error else "",
        "Ports": ", ".join(
            f"*:{p.number('PublishedPort')}->{p.number('TargetPort')}/{p.text('Protocol')}"
            for p in item.items("Status.PortStatus.Ports")
        ),
    }
