"""`hivewire network`: overlay networks."""

from __future__ import annotations

import click

from cluster.cli.client import segment
from cluster.cli.document import Document
from cluster.cli.failure import Failure, Refused
from cluster.cli.options import client, format_option, list_options
from cluster.cli.output import Table, short, show, show_objects
from cluster.cli.values import filters as parse_filters
from cluster.cli.values import key_values, only_one

_HEADERS = {
    "ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "Subnet": "SUBNET",
}  # fmt: skip


@click.group()
def network() -> None:
    """Manage overlay networks."""


@network.command("ls")
@list_options
def list_networks(*, filters: tuple[str, ...], style: str, quiet: bool, no_trunc: bool) -> None:
    """List the networks."""
    networks = client().get("/networks", {"filters": parse_filters(filters)}).items()
    rows = [_row(item, full=no_trunc) for item in sorted(networks, key=lambda n: n.text("Name"))]
    show(Table(_HEADERS, rows), style, quiet=quiet)


def _row(item: Document, *, full: bool) -> dict[str, str]:
    return {
        "ID": short(item.text("Id"), full=full),
        "Name": item.text("Name"),
        "Driver": item.text("Driver"),
        "Scope": item.text("Scope"),
        "Subnet": ", ".join(config.text("Subnet") for config in item.items("IPAM.Config")),
        "Internal": str(item.flag("Internal")).lower(),
        "CreatedAt": item.text("Created"),
    }


@network.command()
@click.argument("name")
@click.option("-d", "--driver", default="overlay", show_default=True)
@only_one("--subnet", metavar="CIDR", help="Else one from the cluster's pool.")
@only_one("--gateway", metavar="IP", help="Else the subnet's first address.")
@only_one("--ip-range", metavar="CIDR", help="Give addresses from here only.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE")
@click.option("-o", "--opt", "options", multiple=True, metavar="KEY=VALUE")
@click.option("--attachable", is_flag=True)
@click.option("--internal", is_flag=True, help="No way out of this network.")
@click.option("--ingress", is_flag=True, help="The network of published ports.")
def create(
    *,
    name: str,
    driver: str,
    subnet: str,
    gateway: str,
    ip_range: str,
    labels: tuple[str, ...],
    options: tuple[str, ...],
    attachable: bool,
    internal: bool,
    ingress: bool,
) -> None:
    """Create a network and print its id."""
    address = {"Subnet": subnet, "Gateway": gateway, "IPRange": ip_range}
    config = (
        [{key: value for key, value in address.items() if value}] if any(address.values()) else []
    )
    answer = client().post("/networks/create", body={
        "Name": name,
        "Driver": driver,
        "Attachable": attachable,
        "Internal": internal,
        "Ingress": ingress,
        "IPAM": {"Driver": "default", "Config": config},
        "Options": key_values(options),
        "Labels": key_values(labels),
    })  # fmt: skip
    click.echo(answer.text("Id"))


@network.command()
@click.argument("names", nargs=-1, required=True, metavar="NETWORK...")
@click.option("-v", "--verbose", is_flag=True, help="With services and their endpoints.")
@format_option
def inspect(*, names: tuple[str, ...], verbose: bool, style: str) -> None:
    """Show everything about networks."""
    daemon = client()
    query = {"verbose": "true"} if verbose else None
    show_objects([daemon.get(f"/networks/{segment(name)}", query) for name in names], style)


@network.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NETWORK...")
@click.option(
    "-f", "--force", is_flag=True,
    help="No question, and no error for a network that does not exist.",
)  # fmt: skip
def remove(*, names: tuple[str, ...], force: bool) -> None:
    """Delete networks that nothing uses."""
    daemon = client()
    failures: list[str] = []
    for name in names:
        path = f"/networks/{segment(name)}"
        try:
            if not force and daemon.get(path).flag("Ingress"):
                click.confirm(f"Delete {name}? No port can be published without it.", abort=True)
            daemon.delete(path)
            click.echo(name)
        except Refused as error:
            if not (force and error.status == 404):  # noqa: PLR2004  (HTTP: not found)
                failures.append(error.format_message())
    if failures:
        raise Failure("\n".join(failures))


@network.command()
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
def prune(*, force: bool) -> None:
    """Delete all networks that nothing uses."""
    if not force:
        click.confirm("Delete all networks that no service uses?", abort=True)
    deleted = client().post("/networks/prune").texts("NetworksDeleted")
    if deleted:
        click.echo("Deleted Networks:\n" + "\n".join(deleted))
