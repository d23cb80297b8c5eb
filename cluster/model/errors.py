"""What can be wrong with a request, split by who must act (pure).

The API maps each class to one HTTP status; the texts are what a user reads, so they name the
object and what to do.
"""

from __future__ import annotations


class ClusterError(Exception):
    """Base of everything the cluster refuses or cannot do now; nothing was changed."""


class Invalid(ClusterError):
    """The request makes no sense as it stands: the caller must change it."""


class NotFound(ClusterError):
    """The named object does not exist."""


class Conflict(ClusterError):
    """The name, port or address is taken."""


class Forbidden(ClusterError):
    """The caller may not do this."""


class FailedPrecondition(ClusterError):
    """The object is in use, or the cluster is not in a state that allows this."""


class OutOfSequence(ClusterError):
    """The object has changed since the caller read it: read again and retry."""

    def __init__(self, message: str = "update out of sequence") -> None:
        super().__init__(message)


class Unimplemented(ClusterError):
    """Known, but not offered."""


class Unavailable(ClusterError):
    """No leader or no quorum now: retry later. The outcome of a write is unknown."""


ERRORS: dict[str, type[ClusterError]] = {
    e.__name__: e
    for e in (Invalid, NotFound, Conflict, Forbidden, FailedPrecondition, OutOfSequence,
              Unimplemented, Unavailable)
}  # fmt: skip
"""Name on the wire -> class."""
