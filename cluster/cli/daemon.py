"""`hivewire daemon`: run a node in the foreground."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

import click

from cluster.cli.values import host_and_port, key_values
from cluster.node import footprint
from cluster.node.config import GOSSIP_PORT, NodeConfig, Profile

_LEVELS = ("debug", "info", "warning", "error")


@click.command()
@click.option(
    "--data-root",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the node's state lives.",
)
@click.option(
    "--run-root",
    "--exec-root",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where sockets and network namespaces live.",
)
@click.option(
    "--listen",
    "socket_path",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The API's unix socket. [hivewire.sock in the run root]",
)
@click.option("--socket-group", default="", help="Group that may use the API.")
@click.option("--hostname", help="Name of this node. [the machine's]")
@click.option(
    "--profile",
    type=click.Choice([p.value for p in Profile]),
    default=Profile.LAN.value,
    show_default=True,
    help="Timing of failure detection.",
)
@click.option("--gossip-port", type=int, default=GOSSIP_PORT, show_default=True)
@click.option(
    "--metrics-listen",
    type=host_and_port,
    metavar="HOST:PORT",
    help="Serve /metrics here too, to anybody. [only on the API's socket]",
)
@click.option(
    "--published-port-min",
    type=int,
    default=1,
    show_default=True,
    help="Warn of published ports below: they do not answer where the user is.",
)
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Engine label.")
@click.option("--log-level", type=click.Choice(_LEVELS), default="info", show_default=True)
def daemon(
    *,
    data_root: Path | None,
    run_root: Path | None,
    socket_path: Path | None,
    socket_group: str,
    hostname: str | None,
    profile: str,
    gossip_port: int,
    metrics_listen: tuple[str, int] | None,
    published_port_min: int,
    labels: tuple[str, ...],
    log_level: str,
) -> None:
    """Run a node until it is told to stop (SIGTERM); its tasks go on running."""
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    defaults = NodeConfig()
    config = NodeConfig(
        data_root=data_root or defaults.data_root,
        run_root=run_root or defaults.run_root,
        socket_path=_path(socket_path),
        socket_group=socket_group,
        hostname=hostname or defaults.hostname,
        profile=Profile(profile),
        gossip_port=gossip_port,
        metrics_listen=metrics_listen,
        published_port_min=published_port_min,
        labels=tuple(key_values(labels).items()),
    )
    footprint.before_imports()
    with footprint.without_public_authorities():
        run_daemon = importlib.import_module("cluster.node.daemon").run_daemon
    run_daemon(config)


def _path(socket_path: Path | None) -> Path | None:
    """Return the path in `unix:///path` or `/path`."""
    if socket_path is None:
        return None
    text = str(socket_path)
    return Path(text.removeprefix("unix:")) if text.startswith("unix:") else socket_path
