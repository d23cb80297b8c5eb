"""Tables, templates, times."""

from __future__ import annotations

from datetime import UTC, datetime

import click
import pytest

from cluster.cli import template
from cluster.cli.document import Document
from cluster.cli.output import Table, ago, duration, show, show_objects

TABLE = Table(
    {"ID": "ID", "Name": "NAME"},
    [{"ID": "1", "Name": "web", "Extra": "x"}, {"ID": "20", "Name": "database", "Extra": "y"}],
)


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("", "ID   NAME\n1    web\n20   database\n"),
        ("table {{.Name}}\\t{{.Extra}}", "NAME       EXTRA\nweb        x\ndatabase   y\n"),
        ("{{.ID}}:{{upper .Name}}", "1:WEB\n20:DATABASE\n"),
        ("json", ('{"ID": "1", "Name": "web", "Extra": "x"}\n'
                  '{"ID": "20", "Name": "database", "Extra": "y"}\n')),
    ],
)  # fmt: skip
def test_lists(capsys: pytest.CaptureFixture[str], style: str, text: str) -> None:
    show(TABLE, style)
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("style", ["{{", "{{.ID", "table {{.ID}} {{", "{{range .}}"])
def test_bad_templates_are_refused_though_there_is_nothing_to_print(style: str) -> None:
    with pytest.raises(click.UsageError):
        show(Table({"ID": "ID"}, []), style)


def test_ids_only(capsys: pytest.CaptureFixture[str]) -> None:
    show(TABLE, "", quiet=True)
    assert capsys.readouterr().out == "1\n20\n"


def test_objects(capsys: pytest.CaptureFixture[str]) -> None:
    show_objects([Document({"A": {"B": [1, 2]}})], "{{.A.B}} {{json .A}} {{len .A.B}} {{.A.C}}")
    assert capsys.readouterr().out == '[1 2] {"B":[1,2]} 2 <no value>\n'
    show_objects([Document({"A": 1})], "")
    assert capsys.readouterr().out == '[\n    {\n        "A": 1\n    }\n]\n'


@pytest.mark.parametrize(
    "text", ["{{range .A}}{{end}}", "{{.A | json}}", "{{nofunction .A}}", "{{.Nope}}", "{{}}"]
)
def test_templates_that_are_not_offered(text: str) -> None:
    with pytest.raises(click.UsageError):
        template.render(text, {"A": 1})


def test_values_in_templates() -> None:
    value = {"M": {"b": True, "a": None}, "S": "x"}
    assert template.render("{{.M}}", value) == "map[a:<no value> b:true]"
    assert template.render("{{ title .S }}", value) == "X"
    assert template.render("{{json .}}", value) == '{"M":{"b":true,"a":null},"S":"x"}'


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (61, "About a minute"),
     (120, "2 minutes"), (3600, "About an hour"), (3 * 3600, "3 hours"), (3 * 86400, "3 days"),
     (20 * 86400, "2 weeks"), (90 * 86400, "3 months"), (900 * 86400, "2 years")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_ago() -> None:
    now = datetime(2026, 1, 1, 0, 1, 5, tzinfo=UTC)
    assert ago("2026-01-01T00:00:00.123456Z", now) == "About a minute ago"
    assert ago("", now) == ""


def test_documents_never_fail_on_what_is_absent() -> None:
    document = Document({"a": {"b": 5, "c": [{"d": "x"}]}})
    assert document.number("a.b") == 5
    assert document.text("a.b.c") == ""
    assert document.at("a").items("c")[0].text("d") == "x"
    assert document.items("a.b") == []
    assert document.fields("a.c") == {}
    assert not document.flag("a")
