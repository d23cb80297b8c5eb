"""Errors -> HTTP status and Docker's words (pure)."""

from __future__ import annotations

from cluster.model import errors as e

NOT_IN_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect '
    "this node to swarm and try again."
)
NOT_A_MANAGER = (
    "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster "
    "state. Please run this command on a manager node or promote the current node to a manager."
)
PREPARING = (
    "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the "
    "cluster."
)
NO_LEADER = (
    "The swarm does not have a leader. It's possible that too few managers are online. Make sure "
    "more than half of the managers are online."
)
LOCKED = (
    "Swarm is encrypted and needs to be unlocked before it can be used. Please use "
    '"docker swarm unlock" to unlock it.'
)
ALREADY_IN_SWARM = (
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join '
    "another one."
)
NOT_PART_OF_SWARM = "This node is not part of a swarm"
PAGE_NOT_FOUND = "page not found"

_STATUS: dict[type[e.ClusterError], int] = {
    e.Invalid: 400,
    e.NotFound: 404,
    e.Conflict: 409,
    e.Forbidden: 403,
    e.FailedPrecondition: 400,
    e.OutOfSequence: 500,
    e.Unimplemented: 501,
    e.Unavailable: 503,
}
"""As Docker answers: out of sequence is 500, in use is 400."""

_PREFIX: dict[type[e.ClusterError], str] = {
    e.FailedPrecondition: "rpc error: code = FailedPrecondition desc = ",
    e.OutOfSequence: "rpc error: code = Unknown desc = ",
}
"""Swarm's words around an error that comes from the cluster's state."""


class NotAllowed(e.ClusterError):
    """This node's standing in the cluster does not allow the call; Docker answers 503."""


class TooLarge(e.ClusterError):
    """The request body is larger than any legitimate one."""


def status_of(error: e.ClusterError) -> int:
    """Return the HTTP status for an error."""
    match error:
        case NotAllowed():
            return 503
        case TooLarge():
            return 413
        case _:
            return _STATUS.get(type(error), 500)


def message_of(error: e.ClusterError) -> str:
    """Return the text that the user reads."""
    text = str(error)
    prefix = _PREFIX.get(type(error), "")
    return text if text.startswith("rpc error:") else f"{prefix}{text}"
