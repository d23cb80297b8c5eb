"""Who is attached to what, and which records can be seen (pure).

The table keeps what was said; this module joins it with what is believed of members. Attachments
are records of scope `NODES`, keyed by the scope attached to, so they spread and heal like any
other record.

Invariants:
    a record is visible exactly when its owner is up and attached, and the record's stamp is the
    owner's current one;
    a dead owner's records are hidden, not dropped, for `tombstone_s`: back at once when it returns;
    `changed` names every scope whose visible records may differ from those last lent out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gossip.config import GossipConfig
from gossip.events import RecordView
from gossip.member import MemberTable, Verdict
from gossip.table import Table
from gossip.wire import (
    KEY_BYTES_MAX,
    NODES,
    SCOPE_CHARS_MAX,
    SCOPES_PER_OWNER_MAX,
    VALUE_BYTES_MAX,
    Delta,
    Head,
    InvalidError,
    Record,
    Stamp,
    State,
    Update,
)


class Directory:
    """One node's records and everyone's, as they can be seen from here."""

    __slots__ = (
        "_attachments",
        "_config",
        "_members",
        "_nodes_version",
        "_peers",
        "_peers_at",
        "_sign",
        "_tombstones",
        "_views",
        "changed",
        "dirty",
        "epoch",
        "node_id",
        "table",
    )

    def __init__(
        self,
        *,
        node_id: str,
        epoch: int,
        config: GossipConfig,
        members: MemberTable,
        sign: Callable[[Update], Update],
    ) -> None:
        """`sign`: signs a record of this node."""
        self.node_id = node_id
        self.epoch = epoch
        self.table = Table()
        self.changed: set[str] = set()
        """Scopes to be looked at again; the machine empties it."""
        self.dirty: set[str] = set()
        """Owners of which something changed; the summary empties it."""
        self._config = config
        self._members = members
        self._sign = sign
        self._attachments: dict[str, int] = {}
        self._tombstones: dict[tuple[str, str], float] = {}
        self._peers: dict[str, list[str]] = {}
        self._peers_at = (-1, -1)
        self._nodes_version = 0
        self._views: dict[str, tuple[RecordView, ...]] = {}

    @property
    def scopes(self) -> list[str]:
        """The scopes this node is attached to."""
        return list(self._attachments)

    def is_attached(self, scope: str) -> bool:
        """Tell whether this node takes part in `scope`."""
        return scope == NODES or scope in self._attachments

    def attach(self, scope: str, *, hlc: int) -> Update | None:
        """Take part in a scope; return the update to spread, None if nothing changed."""
        if scope in self._attachments:
            return None
        if not 0 < len(scope.encode()) <= SCOPE_CHARS_MAX or scope == NODES:
            raise InvalidError(f"scope {scope!r} is not a name of 1 to {SCOPE_CHARS_MAX} chars")
        if len(self._attachments) >= SCOPES_PER_OWNER_MAX:
            raise InvalidError(f"a node attaches to at most {SCOPES_PER_OWNER_MAX} scopes")
        update = self._write(NODES, Stamp(self.epoch, 0), scope, b"", hlc)
        self._attachments[scope] = update.record.version
        self._tombstones.pop((NODES, scope), None)
        self._touch(scope)
        return update

    def detach(self, scope: str, *, now: float, hlc: int) -> Update | None:
        """Leave a scope and forget all its records; as `attach`."""
        if self._attachments.pop(scope, None) is None:
            return None
        self.table.drop_scope(scope)
        self._tombstones = {k: at for k, at in self._tombstones.items() if k[0] != scope}
        self._tombstones[NODES, scope] = now
        self._touch(scope)
        return self._write(NODES, Stamp(self.epoch, 0), scope, None, hlc)

    def publish(self, scope: str, key: str, value: bytes, *, hlc: int) -> Update | None:
        """Write an own record; as `attach`."""
        if scope not in self._attachments:
            raise InvalidError(f"attach to scope {scope!r} before publishing in it")
        if not 0 < len(key.encode()) <= KEY_BYTES_MAX or len(value) > VALUE_BYTES_MAX:
            raise InvalidError(f"record {key!r}: key or value is empty or too long")
        held = self._own(scope, key)
        if held is not None and held.value == value:
            return None
        update = self._write(scope, self._stamp(scope), key, value, hlc)
        self._tombstones.pop((scope, key), None)
        return update

    def withdraw(self, scope: str, key: str, *, now: float, hlc: int) -> Update | None:
        """Delete an own record, if it is there; as `attach`."""
        held = self._own(scope, key)
        if held is None or held.value is None:
            return None
        self._tombstones[scope, key] = now
        return self._write(scope, self._stamp(scope), key, None, hlc)

    def collect(self, *, now: float) -> set[str]:
        """Forget own tombstones that are old enough for everyone to have seen them.

        Returns the scopes where there were any.
        """
        then = now - self._config.tombstone_s
        scopes: set[str] = set()
        for (scope, key), at in list(self._tombstones.items()):
            log = self.table.get(scope, self.node_id)
            if at >= then or log is None or key not in log.records:
                continue
            del self._tombstones[scope, key]
            log.collect(max(log.gc, log.records[key].version))
            self.dirty.add(self.node_id)
            scopes.add(scope)
        return scopes

    def own_attachments(self) -> list[Update]:
        """Return this node's attachments as updates to spread."""
        log = self.table.get(NODES, self.node_id)
        records = () if log is None else log.after(0)
        live = [record for record in records if record.value is not None]
        return [Update(NODES, self.node_id, Stamp(self.epoch, 0), record) for record in live]

    def raise_epoch(self, epoch: int, *, hlc: int) -> list[Update]:
        """Go on in a newer epoch with the same attachments and records; return all of them."""
        if epoch <= self.epoch:
            raise InvalidError(f"epoch {epoch} is not above {self.epoch}")
        held = {scope: self.table.get(scope, self.node_id) for scope in self._attachments}
        self.epoch = epoch
        self._attachments = {}
        self._tombstones = {}
        updates: list[Update] = []
        for scope, log in held.items():
            attached = self.attach(scope, hlc=hlc)
            if attached is not None:
                updates.append(attached)
            for record in () if log is None else log.after(0):
                if record.value is not None:
                    stamp = self._stamp(scope)
                    updates.append(self._write(scope, stamp, record.key, record.value, hlc))
        return updates

    def sign_again(self) -> list[str]:
        """Sign all own records with the key of now, in their place; return their scopes.

        Versions stay, so nothing is sent again: the next heads vouch for what others hold.
        """
        found = {
            scope: self.table.get(scope, self.node_id) for scope in (NODES, *self._attachments)
        }
        logs = {scope: log for scope, log in found.items() if log is not None}
        for scope, log in logs.items():
            for record in log.after(0):
                log.set(self._sign(Update(scope, self.node_id, log.stamp, record)).record)
            log.head = None
            log.past.clear()
        self.dirty.add(self.node_id)
        return list(logs)

    def attachment(self, owner: str, scope: str) -> int | None:
        """Return the version of a node's attachment to `scope`; None if it is not attached."""
        if owner == self.node_id:
            return 0 if scope == NODES else self._attachments.get(scope)
        member = self._members.get(owner)
        if member is None:
            return None
        if scope == NODES:
            return 0
        log = self.table.get(NODES, owner)
        if log is None or log.stamp.epoch != member.record.epoch:
            return None
        record = log.records.get(scope)
        return record.version if record is not None and record.value is not None else None

    def peers(self, scope: str) -> list[str]:
        """Return the other members that are up and attached to `scope`; do not change the list."""
        if scope == NODES:
            return self._members.live()
        at = (self._members.version, self._nodes_version)
        if at != self._peers_at:
            self._peers, self._peers_at = {}, at
        found = self._peers.get(scope)
        if found is None:
            live = self._members.live()
            found = [n for n in live if self.attachment(n, scope) is not None]
            self._peers[scope] = found
        return found

    def scopes_shared_with(self, node_id: str) -> set[str]:
        """Return the scopes this node and another member both take part in."""
        shared = {s for s in self._attachments if self.attachment(node_id, s) is not None}
        return shared | {NODES}

    def is_current(self, scope: str, owner: str) -> bool:
        """Tell whether an owner's log in a scope counts: owner up, attached, stamp current."""
        log = self.table.get(scope, owner)
        if log is None or log.is_hollow:
            return False
        if owner != self.node_id:
            member = self._members.get(owner)
            if member is None or not member.is_live or member.record.epoch != log.stamp.epoch:
                return False
        return log.stamp.attachment == self.attachment(owner, scope)

    def records(self, scope: str) -> tuple[RecordView, ...]:
        """Return the visible records of a scope, by owner and key."""
        if scope not in self._attachments:
            return ()
        found = self._views.get(scope)
        if found is None:
            logs = self.table.logs(scope)
            found = tuple(
                RecordView(owner, key, record.version, record.value)
                for owner in sorted(logs)
                if self.is_current(scope, owner)
                for key, record in sorted(logs[owner].records.items())
                if record.value is not None
            )
            self._views[scope] = found
        return found

    def holds(self, scope: str, owner: str, key: str) -> bool:
        """Tell whether a record is visible, without a look at all others."""
        log = self.table.get(scope, owner)
        record = None if log is None else log.records.get(key)
        is_there = record is not None and record.value is not None
        return is_there and scope in self._attachments and self.is_current(scope, owner)

    def judge_update(self, update: Update) -> Verdict:
        """Tell what `take_update` would do: NEW if anything; AHEAD if it cannot be taken."""
        if not self.is_welcome(update.scope, update.owner, update.stamp):
            return Verdict.AHEAD
        return self.table.judge(update)

    def take_update(self, update: Update) -> Verdict:
        """Merge one record of another owner, known to be its own; AHEAD if it cannot be taken."""
        verdict = self.table.put(update)
        if verdict is Verdict.NEW:
            self._merged(update.scope, update.owner)
        return verdict

    def take_proven(self, delta: Delta, records: Sequence[Record]) -> Verdict:
        """Merge a proven `Table.outcome`; KNOWN if the records are the same as before."""
        verdict = self.table.put_proven(delta, records)
        self.dirty.add(delta.owner)
        if verdict is Verdict.NEW:
            self._merged(delta.scope, delta.owner)
        return verdict

    def set_head(self, scope: str, head: Head) -> None:
        """Keep the head of one of this node's logs."""
        log = self.table.get(scope, self.node_id)
        if log is not None:
            log.set_head(head)
            self.dirty.add(self.node_id)

    def member_changed(self, node_id: str) -> None:
        """Take note that the belief about a member changed: drop, hide or restore its records."""
        member = self._members.get(node_id)
        self.dirty.add(node_id)
        for scope in self.table.scopes():
            log = self.table.get(scope, node_id)
            if log is None:
                continue
            is_gone = member is None or member.state is State.LEFT
            if is_gone or (member is not None and log.stamp.epoch < member.record.epoch):
                self.table.drop(scope, node_id)
            self._touch(scope)

    def hollow_dead(self, *, now: float) -> None:
        """Let go of the records of members that have been dead for too long."""
        then = now - self._config.tombstone_s
        for member in self._members.all():
            if member.state is State.DEAD and member.since < then:
                self.dirty.add(member.node_id)
                for scope in self.table.scopes():
                    if scope != NODES:
                        self.table.hollow(scope, member.node_id)

    def is_welcome(self, scope: str, owner: str, stamp: Stamp) -> bool:
        """Tell whether records of `owner` in `scope` are kept here: not those of an earlier life.

        Of these the log was dropped; whoever says them again would begin another. Nor those of a
        later life of a member that is dead: it has yet to show that it lives (`hearsay`), and they
        would take the place of the log that is held.
        """
        if owner == self.node_id or not self.is_attached(scope):
            return False
        member = self._members.get(owner)
        if member is None or member.state is State.LEFT or stamp.epoch < member.record.epoch:
            return False
        if stamp.epoch > member.record.epoch and not member.is_live:
            return False
        nodes = self.table.get(NODES, owner)
        attached = None if nodes is None else nodes.records.get(scope)
        if nodes is None or attached is None:
            return True
        return stamp >= Stamp(nodes.stamp.epoch, attached.version if scope != NODES else 0)

    def _merged(self, scope: str, owner: str) -> None:
        self.dirty.add(owner)
        self._touch(scope)
        if scope != NODES:
            return
        nodes = self.table.logs(NODES)[owner]
        for mine in self._attachments:
            log = self.table.get(mine, owner)
            record = nodes.records.get(mine)
            if log is not None and record is not None:
                if log.stamp < Stamp(nodes.stamp.epoch, record.version):
                    self.table.drop(mine, owner)
                self._touch(mine)

    def _touch(self, scope: str) -> None:
        self._views.pop(scope, None)
        if scope != NODES:
            self.changed.add(scope)
        else:
            self._nodes_version += 1

    def _stamp(self, scope: str) -> Stamp:
        return Stamp(self.epoch, self._attachments[scope])

    def _own(self, scope: str, key: str) -> Record | None:
        log = self.table.get(scope, self.node_id)
        return None if log is None else log.records.get(key)

    def _write(self, scope: str, stamp: Stamp, key: str, value: bytes | None, hlc: int) -> Update:
        record = self.table.append(scope, self.node_id, stamp, key, value, hlc=hlc)
        self.dirty.add(self.node_id)
        self._touch(scope)
        update = self._sign(Update(scope, self.node_id, stamp, record))
        self.table.logs(scope)[self.node_id].set(update.record)
        return update
