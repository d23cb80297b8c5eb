"""What several commands share: the client of this invocation, common options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from cluster.cli.client import Client, default_host

_Function = TypeVar("_Function", bound=Callable[..., Any])


def client() -> Client:
    """Return a client for the host that the command line, or the environment, names."""
    root = click.get_current_context().find_root()
    host = root.params.get("host")
    return Client(host if isinstance(host, str) and host else default_host())


def list_options(function: _Function) -> _Function:
    """Add the options of every `ls`: --format, --quiet, --filter, --no-trunc."""
    for option in (
        click.option("--no-trunc", is_flag=True, help="Do not shorten ids."),
        click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE",
                     help="Show only what matches; may be repeated."),
        click.option("-q", "--quiet", is_flag=True, help="Print ids only."),
        format_option,
    ):  # fmt: skip
        function = option(function)
    return function


def format_option(function: _Function) -> _Function:
    """Add `--format`."""
    return click.option(
        "--format",
        "style",
        default="",
        metavar="json|table|TEMPLATE",
        help="How to print: json, table, or a template like '{{.Name}} {{.ID}}'.",
    )(function)


def detach_options(function: _Function) -> _Function:
    """Add `--detach` and `--quiet`, for commands that wait until a service has converged."""
    for option in (
        click.option("-q", "--quiet", is_flag=True, help="Print no progress."),
        click.option("-d", "--detach", is_flag=True,
                     help="Do not wait until the service is as wished."),
    ):  # fmt: skip
        function = option(function)
    return function
