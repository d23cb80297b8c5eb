"""Entry point: groups of commands, each imported only when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click

from cluster.cli.failure import EXIT_INTERRUPTED

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "daemon": ("cluster.cli.daemon", "daemon"),
    "events": ("cluster.cli.system", "events"),
    "gossip": ("cluster.cli.gossip", "gossip"),
    "info": ("cluster.cli.system", "info"),
    "local": ("cluster.cli.local", "local"),
    "network": ("cluster.cli.network", "network"),
    "node": ("cluster.cli.node", "node"),
    "service": ("cluster.cli.service", "service"),
    "sim": ("cluster.cli.sim", "sim"),
    "swarm": ("cluster.cli.swarm", "swarm"),
    "task": ("cluster.cli.task", "task"),
    "version": ("cluster.cli.system", "version"),
}
"""Name -> module and attribute."""

_HELP: Mapping[str, str] = {
    "daemon": "Run a node.",
    "events": "Print what happens in the cluster, as it happens.",
    "gossip": "Show what this node knows of the others.",
    "info": "Show this node and its cluster.",
    "local": "Run a cluster of several nodes on this machine.",
    "network": "Manage overlay networks.",
    "node": "Manage nodes.",
    "service": "Manage services.",
    "sim": "Simulate gossip among many nodes.",
    "swarm": "Make, join and leave a cluster.",
    "task": "Look at tasks.",
    "version": "Show the versions of client and daemon.",
}
"""Short help, so that `hivewire --help` imports nothing."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command: object = getattr(importlib.import_module(entry[0]), entry[1])
        return command if isinstance(command, click.Command) else None

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise SystemExit(EXIT_INTERRUPTED) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, _HELP[name]) for name in sorted(_COMMANDS)])


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 125 no daemon answers, "
    "130 interrupted.",
)
@click.option(
    "-H",
    "--host",
    default="",
    metavar="unix://PATH",
    help="The daemon's socket; else HIVEWIRE_HOST, DOCKER_HOST, or the default place.",
)
def main(host: str) -> None:
    """Docker Swarm's service networks for processes, without the Docker Engine."""
    del host  # `options.client` reads it from the context, where it is when a command runs


if __name__ == "__main__":
    main()
