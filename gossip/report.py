"""What this node holds of the tables, for people (pure)."""

from __future__ import annotations

from gossip.directory import Directory
from gossip.events import LogView, StoredView


def logs(directory: Directory) -> list[LogView]:
    """Return every log held, by scope and owner."""
    table = directory.table
    return [
        LogView(
            scope=scope,
            owner=owner,
            epoch=log.stamp.epoch,
            attachment=log.stamp.attachment,
            version=log.maximum,
            gc=log.gc,
            records=sum(record.value is not None for record in log.records.values()),
            tombstones=sum(record.value is None for record in log.records.values()),
            size_bytes=log.size_bytes,
            is_visible=directory.is_current(scope, owner),
            written_at=max((record.hlc for record in log.records.values()), default=0) / 1000,
        )
        for scope in sorted(table.scopes())
        for owner, log in sorted(table.logs(scope).items())
    ]


def stored(directory: Directory, scope: str) -> list[StoredView]:
    """Return every record held in a scope, hidden and deleted ones included, by owner and key."""
    return [
        StoredView(
            owner=owner,
            key=record.key,
            version=record.version,
            size_bytes=None if record.value is None else len(record.value),
            is_visible=record.value is not None and directory.is_current(scope, owner),
            written_at=record.hlc / 1000,
        )
        for owner, log in sorted(directory.table.logs(scope).items())
        for _, record in sorted(log.records.items())
    ]
