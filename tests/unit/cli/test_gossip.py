"""`hivewire gossip`: tables that people can read, templates, JSON."""

from __future__ import annotations

import json
import re

import pytest

from tests.unit.api.fixed_gossip import LOCAL
from tests.unit.cli.conftest import Shell


@pytest.fixture
def node(outside: Shell) -> Shell:
    """Return a shell on a node that gossips; no manager answers."""
    outside.backend.local_gossip = LOCAL
    return outside


def table(text: str) -> list[list[str]]:
    return [re.split(r" {2,}", line) for line in text.splitlines()]


async def test_members(node: Shell) -> None:
    lines = table(await node.run("gossip", "members"))
    assert lines[0] == ["NODE", "STATE", "SINCE", "FROM", "ADDRESS", "RTT", "INCARNATION"]
    assert [line[0] for line in lines[1:]] == ["m1 *", "c", "d", "e", "w1"]
    assert [line[1] for line in lines[1:]] == [
        "Alive", "Suspect (dead in less than a second)", "Alive (relay only)", "Left", "Alive",
    ]  # fmt: skip
    assert lines[1][2].endswith(" years ago")
    assert [line[3] for line in lines[1:]] == ["Itself", "w1", "Itself", "Managers", "Itself"]
    assert [line[5] for line in lines[1:]] == ["-", "-", "0.40ms", "-", "1.23ms"]


async def test_round_trips_shortest_first(node: Shell) -> None:
    lines = table(await node.run("gossip", "rtt"))
    assert lines[0] == ["NODE", "RTT", "PATH", "STATE", "ADDRESS"]
    assert [line[:3] for line in lines[1:]] == [
        ["d", "0.40ms", "Relay only"], ["w1", "1.23ms", "Direct"], ["c", "-", "-"], ["e", "-", "-"],
    ]  # fmt: skip


async def test_tables(node: Shell) -> None:
    lines = table(await node.run("gossip", "tables"))
    assert lines[0] == [
        "TABLE",
        "OWNER",
        "VERSION",
        "RECORDS",
        "DELETED",
        "SIZE",
        "VISIBLE",
        "WRITTEN",
    ]
    assert lines[2] == ["shop", "c", "0", "0", "0", "0B", "No"]
    assert lines[3][:7] == ["shop", "w1", "4", "2", "1", "321B", "Yes"]


async def test_records_of_a_table(node: Shell) -> None:
    lines = table(await node.run("gossip", "tables", "shop"))
    assert lines[0] == ["OWNER", "KEY", "VERSION", "STATE", "SIZE", "WRITTEN"]
    assert [line[:4] for line in lines[1:]] == [
        ["c", "t3", "1", "Hidden"], ["w1", "t1", "3", "Visible"], ["w1", "t2", "4", "Deleted"],
    ]  # fmt: skip
    assert "holds no table 'nope'" in await node.run("gossip", "tables", "nope", code=1)


async def test_keys(node: Shell) -> None:
    lines = table(await node.run("gossip", "keys"))
    assert lines[0] == ["ID", "STATE", "SINCE", "PACKETS OPENED"]
    assert lines[1][::3] == ["1", "12"]
    assert (lines[2][1], lines[2][2][-9:]) == ("Primary", "years ago")


async def test_templates_and_json(node: Shell) -> None:
    assert await node.run("gossip", "members", "--format", "{{.Node}} {{.State}}") == (
        "m1 * Alive\nc Suspect (dead in less than a second)\nd Alive (relay only)\ne Left\n"
        "w1 Alive\n"
    )
    text = await node.run("gossip", "keys", "--format", "table {{.ID}}\t{{.State}}")
    assert table(text)[1] == ["1", "Retired"]
    first, *_ = (await node.run("gossip", "members", "--format", "json")).splitlines()
    assert json.loads(first)["ID"] == "a"
    for command in (["members"], ["keys"], ["tables"], ["tables", "shop"]):
        text = await node.run("gossip", *command, "--format", "{{json .}}")
        moments = [
            row.get("SinceAt", row.get("WrittenAt")) for row in map(json.loads, text.splitlines())
        ]
        assert any(moments)
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z|", moment) for moment in moments)
    await node.run("gossip", "rtt", "--format", "{{.Nope}}", code=2)


async def test_in_no_cluster(outside: Shell) -> None:
    for command in ("members", "tables", "keys", "rtt"):
        text = await outside.run("gossip", command, code=1)
        assert "This node is not part of a swarm" in text
