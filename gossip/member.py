"""One node's view of every other member, and the rules that order what is said of them (pure).

Order (after SWIM section 4.2): a member is described by (epoch, incarnation) in a record that only
the member itself makes; within one (epoch, incarnation) ALIVE < SUSPECT < DEAD. LEFT is final for
its epoch, whatever the incarnation: whoever returns has restarted.

Invariants:
    a member's (epoch, incarnation) never decreases;
    a claim never brings an (epoch, incarnation) that no record brought before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from gossip.keyring import sender_tag
from gossip.wire import MEMBERS_MAX, Address, Claim, NodeRecord, State


class Verdict(Enum):
    """What became of a record or a claim."""

    NEW = "new"
    """The view changed."""
    KNOWN = "known"
    """It says what is held already."""
    STALE = "stale"
    """It is older than what is held."""
    AHEAD = "ahead"
    """It speaks of an (epoch, incarnation), or a member, of which no record is held."""


@dataclass(slots=True)
class Member:
    """What is believed of one member."""

    record: NodeRecord
    state: State
    claim: Claim | None
    """Why the state is not ALIVE. Another's word that it is DEAD makes it SUSPECT. None with LEFT:
    this node knows of the removal, and has no manager's claim to show for it yet."""
    since: float
    """When the state was taken, on this node's clock."""
    node_id: str
    address: Address
    """Where it is reached, as the record says."""
    is_live: bool = True
    """Whether the member counts as up (a suspect does)."""
    told: State | None = None
    """Its state when this node's user was last told of a change."""


class MemberTable:
    """All known members but this node."""

    __slots__ = (
        "_gone",
        "_live",
        "_members",
        "_places",
        "_tags",
        "by_tag",
        "claims",
        "version",
    )

    def __init__(self) -> None:
        self.version = 0
        """Grows with every change."""
        self._members: dict[str, Member] = {}
        self._tags: dict[bytes, Member] = {}
        self.by_tag = self._tags.get
        """Returns the member whose packets carry a tag, or None."""
        self._places: dict[Address, tuple[str, ...]] | None = None
        self._live: list[str] = []
        self.claims = 0
        """Members of which something is claimed: all that are not ALIVE."""
        self._gone: dict[str, Member] = {}

    @property
    def has_live(self) -> bool:
        """Whether any member is up."""
        return bool(self._live)

    @property
    def has_dead(self) -> bool:
        """Whether any member is not up."""
        return bool(self._gone)

    def __len__(self) -> int:
        return len(self._members)

    def get(self, node_id: str) -> Member | None:
        """Return what is believed of a member, or None if it is unknown."""
        return self._members.get(node_id)

    def known(self, node_id: str) -> Member:
        """Return what is believed of a member that is known. Raises KeyError."""
        return self._members[node_id]

    def home_of(self, tag: bytes) -> Address | None:
        """Return where the member whose packets carry `tag` says it is."""
        member = self._tags.get(tag)
        return None if member is None else member.address

    def all(self) -> list[Member]:
        """Return every known member, in the order they became known."""
        return list(self._members.values())

    def live(self) -> list[str]:
        """Return the ids of the members that are up, suspects included; do not change the list.

        It does not change by itself: a change of members makes another.
        """
        return self._live

    def live_at(self, address: Address) -> tuple[str, ...]:
        """Return the ids of the members that are up and say that they are reached at `address`."""
        if self._places is None:
            places = self._places = {}
            for node_id in self._live:
                home = self._members[node_id].address
                places[home] = (*places.get(home, ()), node_id)
        return self._places.get(address, ())

    def account(self, address: Address) -> str:
        """Return who pays for what comes from, or goes to, `address`.

        A member that is up pays for itself, even if all share one host or one translated address;
        others who are at one host pay together.
        """
        host, port = address
        return f"{host} {port}" if self.live_at(address) else host

    def gone(self) -> list[Member]:
        """Return the members that are not up."""
        return list(self._gone.values())

    def judge_record(self, record: NodeRecord) -> Verdict:
        """Tell what `put_record` would do with a member's own word."""
        held = self._members.get(record.node_id)
        if held is None:
            return Verdict.STALE if len(self._members) >= MEMBERS_MAX else Verdict.NEW
        if record == held.record:
            return Verdict.KNOWN
        return Verdict.NEW if _order(record) > _order(held.record) else Verdict.STALE

    def put_record(self, record: NodeRecord, *, now: float) -> Verdict:
        """Take a member's own word."""
        verdict = self.judge_record(record)
        if verdict is not Verdict.NEW:
            return verdict
        held = self._members.get(record.node_id)
        if held is None:
            self._add(record, now=now)
            self._live = [*self._live, record.node_id]
            self._changed()
            return Verdict.NEW
        is_new_life = record.epoch > held.record.epoch
        is_newer = is_new_life or record.incarnation > held.record.incarnation
        held.record, held.address = record, _address(record.host, record.port)
        if is_new_life or (is_newer and held.state is not State.LEFT):
            if held.state is not State.ALIVE or is_new_life:
                held.since = now
            self._set(held, State.ALIVE, None)
        self._changed()
        return Verdict.NEW

    def meet(self, records: Iterable[NodeRecord], *, now: float) -> None:
        """Take the words of many members that are unknown so far, at once."""
        for record in records:
            self._add(record, now=now)
        self._live = [n for n, member in self._members.items() if member.is_live]
        self._changed()

    def judge(self, claim: Claim) -> Verdict:
        """Tell what `put_claim` would do with a claim about another member."""
        held = self._members.get(claim.subject)
        if held is None or claim.epoch > held.record.epoch:
            return Verdict.AHEAD
        if claim.epoch < held.record.epoch:
            return Verdict.STALE
        if claim.state is State.LEFT:
            is_shown = held.state is State.LEFT and held.claim is not None
            return Verdict.KNOWN if is_shown else Verdict.NEW
        if held.state is State.LEFT:
            return Verdict.STALE
        if claim.incarnation != held.record.incarnation:
            is_ahead = claim.incarnation > held.record.incarnation
            return Verdict.AHEAD if is_ahead else Verdict.STALE
        return Verdict.NEW if claim.state > held.state else Verdict.KNOWN

    def put_claim(self, claim: Claim, *, now: float, state: State | None = None) -> Verdict:
        """Take an accusation or a departure; `state`: believe this of it, in place of its own."""
        verdict = self.judge(claim)
        if verdict is Verdict.NEW:
            held = self._members[claim.subject]
            held.since = now
            self._set(held, claim.state if state is None else state, claim)
            self._changed()
        return verdict

    def expel(self, node_id: str, *, now: float) -> None:
        """Take a member that is known as LEFT, without anybody's claim."""
        held = self._members[node_id]
        held.since = now
        self._set(held, State.LEFT, None)
        self._changed()

    def forget_before(self, then: float) -> list[str]:
        """Forget the members that have been DEAD or LEFT since before `then`; return their ids."""
        old = [m.node_id for m in self._gone.values() if m.since < then]
        for node_id in old:
            self.claims -= self._members.pop(node_id).claim is not None
            del self._tags[sender_tag(node_id)]
            del self._gone[node_id]
        if old:
            self._changed()
        return old

    def _add(self, record: NodeRecord, *, now: float) -> None:
        member = Member(
            record, State.ALIVE, None, now, record.node_id, _address(record.host, record.port)
        )
        self._members[record.node_id] = self._tags[sender_tag(record.node_id)] = member

    def _set(self, member: Member, state: State, claim: Claim | None) -> None:
        was_live = member.is_live
        self.claims += (claim is not None) - (member.claim is not None)
        member.state, member.claim, member.is_live = state, claim, state <= State.SUSPECT
        if member.is_live and not was_live:
            self._live = [*self._live, member.node_id]
            del self._gone[member.node_id]
        elif was_live and not member.is_live:
            self._live = self._live.copy()
            self._live.remove(member.node_id)
            self._gone[member.node_id] = member

    def _changed(self) -> None:
        self.version += 1
        self._places = None


@lru_cache(MEMBERS_MAX)
def _address(host: str, port: int) -> Address:
    """Return one object for all nodes of a process that know a member."""
    return (host, port)


def _order(r: NodeRecord) -> tuple[object, ...]:
    # The fields after the incarnation decide only between two records that should not both exist,
    # so that every node settles on the same one.
    return (r.epoch, r.incarnation, r.host, r.port, r.data_address, r.flags, r.hlc, r.signature)
