"""All metrics of a daemon, and their values now.

What a daemon does not do has no values: without a cluster there is no gossip, and on a worker no
Raft.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster.api.exposition import Family, Metric, collect
from cluster.node.agent import AgentStats
from cluster.node.manager import ManagerStats
from cluster.node.metrics.agent import DNS, DRIVER, SESSION, WORKER
from cluster.node.metrics.gossip import GOSSIP
from cluster.node.metrics.manager import CLUSTER, PORT, RAFT, SESSIONS
from cluster.node.metrics.process import PROCESS, ProcessStats

CATALOGUE: tuple[tuple[str, Sequence[Metric[Any]]], ...] = (
    ("Process", PROCESS),
    ("Gossip", GOSSIP),
    ("Session with a manager", SESSION),
    ("Tasks and data plane", (*WORKER, *DRIVER)),
    ("DNS", DNS),
    ("Raft", RAFT),
    ("Control port and sessions (managers)", (*PORT, *SESSIONS)),
    ("The cluster, as a manager sees it", CLUSTER),
)
"""By subject, for the documentation."""


def families(
    process: ProcessStats, agent: AgentStats | None, manager: ManagerStats | None
) -> list[Family]:
    """Return all metrics of which there are values."""
    found = collect(PROCESS, process)
    if agent is not None:
        found += collect(SESSION, agent.session)
        found += collect(DRIVER, agent.driver)
        found += collect(DNS, agent.dns)
        found += [] if agent.gossip is None else collect(GOSSIP, agent.gossip)
        found += [] if agent.worker is None else collect(WORKER, agent.worker)
    if manager is not None:
        found += collect(RAFT, manager.raft)
        found += collect(PORT, manager.port)
        found += collect(SESSIONS, manager.sessions)
        found += collect(CLUSTER, manager.state)
    return found
