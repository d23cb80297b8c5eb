"""What this node believes, holds of the tables, and has counted, for people (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

from gossip.broadcast import Queues
from gossip.directory import Directory
from gossip.events import LogView, MemberView, StoredView
from gossip.failure import Detector
from gossip.member import Member, MemberTable
from gossip.membership import Membership
from gossip.stats import Counters, GossipStats
from gossip.wire import NodeRecord, State


def members(membership: Membership, others: MemberTable) -> list[MemberView]:
    """Return what is believed of every member, this node first."""
    me = membership.me
    state = State.LEFT if membership.has_left else State.ALIVE
    accuser = me.node_id if membership.has_left else None
    views = [MemberView(*_said(me, state), membership.since, accuser)]
    views.extend(_other(member, membership.detector) for member in others.all())
    return views


def stats(
    views: Sequence[MemberView],
    *,
    directory: Directory,
    queues: Queues,
    detector: Detector,
    counters: Counters,
) -> GossipStats:
    """Return the counters; `views`: of all members."""
    states = [view.state for view in views]
    table = directory.table
    kept = [log for scope in table.scopes() for log in table.logs(scope).values()]
    return GossipStats(
        alive=states.count(State.ALIVE),
        suspect=states.count(State.SUSPECT),
        dead=states.count(State.DEAD),
        left=states.count(State.LEFT),
        relay_only=detector.paths.relay_only(),
        scopes=len(directory.scopes),
        records=sum(len(log.records) for log in kept),
        queued=len(queues),
        queue_dropped=queues.dropped,
        health=detector.health,
        counters=deepcopy(counters),
    )


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


def _other(member: Member, detector: Detector) -> MemberView:
    accuser = None if member.claim is None else member.claim.accuser
    return MemberView(
        *_said(member.record, member.state),
        member.since,
        accuser,
        suspicion_ends_at=detector.suspicions.deadline(member.node_id),
        round_trip_s=detector.paths.round_trip_s(member.node_id),
        is_relay_only=detector.paths.is_relay_only(member.node_id),
    )


def _said(record: NodeRecord, state: State) -> tuple[str, State, str, int, str, int, int]:
    """Return the first fields of a view: what the member says, and what is believed of it."""
    where = (record.host, record.port, record.data_address)
    return (record.node_id, state, *where, record.incarnation, record.epoch)
