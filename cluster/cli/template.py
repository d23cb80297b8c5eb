"""`--format`: the part of Go's templates that people use on a command line (pure).

`{{.Field}}`, `{{.Spec.Name}}`, `{{json .}}`, `{{json .Field}}`, and upper, lower, title, len,
println. Everything else (range, if, pipes) is refused with a usage error, never ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

import click

from cluster.cli.document import Document

_TOKEN = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_EXPRESSION = re.compile(r"(?:(?P<function>[a-z]+)\s+)?\.(?P<path>[A-Za-z0-9_.]*)")
_ESCAPES = {"\\t": "\t", "\\n": "\n"}

_FUNCTIONS: Mapping[str, Callable[[object], str]] = {
    "json": lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False),
    "upper": lambda value: _plain(value).upper(),
    "lower": lambda value: _plain(value).lower(),
    "title": lambda value: _plain(value).title(),
    "println": lambda value: f"{_plain(value)}\n",
    "len": lambda value: str(_length(value)),
}


def render(template: str, value: object) -> str:
    """Return the template filled with a value.

    Raises:
        click.UsageError: the template uses what is not offered, or names an absent field.
    """
    for escape, character in _ESCAPES.items():
        template = template.replace(escape, character)
    return _TOKEN.sub(lambda match: _fill(match[1], value), template)


def check(template: str) -> None:
    """Refuse what no value can be filled into, though there may be no value.

    Raises:
        click.UsageError: the template uses what is not offered, or is not complete.
    """
    for token in _TOKEN.findall(template):
        _parse(token)
    if "{{" in _TOKEN.sub("", template):
        raise click.UsageError("--format: a {{ has no }}")


def fields_of(template: str) -> list[str]:
    """Return the fields that a template names, in order: a table's columns."""
    matches = [_EXPRESSION.fullmatch(token.strip(" -")) for token in _TOKEN.findall(template)]
    return [m["path"] for m in matches if m]


def _parse(token: str) -> re.Match[str]:
    expression = token.strip(" -")
    match = _EXPRESSION.fullmatch(expression)
    if match is None or (match["function"] or "json") not in _FUNCTIONS:
        raise click.UsageError(
            f"--format: {{{{{expression}}}}} is not offered; use {{{{.Field}}}} or "
            f"{{{{json .Field}}}}"
        )
    return match


def _fill(token: str, value: object) -> str:
    match = _parse(token)
    path = match["path"]
    found = Document(value).get(path)
    if found is None and not path.count("."):
        raise click.UsageError(f"--format: there is no field {path!r}")
    return _FUNCTIONS[match["function"]](found) if match["function"] else _plain(found)


def _plain(value: object) -> str:
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return str(value).lower()
    document = Document(value)
    if isinstance(value, dict):
        pairs = sorted(document.fields().items())
        return f"map[{' '.join(f'{key}:{_plain(item)}' for key, item in pairs)}]"
    if isinstance(value, list):
        return f"[{' '.join(_plain(item.raw()) for item in document.items())}]"
    return str(value)


def _length(value: object) -> int:
    document = Document(value)
    return len(document.text("")) or len(document.items()) or len(document.fields())
