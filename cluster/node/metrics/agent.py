"""Metrics of what every node does (pure)."""

from __future__ import annotations

from cluster.agent.worker import WorkerStats
from cluster.api.exposition import Kind, Metric
from cluster.dispatch.client import ClientStats
from cluster.model.task import TaskState
from dataplane.dns.server import DnsStats
from dataplane.kernel.driver import KernelStats

SESSION: tuple[Metric[ClientStats], ...] = (
    Metric(
        Kind.GAUGE,
        "hivewire_session_connected",
        "1 while this node has a session with a manager.",
        lambda s: int(s.manager is not None),
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_session_begun_total",
        "Sessions that a manager accepted.",
        lambda s: s.sessions,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_session_failures_total",
        "Sessions that ended or could not begin.",
        lambda s: s.failures,
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_session_statuses_waiting",
        "Task statuses that no manager has acknowledged yet.",
        lambda s: s.statuses_waiting,
    ),
)

WORKER: tuple[Metric[WorkerStats], ...] = (
    Metric(
        Kind.GAUGE,
        "hivewire_worker_tasks",
        "Tasks assigned to this node by state; states that no task is in are 0.",
        lambda s: {state.name.lower(): s.tasks.get(state, 0) for state in TaskState},
        ("state",),
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_worker_adopted_total",
        "Tasks that ran already when the daemon started.",
        lambda s: s.adopted,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_worker_drains_total",
        "Tasks taken out of the load balancing before they were stopped.",
        lambda s: s.drains,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_worker_drains_timed_out_total",
        "Of these, how many were stopped before every node had said that it sends no more.",
        lambda s: s.drains_timed_out,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_worker_plans_total",
        "Times that a plan of the data plane was applied.",
        lambda s: s.plan.plans,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_worker_plan_failures_total",
        "Plans that could not be applied, or only without a part; they are tried again.",
        lambda s: s.plan.failures,
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_worker_plan_apply_seconds",
        "How long the last plan took to apply.",
        lambda s: s.plan.last_apply_ms / 1000,
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_worker_records_published",
        "Records that this node publishes through gossip.",
        lambda s: s.plan.records,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_worker_records_refused_total",
        "Times that gossip would not take a record of this node.",
        lambda s: s.plan.refused,
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_worker_records_malformed",
        "Records of other nodes that cannot be read, at the last look.",
        lambda s: s.plan.malformed,
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_worker_records_unsigned",
        "Records of other nodes that the managers have not allocated to them, at the last look.",
        lambda s: s.plan.unsigned,
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_worker_conflicts",
        "Addresses, names, virtual IPs and ports that several records claim, in the last plan.",
        lambda s: s.plan.conflicts,
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_worker_sandboxes_broken",
        "Tasks' network namespaces that are not as planned.",
        lambda s: s.plan.broken,
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_worker_live_nodes",
        "Other nodes that the data plane takes for live.",
        lambda s: s.plan.live_nodes,
    ),
)

DRIVER: tuple[Metric[KernelStats], ...] = (
    Metric(
        Kind.COUNTER,
        "hivewire_driver_applications_total",
        "Times that the kernel was made equal to a plan.",
        lambda s: s.applications,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_driver_operations_total",
        "Changes to the kernel's state that this took.",
        lambda s: s.operations,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_driver_failures_total",
        "Changes that the kernel refused.",
        lambda s: s.failures,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_driver_observations_total",
        "Times that the kernel was asked what is there.",
        lambda s: s.observations,
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_driver_apply_seconds",
        "How long the last application took.",
        lambda s: s.last_apply_ms / 1000,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_driver_forgotten_flows_total",
        "Flows that the kernel was asked to forget: each time it looks at all connections.",
        lambda s: s.forgotten,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_driver_dropped_flows_total",
        "Flows to endpoints that are gone which are remembered, for there were too many to forget.",
        lambda s: s.dropped,
    ),
)

DNS: tuple[Metric[DnsStats], ...] = (
    Metric(
        Kind.GAUGE,
        "hivewire_dns_sandboxes",
        "Sandboxes in which 127.0.0.11 answers.",
        lambda s: s.sandboxes,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_dns_queries_total",
        "Queries received.",
        lambda s: s.queries,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_dns_answered_total",
        "Queries answered from the cluster's names.",
        lambda s: s.answered,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_dns_forwarded_total",
        "Queries sent on to the machine's own resolvers.",
        lambda s: s.forwarded,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_dns_malformed_total",
        "Packets that are no query.",
        lambda s: s.malformed,
    ),
    Metric(
        Kind.COUNTER,
        "hivewire_dns_upstream_failures_total",
        "Exchanges with one of these resolvers that failed.",
        lambda s: s.upstream_failures,
    ),
    Metric(
        Kind.GAUGE,
        "hivewire_dns_in_flight",
        "Queries sent on and not answered yet.",
        lambda s: s.in_flight,
    ),
)
