"""How a command fails: what is printed, and its exit code."""

from __future__ import annotations

from typing import IO, Any

import click

EXIT_ERROR = 1
"""The daemon refused, or the command failed."""
EXIT_USAGE = 2
"""The command line makes no sense (click's own)."""
EXIT_UNREACHABLE = 125
"""No daemon answers."""
EXIT_INTERRUPTED = 130
"""Ctrl-C."""


class Failure(click.ClickException):
    """Ends the command with a message and exit code 1."""

    exit_code = EXIT_ERROR

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message as it is: it says itself whose error it is."""
        click.echo(self.format_message(), file=file, err=file is None)


class Refused(Failure):
    """The daemon answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"Error response from daemon: {message}")
        self.status = status
        self.reason = message


class DaemonUnreachable(Failure):
    """Nothing answers at the socket, or it broke off."""

    exit_code = EXIT_UNREACHABLE
