"""Who belongs to the cluster, and what the entries of the log mean (pure).

Every entry starts with one byte. PySyncObj knows 0 (command), 1 (no-op) and 2 (membership); the
others are ours and ordinary entries to it. A membership entry counts as soon as it is in the log;
everything else when it is applied.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple

import msgspec

from cluster.consensus.config import COMMAND_BYTES_MAX

Address = tuple[str, int]
"""Host (a name or an IP address) and TCP port."""

Entry = tuple[bytes, int, int]
"""Content, index, term: PySyncObj's order."""


class EntryKind(IntEnum):
    """The first byte of an entry."""

    COMMAND = 0
    NO_OP = 1
    MEMBERSHIP = 2
    MOVE = 4
    """A member has another address now."""
    OPEN_SESSION = 5
    """Whoever proposes this gets a session, named after the index of this entry."""


NO_OP = bytes([EntryKind.NO_OP])
OPEN_SESSION = bytes([EntryKind.OPEN_SESSION])
_COMMAND_HEADER = struct.Struct(">BQQQ")


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One voting manager."""

    node_id: str
    host: str
    port: int
    disk_id: str = ""
    """Made when its log was. An emptied disk has another: its votes and acknowledgements are lost,
    so it must not speak for this member. Empty: not known (a joiner's first contacts)."""

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self.host, self.port


class MemberChange(msgspec.Struct, frozen=True, array_like=True):
    """A membership or a move entry, without its first byte."""

    verb: str
    """`add` or `rem` (PySyncObj's words) or `move`."""
    member: Member

    def apply(self, members: dict[str, Member]) -> None:
        """Change `members` as this entry says."""
        if self.verb == "rem":
            members.pop(self.member.node_id, None)
        elif self.verb == "add" or self.member.node_id in members:
            members[self.member.node_id] = self.member


class CommandEntry(NamedTuple):
    """A command with what makes it apply only once."""

    session: int
    sequence: int
    lowest: int
    """The proposer no longer waits for sequence numbers below this."""
    command: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode_change = msgspec.msgpack.Decoder(MemberChange).decode


def encode_change(change: MemberChange) -> bytes:
    """Return the entry for a change of members."""
    kind = EntryKind.MOVE if change.verb == "move" else EntryKind.MEMBERSHIP
    return bytes([kind]) + _encode(change)


def decode_change(entry: bytes) -> MemberChange:
    """Return what `encode_change` was given."""
    return _decode_change(entry[1:])


def is_membership(entry: bytes) -> bool:
    """Tell whether an entry changes who votes."""
    return entry[0] == EntryKind.MEMBERSHIP


def encode_command(command: CommandEntry) -> bytes:
    """Return the entry for a command."""
    session, sequence, lowest, payload = command
    return _COMMAND_HEADER.pack(EntryKind.COMMAND, session, sequence, lowest) + payload


def decode_command(entry: bytes) -> CommandEntry:
    """Return what `encode_command` was given."""
    _, session, sequence, lowest = _COMMAND_HEADER.unpack_from(entry)
    return CommandEntry(session, sequence, lowest, entry[_COMMAND_HEADER.size :])


def is_forwardable(entry: bytes) -> bool:
    """Tell whether a follower may ask the leader to append this: only commands and sessions."""
    if entry[:1] == OPEN_SESSION:
        return len(entry) == 1
    size_bytes = len(entry) - _COMMAND_HEADER.size
    return entry[:1] == bytes([EntryKind.COMMAND]) and 0 <= size_bytes <= COMMAND_BYTES_MAX


def effective_members(applied: Mapping[str, Member], later: Iterable[Entry]) -> dict[str, Member]:
    """Return who votes, given the applied members and the entries after them."""
    members = dict(applied)
    for content, _, _ in later:
        if is_membership(content):
            decode_change(content).apply(members)
    return members


def is_majority(count: int, voters: int) -> bool:
    """Tell whether `count` of `voters` are more than half."""
    return 2 * count > voters
