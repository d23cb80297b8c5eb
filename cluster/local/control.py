"""The supervisor's socket: one JSON request a connection, one JSON answer, perhaps with a socket.

Only the owner of the directory (0700) reaches it.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cluster.model.errors import ClusterError, Unavailable

ANSWER_BYTES_MAX = 1 << 20
TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 5.0
"""A supervisor that does not take the wish to stop in time is killed."""


class Request(msgspec.Struct, omit_defaults=True):
    """What can be asked of the supervisor."""

    do: str
    """`status`, `stop`, `kill`, `start`, `connect` or `ports`."""
    node: str = ""
    tasks: bool = False
    """kill: the node's tasks too."""
    protocol: str = "tcp"
    port: int = 0
    unheard: list[str] = []
    """ports: what the forwarder cannot listen for, and why; one text a port."""
    source: str = ""
    """connect: address on the bridge to connect from; empty: any."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One daemon, as its supervisor sees it."""

    name: str
    address: str
    host_address: str
    socket: str
    pid: int
    """As seen inside; 0: it does not run."""


class Answer(msgspec.Struct, omit_defaults=True):
    """What the supervisor answers."""

    error: str = ""
    ready: bool = False
    """The cluster is formed."""
    progress: list[str] = []
    """What has been done since the start, for people."""
    nodes: list[NodeStatus] = []
    ports: list[tuple[str, int]] = []
    """Published ports: (protocol, port)."""
    unheard: list[str] = []
    """What the forwarder could not listen for, as it last said."""


def ask(path: Path, request: Request) -> Answer:
    """Ask the supervisor at `path` and return its answer.

    Raises:
        Unavailable: it does not run.
        ClusterError: it refused.
    """
    answer, received = ask_with_socket(path, request)
    if received is not None:
        received.close()
    return answer


def ask_with_socket(path: Path, request: Request) -> tuple[Answer, socket.socket | None]:
    """Like `ask`; also return the socket that came with the answer, if any."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(STOP_TIMEOUT_S if request.do == "stop" else TIMEOUT_S)
        try:
            connection.connect(str(path))
            connection.sendall(msgspec.json.encode(request) + b"\n")
            data, descriptors, _, _ = socket.recv_fds(connection, 65536, 1)
            while chunk := connection.recv(65536):
                data += chunk
        except OSError as error:
            raise Unavailable(
                f"the local cluster's supervisor does not answer ({error}): `hivewire local down` "
                "clears away what is left"
            ) from error
    received = socket.socket(fileno=descriptors[0]) if descriptors else None
    try:
        answer = msgspec.json.decode(data, type=Answer)
    except msgspec.MsgspecError as error:
        raise Unavailable("the local cluster's supervisor ended while answering") from error
    if answer.error:
        raise ClusterError(answer.error)
    return answer, received
