"""`hivewire swarm`: make, join and leave a cluster."""

from __future__ import annotations

import sys

import click

from cluster.cli.client import Client, segment
from cluster.cli.document import Document
from cluster.cli.failure import Failure
from cluster.cli.options import client, format_option
from cluster.cli.output import Table, moment, show
from cluster.cli.values import duration_ns

_LISTEN = "0.0.0.0:2377"
_ROLES = click.Choice(["worker", "manager"])
_AVAILABILITY = click.Choice(["active", "pause", "drain"])


@click.group()
def swarm() -> None:
    """Make, join and leave a cluster."""


@swarm.command()
@click.option("--advertise-addr", default="", help="Address that other nodes use: IP, interface.")
@click.option("--listen-addr", default=_LISTEN, show_default=True, help="Address to listen on.")
@click.option("--data-path-addr", default="", help="Address for the overlay's traffic.")
@click.option("--data-path-port", type=int, default=0, help="UDP port of the overlay. [4789]")
@click.option("--default-addr-pool", multiple=True, metavar="CIDR", help="Where subnets come from.")
@click.option("--default-addr-pool-mask-length", type=int, default=24, show_default=True)
@click.option("--availability", type=_AVAILABILITY, default="active", show_default=True)
@click.option("--task-history-limit", type=int, default=5, show_default=True)
@click.option(
    "--dispatcher-heartbeat", type=duration_ns, metavar="DURATION", default="5s", show_default=True
)
@click.option(
    "--cert-expiry", type=duration_ns, metavar="DURATION", default="2160h", show_default=True
)
@click.option(
    "--key-rotation",
    type=duration_ns,
    metavar="DURATION",
    default="12h",
    show_default=True,
    help="Period of new gossip keys.",
)
@click.option("--force-new-cluster", is_flag=True, help="Make one of what this manager knows.")
def init(
    *,
    advertise_addr: str,
    listen_addr: str,
    data_path_addr: str,
    data_path_port: int,
    default_addr_pool: tuple[str, ...],
    default_addr_pool_mask_length: int,
    availability: str,
    task_history_limit: int,
    dispatcher_heartbeat: int,
    cert_expiry: int,
    key_rotation: int,
    force_new_cluster: bool,
) -> None:
    """Make a cluster of this node."""
    daemon = client()
    node_id = daemon.post("/swarm/init", body={
        "ListenAddr": listen_addr,
        "AdvertiseAddr": advertise_addr,
        "DataPathAddr": data_path_addr,
        "DataPathPort": data_path_port,
        "DefaultAddrPool": list(default_addr_pool),
        "SubnetSize": default_addr_pool_mask_length,
        "ForceNewCluster": force_new_cluster,
        "Availability": availability,
        "Spec": {
            "Orchestration": {"TaskHistoryRetentionLimit": task_history_limit},
            "Dispatcher": {"HeartbeatPeriod": dispatcher_heartbeat},
            "CAConfig": {"NodeCertExpiry": cert_expiry},
            "GossipKeys": {"RotationPeriod": key_rotation},
        },
    }).text("")  # fmt: skip
    click.echo(f"Swarm initialized: current node ({node_id}) is now a manager.\n")
    _print_join_command(daemon, "worker")
    click.echo("To add a manager to this swarm, run 'hivewire swarm join-token manager'.")


@swarm.command()
@click.argument("remote", metavar="HOST[:PORT]")
@click.option(
    "--token",
    required=True,
    envvar="HIVEWIRE_JOIN_TOKEN",
    show_envvar=True,
    help="What `swarm join-token` prints; '-' reads it from stdin.",
)
@click.option("--advertise-addr", default="", help="Address that other nodes use: IP, interface.")
@click.option("--listen-addr", default=_LISTEN, show_default=True, help="Address to listen on.")
@click.option("--data-path-addr", default="", help="Address for the overlay's traffic.")
@click.option("--availability", type=_AVAILABILITY, default="active", show_default=True)
def join(
    *,
    remote: str,
    token: str,
    advertise_addr: str,
    listen_addr: str,
    data_path_addr: str,
    availability: str,
) -> None:
    """Join a cluster, as the role that the token is for."""
    daemon = client()
    secret = sys.stdin.readline().strip() if token == "-" else token  # noqa: S105
    daemon.post("/swarm/join", body={
        "ListenAddr": listen_addr,
        "AdvertiseAddr": advertise_addr,
        "DataPathAddr": data_path_addr,
        "RemoteAddrs": [remote],
        "JoinToken": secret,
        "Availability": availability,
    })  # fmt: skip
    is_manager = daemon.get("/info").flag("Swarm.ControlAvailable")
    click.echo(f"This node joined a swarm as a {'manager' if is_manager else 'worker'}.")


@swarm.command()
@click.option("-f", "--force", is_flag=True, help="Leave even if the cluster may lose its quorum.")
def leave(*, force: bool) -> None:
    """Leave the cluster; this node's tasks are stopped."""
    client().post("/swarm/leave", {"force": "1"} if force else None)
    click.echo("Node left the swarm.")


@swarm.command("join-token")
@click.argument("role", type=_ROLES)
@click.option("-q", "--quiet", is_flag=True, help="Print the token only.")
@click.option("--rotate", is_flag=True, help="Make a new token; the old one is worth nothing.")
def join_token(role: str, *, quiet: bool, rotate: bool) -> None:
    """Print how to join as a worker or a manager."""
    daemon = client()
    if rotate:
        cluster = daemon.get("/swarm")
        daemon.post(
            "/swarm/update",
            {"version": _version(cluster), f"rotate{role.capitalize()}Token": "true"},
            cluster.fields("Spec"),
        )
        if not quiet:
            click.echo(f"Successfully rotated {role} join token.\n")
    if quiet:
        click.echo(daemon.get("/swarm").text(f"JoinTokens.{role.capitalize()}"))
    else:
        _print_join_command(daemon, role)


@swarm.command()
@click.option("--task-history-limit", type=int, help="Ended tasks kept for each slot.")
@click.option(
    "--dispatcher-heartbeat",
    type=duration_ns,
    metavar="DURATION",
    help="Period of the nodes' heartbeats.",
)
@click.option(
    "--cert-expiry", type=duration_ns, metavar="DURATION", help="Validity of node certificates."
)
@click.option(
    "--key-rotation", type=duration_ns, metavar="DURATION", help="Period of new gossip keys."
)
def update(
    *,
    task_history_limit: int | None,
    dispatcher_heartbeat: int | None,
    cert_expiry: int | None,
    key_rotation: int | None,
) -> None:
    """Change the cluster's settings."""
    changes = (
        ("Orchestration", "TaskHistoryRetentionLimit", task_history_limit),
        ("Dispatcher", "HeartbeatPeriod", dispatcher_heartbeat),
        ("CAConfig", "NodeCertExpiry", cert_expiry),
        ("GossipKeys", "RotationPeriod", key_rotation),
    )
    if all(value is None for _, _, value in changes):
        raise click.UsageError("nothing to change: see --help")
    daemon = client()
    cluster = daemon.get("/swarm")
    spec = cluster.fields("Spec")
    for part, key, value in changes:
        if value is not None:
            spec[part] = {**Document(spec).fields(part), key: value}
    daemon.post("/swarm/update", {"version": _version(cluster)}, spec)
    click.echo("Swarm updated.")


@swarm.group(invoke_without_command=True)
@format_option
@click.pass_context
def keys(context: click.Context, *, style: str) -> None:
    """List the gossip keys, without their secrets; or rotate them.

    Nodes seal with the primary key and open what is sealed with any of them. A new key is accepted
    first; it becomes primary when every node that is up holds it. The one before is retired then,
    and goes when every node, down ones included, has acknowledged that, after ten minutes at the
    soonest; or when it was retired for one rotation period.
    """
    if context.invoked_subcommand is None:
        _show_keys(client().get("/swarm/keys"), style)


@keys.command("rotate")
@format_option
def rotate_keys(*, style: str) -> None:
    """Make a new gossip key now, ahead of the period, and list the keys.

    Nodes go on meanwhile, and lose no message. One rotation at a time: until every node that is up
    holds the new key, the next one is refused.
    """
    _show_keys(client().post("/swarm/keys/rotate"), style)


@swarm.command()
def ca() -> None:
    """Print the certificate that the cluster trusts."""
    certificate = client().get("/swarm").text("TLSInfo.TrustRoot")
    if not certificate:
        raise Failure("the daemon did not tell the cluster's certificate")
    click.echo(certificate, nl=not certificate.endswith("\n"))


def _show_keys(ring: Document, style: str) -> None:
    rows = [
        {
            "ID": str(key.number("ID")),
            "State": key.text("State").capitalize(),
            **moment("Since", key.text("Since")),
        }
        for key in ring.at("Keys").items()
    ]
    show(Table({"ID": "ID", "State": "STATE", "Since": "SINCE"}, rows), style)


def _version(cluster: Document) -> str:
    return str(cluster.number("Version.Index"))


def _print_join_command(daemon: Client, role: str) -> None:
    token = daemon.get("/swarm").text(f"JoinTokens.{role.capitalize()}")
    node_id = daemon.get("/info").text("Swarm.NodeID")
    address = daemon.get(f"/nodes/{segment(node_id)}").text("ManagerStatus.Addr")
    click.echo(f"To add a {role} to this swarm, run the following command:\n")
    click.echo(f"    hivewire swarm join --token {token} {address}\n")
