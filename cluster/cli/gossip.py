"""`hivewire gossip`: what this node believes of the others, whatever the managers say."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from cluster.cli.client import segment
from cluster.cli.document import Document
from cluster.cli.options import client, format_option
from cluster.cli.output import Table, duration, moment, show

_API = "/hivewire/gossip"
_MEMBERS = {
    "Node": "NODE", "State": "STATE", "Since": "SINCE", "From": "FROM", "Address": "ADDRESS",
    "RoundTrip": "RTT", "Incarnation": "INCARNATION",
}  # fmt: skip
_LOGS = {
    "Scope": "TABLE", "Owner": "OWNER", "Version": "VERSION", "Records": "RECORDS",
    "Deleted": "DELETED", "Size": "SIZE", "Visible": "VISIBLE", "Written": "WRITTEN",
}  # fmt: skip
_RECORDS = {
    "Owner": "OWNER", "Key": "KEY", "Version": "VERSION", "State": "STATE", "Size": "SIZE",
    "Written": "WRITTEN",
}  # fmt: skip
_KEYS = {"ID": "ID", "State": "STATE", "Since": "SINCE", "Opened": "PACKETS OPENED"}
_RTT = {"Node": "NODE", "RoundTrip": "RTT", "Path": "PATH", "State": "STATE", "Address": "ADDRESS"}


@click.group()
def gossip() -> None:
    """Show what this node knows through gossip; on workers too."""


@gossip.command()
@format_option
def members(style: str) -> None:
    """List who is alive, since when and on whose word; `*` marks this node."""
    found = client().get(f"{_API}/members").items()
    found.sort(key=lambda item: (not item.flag("Self"), _name(item, "Name", "ID")))
    show(Table(_MEMBERS, [_member(item) for item in found]), style)


@gossip.command()
@click.argument("table", default="")
@format_option
def tables(table: str, style: str) -> None:
    """List what each node publishes in each table, or all records of one (a network's id or name).

    What is not visible is kept, and counts again when its owner is back.
    """
    daemon = client()
    if table:
        found = daemon.get(f"{_API}/tables/{segment(table)}").items()
        found.sort(key=lambda item: (_owner(item), item.text("Key")))
        show(Table(_RECORDS, [_record(item) for item in found]), style)
    else:
        found = daemon.get(f"{_API}/tables").items()
        found.sort(key=lambda item: (item.text("ScopeName"), _owner(item)))
        show(Table(_LOGS, [_log(item) for item in found]), style)


@gossip.command()
@format_option
def keys(style: str) -> None:
    """List the keys that this node holds; `hivewire swarm keys` asks the managers."""
    found = client().get(f"{_API}/keys").items()
    rows = [
        {
            "ID": str(item.number("ID")),
            "State": item.text("State").capitalize(),
            **moment("Since", item.text("Since")),
            "Opened": str(item.number("Opened")),
        }
        for item in found
    ]
    show(Table(_KEYS, rows), style)


@gossip.command()
@format_option
def rtt(style: str) -> None:
    """List the round trips to the others, shortest first, smoothed as the probes measure them.

    No path is shown to a member that does not answer or that was not probed yet.
    """
    found = [i for i in client().get(f"{_API}/members").items() if not i.flag("Self")]
    found.sort(key=lambda item: (_round_trip_s(item) is None, _round_trip_s(item) or 0.0))
    show(Table(_RTT, [{**_member(item), "Path": _path(item)} for item in found]), style)


def _member(item: Document) -> dict[str, str]:
    source = _name(item, "FromName", "From") or "Managers"
    if item.text("From") == item.text("ID"):
        source = "Itself"
    return {
        "ID": item.text("ID"),
        "Node": _name(item, "Name", "ID") + (" *" if item.flag("Self") else ""),
        "State": _state(item),
        **moment("Since", item.text("Since")),
        "From": source,
        "Address": item.text("Address"),
        "DataAddress": item.text("DataAddress"),
        "RoundTrip": _round_trip(item),
        "Incarnation": str(item.number("Incarnation")),
        "Epoch": str(item.number("Epoch")),
        "Self": str(item.flag("Self")).lower(),
        "RelayOnly": str(item.flag("RelayOnly")).lower(),
    }


def _path(item: Document) -> str:
    if item.text("State") != "alive":
        return "-"
    if item.flag("RelayOnly"):
        return "Relay only"
    return "-" if _round_trip_s(item) is None else "Direct"


def _state(item: Document) -> str:
    state = item.text("State").capitalize()
    if item.text("SuspicionEnds"):
        ends = datetime.fromisoformat(item.text("SuspicionEnds"))
        left_s = max(0.0, (ends - datetime.now(UTC)).total_seconds())
        return f"{state} (dead in {duration(left_s).lower()})"
    return f"{state} (relay only)" if item.flag("RelayOnly") else state


def _log(item: Document) -> dict[str, str]:
    return {
        "ID": item.text("Scope"),
        "Scope": item.text("ScopeName"),
        "Owner": _owner(item),
        "OwnerID": item.text("Owner"),
        "Version": str(item.number("Version")),
        "CollectedVersion": str(item.number("CollectedVersion")),
        "Records": str(item.number("Records")),
        "Deleted": str(item.number("Tombstones")),
        "Size": f"{item.number('SizeBytes')}B",
        "Visible": "Yes" if item.flag("Visible") else "No",
        **moment("Written", item.text("Written") if item.number("Records") else ""),
        "Epoch": str(item.number("Epoch")),
        "Attachment": str(item.number("Attachment")),
    }


def _record(item: Document) -> dict[str, str]:
    state = "Visible" if item.flag("Visible") else "Hidden"
    return {
        "ID": item.text("Key"),
        "Owner": _owner(item),
        "OwnerID": item.text("Owner"),
        "Key": item.text("Key"),
        "Version": str(item.number("Version")),
        "State": "Deleted" if item.flag("Deleted") else state,
        "Size": f"{item.number('SizeBytes')}B",
        **moment("Written", item.text("Written")),
    }


def _name(item: Document, name: str, identifier: str) -> str:
    """Return a node's name; its id while no manager has told the name."""
    return item.text(name) or item.text(identifier)


def _owner(item: Document) -> str:
    return _name(item, "OwnerName", "Owner")


def _round_trip_s(item: Document) -> float | None:
    value = item.get("RoundTripSeconds")
    return float(value) if isinstance(value, int | float) else None


def _round_trip(item: Document) -> str:
    seconds = _round_trip_s(item)
    return "-" if seconds is None else f"{seconds * 1000:.2f}ms"
