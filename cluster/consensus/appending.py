"""What a follower may believe of an AppendEntries message (pure).

PySyncObj truncates everything after `prevLogIdx` before it appends, even entries that match, and
acknowledges and commits up to its own end of log; a delayed message thereby takes back what was
acknowledged. So a message is trimmed first: to the entries that are new, from where they differ,
and with an acknowledgement and a commit index that end where the message's own evidence ends.
Source: Ongaro's dissertation, figure 3.1, AppendEntries receiver, steps 2 to 5.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.consensus.errors import SafetyViolation
from cluster.consensus.members import Entry
from cluster.consensus.messages import AppendEntries
from cluster.consensus.wal import Wal


@dataclass(frozen=True, slots=True)
class Trimmed:
    """The part that may be appended."""

    previous_index: int
    previous_term: int
    entries: tuple[Entry, ...]
    commit_index: int
    verified_index: int
    """The log equals the leader's up to here once `entries` are appended."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Nothing may: the logs differ before it."""

    retry_from: int
    """The leader should send from here."""


def trim(message: AppendEntries, log: Wal) -> Trimmed | Mismatch:
    """Return what of `message` may be appended to `log`.

    Raises:
        SafetyViolation: it contradicts a committed entry.
    """
    if message.previous_index > log.last_index:
        return Mismatch(log.last_index + 1)
    previous, entries = message.previous_index, message.entries
    verified = previous + len(entries)
    if previous < log.first_index:  # what is before that is in a snapshot, hence committed
        entries = entries[log.first_index - previous :]
        previous = min(log.first_index, log.last_index)
    elif log.entry(previous)[2] != message.previous_term:
        return _mismatch(previous, log)
    known = 0
    while known < len(entries):
        _, index, term = entries[known]
        if index > log.last_index or log.entry(index)[2] != term:
            break
        known += 1
    new = entries[known:]
    if not new:
        previous = log.last_index
    else:
        previous = new[0][1] - 1
        if new[0][1] <= log.commit_index:
            raise SafetyViolation(f"the leader contradicts the committed entry {new[0][1]}")
    return Trimmed(
        previous_index=previous,
        previous_term=log.entry(previous)[2],
        entries=new,
        commit_index=min(message.commit_index, verified),
        verified_index=verified,
    )


def _mismatch(index: int, log: Wal) -> Mismatch:
    """Return the first index of the term that differs: one round per term, not per entry."""
    if index <= log.commit_index:
        raise SafetyViolation(f"the leader contradicts the committed entry {index}")
    term = log.entry(index)[2]
    while index > log.first_index and log.entry(index - 1)[2] == term:
        index -= 1
    return Mismatch(max(index, log.commit_index + 1))
