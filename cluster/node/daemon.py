"""The composition root: one daemon, in a cluster or not.

`run_daemon` serves the API until SIGTERM. The node's membership comes and goes below it: it is
loaded at the start, made by `swarm init` or `swarm join`, and ended by `swarm leave`. Tasks are not
the daemon's: they run on when it stops, and it adopts them when it starts.
"""

from __future__ import annotations

import asyncio
import fcntl
import grp
import logging
import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from cluster.api.server import serve
from cluster.ca.certificates import CertificateError
from cluster.consensus.errors import StorageFailure
from cluster.model.errors import ClusterError, FailedPrecondition, Invalid
from cluster.node import footprint, http_log
from cluster.node.config import NodeConfig
from cluster.node.node import Node
from cluster.node.state_file import CorruptMembershipError
from cluster.task_group import TaskGroup
from dataplane.kernel import preflight

logger = logging.getLogger(__name__)

EXIT_STORAGE = 70
"""The disk failed or holds nonsense: another manager must take over (sysexits.h, EX_SOFTWARE)."""
EXIT_CONFIG = 78
"""This daemon cannot run as asked (sysexits.h, EX_CONFIG)."""
LOCK_FILE = "daemon.lock"


def run_daemon(config: NodeConfig) -> None:
    """Run a node until SIGTERM or SIGINT."""
    try:
        if problems := preflight.missing():
            raise FailedPrecondition("; ".join(problems))
        _make_directories(config)
        with _only_one(config.data_root):
            asyncio.run(_run(config))
    except* (StorageFailure, CorruptMembershipError, CertificateError) as failures:
        for failure in causes(failures):
            logger.critical("this node cannot go on: %s", failure)
        # Threads of a failed disk may hang: the process must end, whatever they do.
        logging.shutdown()
        os._exit(EXIT_STORAGE)
    except* (OSError, ClusterError) as errors:
        for error in causes(errors):
            logger.critical("this node cannot run: %s", error)
        sys.exit(EXIT_CONFIG)


def causes(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return what has gone wrong, out of all the task groups that it came through."""
    found: list[BaseException] = []
    left: list[BaseException] = [group]
    while left:
        match left.pop():
            case BaseExceptionGroup(exceptions=inner):
                left.extend(reversed(inner))
            case error:
                found.append(error)
    return found


async def _run(config: NodeConfig) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    node = Node(config)
    http_log.shorten()
    footprint.after_start()
    serving = serve(
        node, config.api_socket, group=_group(config), metrics_listen=config.metrics_listen
    )
    async with serving, TaskGroup() as group:
        living = group.create_task(node.run())
        await stop.wait()
        living.cancel()
    logger.info("stopped; tasks go on running")


def _group(config: NodeConfig) -> int | None:
    """Return the numeric id of the group that may use the API.

    Raises:
        Invalid: there is no such group.
    """
    if not config.socket_group:
        return None
    try:
        return grp.getgrnam(config.socket_group).gr_gid
    except KeyError as error:
        raise Invalid(f"there is no group {config.socket_group!r} on this machine") from error


def _make_directories(config: NodeConfig) -> None:
    for path in (config.data_root, config.run_root, config.api_socket.parent):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


@contextmanager
def _only_one(data_root: Path) -> Generator[None]:
    """Hold the data root's lock.

    Raises:
        BlockingIOError: another daemon holds it.
    """
    descriptor = os.open(data_root / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(f"another daemon uses {data_root}") from error
        yield
    finally:
        os.close(descriptor)
