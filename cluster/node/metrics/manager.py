"""Metrics of a manager (pure)."""

from __future__ import annotations

from collections import Counter

from cluster.api.exposition import Kind, Metric
from cluster.consensus.node import NodeStats
from cluster.dispatch.port import PortStats
from cluster.dispatch.server import ServerStats
from cluster.model.node import NodeState
from cluster.model.task import TaskState
from cluster.state.snapshot import Snapshot


def _nodes(state: Snapshot) -> dict[str, float]:
    found = Counter(node.state for node in state.nodes.values())
    return {node_state.value: found[node_state] for node_state in NodeState}


def _tasks(state: Snapshot) -> dict[str, float]:
    found = Counter(task.status.state for task in state.tasks.values())
    return {task_state.name.lower(): found[task_state] for task_state in TaskState}


RAFT: tuple[Metric[NodeStats], ...] = (
    Metric(
        Kind.GAUGE,
        "hivewire_raft_leader",
        "1 on the manager that leads.",
        lambda s: int(s.is_leader),
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_raft_leader_known",
        "1 while this manager knows a leader.",
        lambda s: int(s.leader_id is not None),
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_raft_members",
        "Managers with a vote, as this one knows them.",
        lambda s: s.members,
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_raft_term",
        "Current term; one that keeps growing means elections without end.",
        lambda s: s.core.term,
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_raft_commit_index",
        "Index of the last entry known to be committed.",
        lambda s: s.core.commit_index,
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_raft_applied_index",
        "Index of the last entry that is part of the state here.",
        lambda s: s.core.applied_index,
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_raft_snapshot_index",
        "Index of the last entry in the snapshot on disk; 0: there is none.",
        lambda s: s.core.snapshot_index,
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_raft_log_entries",
        "Entries in the log on disk.",
        lambda s: s.core.log_entries,
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_raft_log_bytes",
        "Their size.",
        lambda s: s.core.log_bytes,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_raft_syncs_total",
        "Times that the log was flushed to disk.",
        lambda s: s.core.syncs,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_raft_sync_seconds_total",
        "Time spent on that.",
        lambda s: s.core.sync_seconds,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_raft_elections_won_total",
        "Elections that this manager won.",
        lambda s: s.core.elections_won,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_raft_prevotes_started_total",
        "Times that this manager asked whether it could be elected.",
        lambda s: s.core.prevotes_started,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_raft_snapshots_installed_total",
        "Snapshots received from a leader because the log had moved on.",
        lambda s: s.core.snapshots_installed,
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_raft_sessions",
        "Connections with other managers: opened here (out) and there (in).",
        lambda s: {"out": len(s.mesh.sessions_out), "in": len(s.mesh.sessions_in)},
        ("direction",),
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_raft_dials_failed_total",
        "Connections to other managers that could not be opened.",
        lambda s: s.mesh.dials_failed,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_raft_malformed_total",
        "Messages of other managers that cannot be read.",
        lambda s: s.mesh.malformed,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_raft_refused_total",
        "Connections between managers that were refused, by reason.",
        lambda s: {str(reason).lower(): n for reason, n in s.mesh.refused.items()},
        ("reason",),
    ),
)

PORT: tuple[Metric[PortStats], ...] = (
    Metric(
        Kind.GAUGE,
        "hivewire_control_connections",
        "Open connections to the control port (2377).",
        lambda s: s.connections,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_control_accepted_total",
        "Connections that came.",
        lambda s: s.accepted,
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_control_handshakes",
        "TLS handshakes under way.",
        lambda s: s.handshakes,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_control_shed_total",
        "Connections refused before the handshake: too many under way, of one address or in all.",
        lambda s: s.shed,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_control_handshakes_failed_total",
        "Connections of garbage, with a foreign certificate, or without a handshake in time.",
        lambda s: s.handshakes_failed,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_control_refused_total",
        "Connections refused after the handshake: too many, or not allowed to speak Raft.",
        lambda s: s.refused,
    ),
)

SESSIONS: tuple[Metric[ServerStats], ...] = (
    Metric(
        Kind.GAUGE,
        "hivewire_dispatch_sessions",
        "Nodes that have a session with this manager.",
        lambda s: s.sessions,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_dispatch_sessions_begun_total",
        "Sessions that began.",
        lambda s: s.begun,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_dispatch_malformed_total",
        "Sessions ended because the node sent what no node can have sent.",
        lambda s: s.malformed,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_dispatch_silent_total",
        "Sessions ended because the node was silent for too long.",
        lambda s: s.silent,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_dispatch_assignments_sent_total",
        "Assignments sent to nodes, whole ones and differences.",
        lambda s: s.assignments_sent,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_dispatch_statuses_total",
        "Task statuses of nodes that became part of the cluster's state.",
        lambda s: s.statuses.statuses,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_dispatch_status_proposals_total",
        "Raft proposals that this took.",
        lambda s: s.statuses.proposals,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_dispatch_status_retries_total",
        "Of these, how many had to be made again.",
        lambda s: s.statuses.retries,
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_dispatch_statuses_waiting",
        "Task statuses that wait to be proposed.",
        lambda s: s.statuses.waiting,
    ),
)

CLUSTER: tuple[Metric[Snapshot], ...] = (
    Metric(
        Kind.GAUGE,
        "hivewire_cluster_state_index",
        "Raft index of the last change in this manager's copy of the cluster's state.",
        lambda s: s.index,
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_cluster_nodes",
        "Nodes by what the managers believe of them.",
        _nodes,
        ("state",),
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_cluster_networks",
        "Overlay networks.",
        lambda s: len(s.networks),
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_cluster_services",
        "Services.",
        lambda s: len(s.services),
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_cluster_tasks",
        "Tasks by state, ended ones that are kept as history included.",
        _tasks,
        ("state",),
    ),
)
