"""Names, addresses and paths of a local cluster (pure but for reading and writing its file)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cluster.model.errors import Invalid

NODES_MAX = 50
"""Daemons of one local cluster; 127.0.0.101..150 are their addresses on the host."""
HOST_NETWORKS_MAX = 64
"""Local clusters at once on one machine, whosever they are: the second has 127.0.1.101.., ..."""
DIRECTORY_CHARS_MAX = 80
"""A unix socket's path holds 108 bytes (unix(7)), and ours are a few levels below."""
NODES_PER_CORE_MAX = 8
"""With more, a daemon waits for its turn for so long that others must be patient with it."""
UNDERLAY_PREFIX = "198.18.0."
"""RFC 2544 benchmarking range: never routed anywhere."""
UNDERLAY_GATEWAY = UNDERLAY_PREFIX + "254"
UNDERLAY_CLIENTS = tuple(f"{UNDERLAY_PREFIX}{host}" for host in range(201, 210))
"""More addresses of the bridge, for clients that want to be told apart."""
UNDERLAY_MAC = "02:42:c6:12:00:fe"
"""The bridge's own; nodes have the same but for the last byte."""


@dataclass(frozen=True, slots=True)
class LocalNode:
    """One daemon of a local cluster."""

    name: str
    """`m1`.. for managers, `w1`.. for workers."""
    number: int
    """1.. over all nodes."""
    is_manager: bool
    host_network: int = 0
    """See `Layout.host_network`."""

    @property
    def address(self) -> str:
        """Its address on the cluster's bridge."""
        return f"{UNDERLAY_PREFIX}{self.number}"

    @property
    def mac(self) -> str:
        """Its hardware address on the cluster's bridge."""
        return f"{UNDERLAY_MAC[:-2]}{self.number:02x}"

    @property
    def host_address(self) -> str:
        """Where its published ports answer on the host."""
        return f"127.0.{self.host_network}.{100 + self.number}"


@dataclass(frozen=True, slots=True)
class Layout:
    """A local cluster on disk; written once by `local up`."""

    directory: Path
    managers: int
    workers: int
    host_network: int = 0
    """Third number of the nodes' addresses on the host: no other running local cluster has it."""
    published_port_min: int = 1
    """Lower ports cannot be had on the host by who runs the cluster."""

    @property
    def nodes(self) -> tuple[LocalNode, ...]:
        """All nodes, managers first; the first one makes the cluster."""
        managers = [(f"m{i}", i, True) for i in range(1, self.managers + 1)]
        workers = [(f"w{i}", self.managers + i, False) for i in range(1, self.workers + 1)]
        return tuple(LocalNode(*node, self.host_network) for node in managers + workers)

    def node(self, name: str) -> LocalNode:
        """Return the node of this name.

        Raises:
            Invalid: there is none.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise Invalid(f"no node {name!r} in this local cluster: {[n.name for n in self.nodes]}")

    def data_root(self, node: LocalNode) -> Path:
        """Return the node's state directory."""
        return self.directory / node.name

    def tasks(self, node: LocalNode) -> Path:
        """Return the directory with one entry per task of the node."""
        return self.data_root(node) / "tasks"

    def socket(self, node: LocalNode) -> Path:
        """Return the node's API socket."""
        return self.data_root(node) / "api.sock"

    def log(self, node: LocalNode) -> Path:
        """Return the node's log file."""
        return self.directory / f"{node.name}.log"

    @property
    def control_socket(self) -> Path:
        """Where the supervisor listens."""
        return self.directory / "supervisor.sock"

    @property
    def supervisor_log(self) -> Path:
        """Log of supervisor and forwarder."""
        return self.directory / "supervisor.log"

    @property
    def forwarder_lock(self) -> Path:
        """Locked by `local up` and then by the forwarder, as long as they live."""
        return self.directory / "forwarder.lock"

    @property
    def file(self) -> Path:
        """Where this value is kept; its presence says that the cluster exists."""
        return self.directory / "local.json"


class _File(msgspec.Struct):
    managers: int
    workers: int
    host_network: int = 0
    published_port_min: int = 1


def make_layout(directory: Path, managers: int, workers: int) -> Layout:
    """Return the layout asked for.

    Raises:
        Invalid: impossible numbers of nodes, or a path too long for a unix socket or with blanks.
    """
    if managers < 1 or workers < 0 or managers + workers > NODES_MAX:
        raise Invalid(f"a local cluster has 1 manager or more and at most {NODES_MAX} nodes")
    if len(str(directory.absolute())) > DIRECTORY_CHARS_MAX:
        raise Invalid(f"the directory's path is too long for unix sockets: {directory}")
    if any(character.isspace() for character in str(directory.absolute())):
        raise Invalid(f"the directory's path must not contain blanks: {directory}")
    return Layout(directory.absolute(), managers, workers)


def profile(nodes: int, cores: int) -> str:
    """Return the gossip profile (`gossip.config`) for so many nodes that share so many cores."""
    return "local" if nodes <= NODES_PER_CORE_MAX * cores else "lan"


def save(layout: Layout) -> None:
    """Write the layout into its directory, which is made (0700)."""
    layout.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = _File(layout.managers, layout.workers, layout.host_network, layout.published_port_min)
    layout.file.write_bytes(msgspec.json.encode(kept))


def load(directory: Path) -> Layout:
    """Return the layout kept in `directory`.

    Raises:
        Invalid: there is no local cluster there.
    """
    try:
        kept = msgspec.json.decode((directory / "local.json").read_bytes(), type=_File)
    except (OSError, msgspec.MsgspecError) as error:
        raise Invalid(f"no local cluster in {directory}: run `hivewire local up`") from error
    return Layout(
        directory.absolute(),
        kept.managers,
        kept.workers,
        kept.host_network,
        kept.published_port_min,
    )


def default_directory() -> Path:
    """Return where a local cluster lives when no directory is named."""
    if os.geteuid() == 0:
        return Path("/var/lib/hivewire-local")
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local/state")
    return Path(state) / "hivewire-local"
