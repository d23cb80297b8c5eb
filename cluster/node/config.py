"""The settings of one node, frozen when the daemon starts."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

CONTROL_PORT = 2377
GOSSIP_PORT = 7946


class Profile(StrEnum):
    """Timing of failure detection: for machines on a network, or processes on one machine."""

    LAN = "lan"
    LOCAL = "local"


def default_data_root() -> Path:
    """Return where a node's state lives: a system directory for root, else the user's."""
    if os.geteuid() == 0:
        return Path("/var/lib/hivewire")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "hivewire"


def default_run_root() -> Path:
    """Return where a node's sockets and namespaces live."""
    if os.geteuid() == 0:
        return Path("/run/hivewire")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or default_data_root() / "run") / "hivewire"


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What a daemon is told when it starts."""

    data_root: Path = field(default_factory=default_data_root)
    run_root: Path = field(default_factory=default_run_root)
    socket_path: Path | None = None
    """The API's unix socket; None: `hivewire.sock` in `run_root`."""
    socket_group: str = ""
    """Group that may use the API beside the owner; empty: the owner's."""
    hostname: str = field(default_factory=socket.gethostname)
    profile: Profile = Profile.LAN
    gossip_port: int = GOSSIP_PORT
    metrics_listen: tuple[str, int] | None = None
    """Where anybody may read the metrics; None: only on the API's socket."""
    published_port_min: int = 1
    """Lower published ports do not answer where the user is: whoever asks for one is warned."""
    labels: tuple[tuple[str, str], ...] = ()
    """Engine labels, for placement constraints."""

    @property
    def api_socket(self) -> Path:
        """Return the path that the API listens on."""
        return self.socket_path or self.run_root / "hivewire.sock"
