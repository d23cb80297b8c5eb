"""Who votes and who is heard, as one manager's log says (pure).

Invariants:
    `members` is `applied` plus the membership entries in the log after it;
    whoever votes is heard; who is heard need not vote.
"""

from __future__ import annotations

from collections.abc import Iterable

from cluster.consensus.members import Entry, Member, MemberChange, effective_members

_REMOVED_MAX = 256
"""Removed managers that are remembered, to tell them why nobody speaks with them."""


class Roster:
    """One manager's view of the cluster's managers."""

    def __init__(self, me: Member, *, contacts: Iterable[Member]) -> None:
        self.me = me
        self.members: dict[str, Member] = {}
        """Who votes, by the log as it stands here; empty for a joiner."""
        self.applied: dict[str, Member] = {}
        """Who votes, by what was applied."""
        self.version = 0
        """Grows whenever `members` or `heard` may have changed."""
        self._contacts = {member.node_id: member for member in contacts}
        self._introduced: Member | None = None
        self._removed: dict[str, None] = {}

    @property
    def is_voter(self) -> bool:
        """Whether this manager has a vote.

        Not if the member of its name has another disk: that is an earlier life of this manager,
        which was removed, and of which the log as far as it has come may still speak.
        """
        member = self.members.get(self.me.node_id)
        return member is not None and member.disk_id == self.me.disk_id

    @property
    def others(self) -> dict[str, Member]:
        """The other voters."""
        return {i: m for i, m in self.members.items() if i != self.me.node_id}

    @property
    def heard(self) -> dict[str, Member]:
        """Whom to have sessions with; any of them may be who leads.

        The voters; those whose removal is not committed, for it may be taken back; the leader whom
        a peer introduced; and, before this manager votes, its first contacts.
        """
        known = ({} if self.is_voter else self._contacts) | self.applied | self.members
        if self._introduced is not None:
            known[self._introduced.node_id] = self._introduced
        return {i: m for i, m in known.items() if i != self.me.node_id}

    def is_heard_as_voter(self, node_id: str) -> bool:
        """Tell whether what is heard under a name is the voter of that name, with its disk."""
        voter, introduced = self.others.get(node_id), self._introduced
        if introduced is None or voter is None or introduced.node_id != node_id:
            return voter is not None
        return introduced.disk_id == voter.disk_id

    def restore(self, applied: Iterable[Member], later: Iterable[Entry]) -> None:
        """Take a snapshot's members, and the entries after it."""
        self.applied = {member.node_id: member for member in applied}
        self.members = effective_members(self.applied, later)
        self._introduced = None
        self.version += 1

    def enter(self, change: MemberChange, *, is_undone: bool) -> None:
        """Note that a membership entry came into the log, or left it."""
        self._forget_introduced(change)
        if is_undone:
            change = MemberChange("add" if change.verb == "rem" else "rem", change.member)
        change.apply(self.members)
        self.version += 1

    def commit(self, change: MemberChange) -> None:
        """Note that a membership or move entry was applied."""
        change.apply(self.applied)
        node_id = change.member.node_id
        self._removed.pop(node_id, None)
        if change.verb == "rem":
            self._forget_introduced(change)
            self._removed[node_id] = None
            if len(self._removed) > _REMOVED_MAX:
                del self._removed[next(iter(self._removed))]
        elif change.verb == "move":
            change.apply(self.members)
        self.version += 1

    def introduce(self, leader: Member) -> bool:
        """Hear this leader, because a peer does; return whether that is news.

        A manager that was away may not know a newer member, or may know it with an older disk. It
        is heard, but its vote does not count before the log says so. A peer that knows it only as
        its own first contact knows no disk of it, and says nothing new of one that is known.
        """
        known = self.heard.get(leader.node_id)
        if leader in {self._introduced, known} or (known is not None and not leader.disk_id):
            return False
        self._introduced = leader
        self.version += 1
        return True

    def was_removed(self, node_id: str) -> bool:
        """Tell whether a node was a member, and its removal is committed."""
        return node_id in self._removed

    def _forget_introduced(self, change: MemberChange) -> None:
        """Prefer what the log says of an introduced manager."""
        introduced, member = self._introduced, change.member
        if introduced is not None and introduced.node_id == member.node_id:
            is_known = change.verb == "add" or introduced.disk_id == member.disk_id
            self._introduced = None if is_known else introduced
