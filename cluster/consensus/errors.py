"""What can go wrong in consensus, split by who must act (pure).

Requests fail with the cluster's own `Invalid`, `FailedPrecondition` and `Unavailable`; the classes
here are the ones that no request causes.
"""

from __future__ import annotations


class StorageFailure(Exception):
    """The disk lost or refused something: this manager must stop, so that another can lead.

    The daemon exits 70. A manager whose files are damaged must be removed and join again.
    """


class SafetyViolation(AssertionError):
    """What Raft promises does not hold here: a bug. Stop before it spreads."""


class MalformedMessageError(Exception):
    """A peer sent bytes that are no message: drop its session and count it."""
