"""Commands start fast because they import little, and every group is documented."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from cluster.cli.main import main

SLOW = ("aiohttp", "asyncio", "msgspec", "cryptography", "rich", "pyroute2", "cluster.api")


def test_service_ls_imports_nothing_slow() -> None:
    program = (
        "import sys; from cluster.cli.main import main; import cluster.cli.service;"
        f"print([m for m in {SLOW!r} if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["daemon", "events", "info", "network", "node", "service",
                                  "swarm", "task", "version"])  # fmt: skip
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    command = main.get_command(click.Context(main), name)
    assert command is not None
    subcommands = command.commands.values() if isinstance(command, click.Group) else [command]
    for subcommand in subcommands:
        assert subcommand.help


def test_help_and_usage_errors() -> None:
    assert "Exit codes" in CliRunner().invoke(main, ["--help"]).output
    assert CliRunner().invoke(main, ["nonsense"]).exit_code == 2
    assert CliRunner().invoke(main, ["service", "create", "host"]).exit_code == 2
