"""Lists and objects on the terminal: tables, JSON, templates, ids only (pure but for echo)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import click

from cluster.cli import template
from cluster.cli.document import Document

ID_LENGTH_SHORT = 12
_GAP = 3
_MINUTE, _HOUR, _DAY, _WEEK, _MONTH, _YEAR = 60, 3600, 86400, 604800, 2592000, 31536000

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with named fields, and which of them a plain table shows, under which header."""

    headers: Mapping[str, str]
    """Field -> header, in order."""
    rows: Sequence[Row]


def show(table: Table, style: str, *, quiet: bool = False) -> None:
    """Print a list in the style that `--format` and `--quiet` ask for."""
    template.check(style)
    if quiet and style in ("", "table"):
        for row in table.rows:
            click.echo(row["ID"])
    elif style == "json":
        for row in table.rows:
            click.echo(json.dumps(dict(row), ensure_ascii=False))
    elif style in ("", "table"):
        columns = list(table.headers)
        lines = [list(table.headers.values())]
        lines += [[row.get(column, "") for column in columns] for row in table.rows]
        _print_aligned(lines)
    elif style.startswith("table "):
        columns = template.fields_of(style)
        lines = [[table.headers.get(column, column.upper()) for column in columns]]
        lines += [
            template.render(style.removeprefix("table ").strip(), dict(row)).split("\t")
            for row in table.rows
        ]
        _print_aligned(lines)
    else:
        for row in table.rows:
            click.echo(template.render(style, dict(row)))


def show_objects(objects: Sequence[Document], style: str) -> None:
    """Print whole objects, as `inspect` does."""
    template.check(style)
    if style in ("", "json"):
        indent = None if style == "json" else 4
        values = [item.raw() for item in objects]
        click.echo(json.dumps(values, indent=indent, ensure_ascii=False))
    else:
        for item in objects:
            click.echo(template.render(style, item.raw()))


def _print_aligned(lines: Sequence[Sequence[str]]) -> None:
    widths = [
        max((len(line[i]) for line in lines if i < len(line)), default=0) + _GAP
        for i in range(max(map(len, lines), default=0))
    ]
    for line in lines:
        cells = [cell.ljust(widths[i]) for i, cell in enumerate(line[:-1])]
        click.echo("".join([*cells, *line[-1:]]).rstrip())


def short(identifier: str, *, full: bool = False) -> str:
    """Return an id as lists show it."""
    return identifier if full else identifier[:ID_LENGTH_SHORT]


def ago(timestamp: str, now: datetime | None = None) -> str:
    """Return how long ago an RFC 3339 time was, in Docker's words; empty if it is none."""
    try:
        then = datetime.fromisoformat(timestamp[:19]).replace(tzinfo=UTC)
    except ValueError:
        return ""
    return f"{duration(((now or datetime.now(UTC)) - then).total_seconds())} ago"


def moment(name: str, timestamp: str) -> dict[str, str]:
    """Return the fields of an RFC 3339 time: `name` for people, `nameAt` for scripts."""
    return {name: ago(timestamp), f"{name}At": timestamp}


def duration(seconds: float) -> str:
    """Return a length of time in Docker's words: `About a minute`, `3 hours`."""
    for limit, text in (
        (1, "Less than a second"), (2, "1 second"), (_MINUTE, f"{int(seconds)} seconds"),
        (2 * _MINUTE, "About a minute"), (_HOUR, f"{int(seconds // _MINUTE)} minutes"),
        (2 * _HOUR, "About an hour"), (2 * _DAY, f"{int(seconds // _HOUR)} hours"),
        (2 * _WEEK, f"{int(seconds // _DAY)} days"), (2 * _MONTH, f"{int(seconds // _WEEK)} weeks"),
        (2 * _YEAR, f"{int(seconds // _MONTH)} months"),
    ):  # fmt: skip
        if seconds < limit:
            return text
    return f"{int(seconds // _YEAR)} years"
