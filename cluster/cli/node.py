"""`hivewire node`: members of the cluster."""

from __future__ import annotations

import click

from cluster.cli.client import Client, segment
from cluster.cli.document import Document
from cluster.cli.failure import Failure, Refused
from cluster.cli.options import client, format_option, list_options
from cluster.cli.output import Table, show, show_objects
from cluster.cli.task import show_tasks
from cluster.cli.values import filters as parse_filters
from cluster.cli.values import key_values

_HEADERS = {
    "ID": "ID", "Hostname": "HOSTNAME", "Status": "STATUS", "Availability": "AVAILABILITY",
    "ManagerStatus": "MANAGER STATUS", "EngineVersion": "ENGINE VERSION",
}  # fmt: skip


@click.group()
def node() -> None:
    """Manage nodes."""


@node.command("ls")
@list_options
def list_nodes(*, filters: tuple[str, ...], style: str, quiet: bool, no_trunc: bool) -> None:
    """List the nodes of the cluster; `*` marks this one."""
    del no_trunc  # ids of nodes are always shown whole, as docker does
    daemon = client()
    nodes = daemon.get("/nodes", {"filters": parse_filters(filters)}).items()
    own_id = daemon.get("/info").text("Swarm.NodeID") if not quiet else ""
    rows = [_row(item, own_id) for item in sorted(nodes, key=_hostname)]
    show(Table(_HEADERS, rows), style, quiet=quiet)


def _hostname(item: Document) -> str:
    return item.text("Description.Hostname")


def _row(item: Document, own_id: str) -> dict[str, str]:
    manager = item.at("ManagerStatus")
    standing = "Leader" if manager.flag("Leader") else manager.text("Reachability").capitalize()
    is_self = item.text("ID") == own_id
    return {
        "ID": item.text("ID") + (" *" if is_self else ""),
        "Hostname": _hostname(item),
        "Status": item.text("Status.State").capitalize(),
        "Availability": item.text("Spec.Availability").capitalize(),
        "ManagerStatus": standing,
        "EngineVersion": item.text("Description.Engine.EngineVersion"),
        "Self": str(is_self).lower(),
    }


@node.command()
@click.argument("names", nargs=-1, required=True, metavar="NODE|self...")
@format_option
def inspect(names: tuple[str, ...], style: str) -> None:
    """Show everything about nodes."""
    daemon = client()
    show_objects([_find(daemon, name) for name in names], style)


@node.command()
@click.argument("name", metavar="NODE")
@click.option("--availability", type=click.Choice(["active", "pause", "drain"]))
@click.option("--label-add", multiple=True, metavar="KEY=VALUE")
@click.option("--label-rm", multiple=True, metavar="KEY")
@click.option("--role", type=click.Choice(["worker", "manager"]))
def update(
    *,
    name: str,
    availability: str | None,
    label_add: tuple[str, ...],
    label_rm: tuple[str, ...],
    role: str | None,
) -> None:
    """Change a node's availability or labels."""
    daemon = client()
    item = _find(daemon, name)
    spec = item.fields("Spec")
    labels = {**item.fields("Spec.Labels"), **key_values(label_add)}
    for key in label_rm:
        labels.pop(key, None)
    spec["Labels"] = labels
    if availability:
        spec["Availability"] = availability
    if role:
        spec["Role"] = role
    version = str(item.number("Version.Index"))
    daemon.post(f"/nodes/{segment(item.text('ID'))}/update", {"version": version}, spec)
    click.echo(name)


@node.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NODE...")
@click.option("-f", "--force", is_flag=True, help="Remove a worker that is not down, too.")
def remove(*, names: tuple[str, ...], force: bool) -> None:
    """Remove nodes that have left."""
    daemon = client()
    failures: list[str] = []
    for name in names:
        try:
            daemon.delete(f"/nodes/{segment(name)}", {"force": "1"} if force else None)
            click.echo(name)
        except Refused as error:
            failures.append(error.format_message())
    if failures:
        raise Failure("\n".join(failures))


@node.command("ps")
@click.argument("names", nargs=-1, metavar="[NODE|self...]")
@list_options
def tasks(
    *, names: tuple[str, ...], filters: tuple[str, ...], style: str, quiet: bool, no_trunc: bool
) -> None:
    """List the tasks of nodes (of this one, when none is named)."""
    daemon = client()
    ids = [_find(daemon, name).text("ID") for name in names or ("self",)]
    query = {**parse_filters(filters), "node": ids}
    show_tasks(daemon, query, style, quiet=quiet, full=no_trunc)


def _find(daemon: Client, name: str) -> Document:
    if name == "self":
        name = daemon.get("/info").text("Swarm.NodeID")
        if not name:
            raise Failure("this node is not part of a swarm")
    return daemon.get(f"/nodes/{segment(name)}")
