"""Snapshot x changes -> snapshot (pure, deterministic).

Invariants: names of services and of networks are unique; a task's state and desired state never go
back; a node that was removed does not come back; a transaction that is refused leaves no trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Protocol, TypeVar, assert_never

from cluster.model.cluster import NODE_CERTIFICATE_VALIDITY_S, Cluster, GossipKey
from cluster.model.errors import (
    ClusterError,
    Conflict,
    FailedPrecondition,
    Forbidden,
    NotFound,
    OutOfSequence,
)
from cluster.model.ids import NetworkId, NodeId, is_same_name
from cluster.model.meta import Meta
from cluster.model.node import REMOVED_NODES_MAX, Node, RemovedNode
from cluster.model.service import PublishMode, Service, host_ports
from cluster.model.task import Task, TaskState, TaskStatus
from cluster.state import changes as c
from cluster.state.ports import clashing_port
from cluster.state.snapshot import Snapshot


class _Versioned(Protocol):
    @property
    def meta(self) -> Meta: ...


CERTIFICATE_MARGIN_S = 3600.0
"""How long after the removal of a node a certificate for it may have been made: another manager's
clock is behind, or it was making one."""
_Id = TypeVar("_Id")
_Object = TypeVar("_Object")


def apply(snapshot: Snapshot, changes: Iterable[c.Change], index: int) -> Snapshot:
    """Return the snapshot after the transaction `changes`, whose Raft index is `index`.

    Raises:
        OutOfSequence, NotFound, Conflict, FailedPrecondition, Forbidden: refused; nothing has
            changed.
    """
    draft = Draft(snapshot, index)
    for change in changes:
        draft.apply(change)
    return draft.snapshot()


class Draft:
    """The next snapshot in the making: copies a table when it first changes it.

    Invariant: a change that is refused has changed nothing, so changes of many transactions may
    follow each other in one draft, each a transaction of its own.
    """

    def __init__(self, base: Snapshot, index: int) -> None:
        self._base = base
        self._index = index
        self._cluster = base.cluster
        self._nodes = base.nodes
        self._networks = base.networks
        self._services = base.services
        self._tasks = base.tasks
        self._removed = base.removed

    def snapshot(self) -> Snapshot:
        """Return what it has become; it must not be used any more."""
        return Snapshot(
            index=self._index,
            cluster=self._cluster,
            nodes=self._nodes,
            networks=self._networks,
            services=self._services,
            tasks=self._tasks,
            removed=self._removed,
        )

    def apply_next(self, change: c.Change, index: int) -> None:
        """Apply the transaction of one change, whose Raft index is `index`.

        Raises:
            As `apply`; nothing has changed.
        """
        last_index, self._index = self._index, index
        try:
            self.apply(change)
        except ClusterError:
            self._index = last_index
            raise

    def apply(self, change: c.Change) -> None:  # noqa: C901, PLR0912  (one match over all kinds)
        """Apply one change of the transaction that the draft was made for, or raise as `apply`."""
        match change:
            case c.PutCluster():
                self._put_cluster(change)
            case c.PutNode():
                self._put_node(change)
            case c.DeleteNode():
                self._delete_node(change)
            case c.PutNetwork():
                self._put_network(change)
            case c.DeleteNetwork():
                self._delete_network(change.id)
            case c.PutService():
                self._put_service(change)
            case c.DeleteService():
                if change.id not in self._services:
                    raise NotFound(f"service {change.id} not found")
                self._services = _without(self._services, change.id)
            case c.PutTask():
                if change.task.id not in self._tasks:
                    task = replace(change.task, meta=self._stamp(change.task.meta))
                    self._set_task(task)
            case c.DeleteTask():
                if change.id in self._tasks:
                    self._tasks = self._own(self._tasks, self._base.tasks)
                    del self._tasks[change.id]
            case c.AllocateNetwork():
                self._allocate_network(change)
            case c.AllocateService():
                self._allocate_service(change)
            case c.AllocateTask() | c.AssignTask() | c.SetDesiredState() | c.ReportStatus():
                self._merge_task(change)
            case c.SetNodeState() | c.DescribeNode():
                self._merge_node(change)
            case _:
                assert_never(change)

    def _stamp(self, meta: Meta) -> Meta:
        return Meta(self._index, meta.created_at, meta.updated_at)

    def _own(self, table: dict[_Id, _Object], base: Mapping[_Id, _Object]) -> dict[_Id, _Object]:
        """Return `table`, copied if it is still the base snapshot's."""
        return dict(table) if table is base else table

    def _set_task(self, task: Task) -> None:
        self._tasks = self._own(self._tasks, self._base.tasks)
        self._tasks[task.id] = task

    def _put_cluster(self, change: c.PutCluster) -> None:
        old, cluster = self._cluster, change.cluster
        _check(change.expect, old, "cluster")
        if old is not None and _validity_s(old) > _validity_s(cluster):
            cluster = replace(cluster, past_validity_s=_validity_s(old))
        self._cluster = replace(cluster, meta=self._stamp(cluster.meta))

    def _put_node(self, change: c.PutNode) -> None:
        node = change.node
        _check(change.expect, self._nodes.get(node.id), f"node {node.id}")
        if node.id in self._removed:
            raise Forbidden(self._removed[node.id].refusal)
        if any(n.index == node.index and n.id != node.id for n in self._nodes.values()):
            raise Conflict(f"node index {node.index} is taken")
        self._nodes = {**self._nodes, node.id: replace(node, meta=self._stamp(node.meta))}

    def _delete_node(self, change: c.DeleteNode) -> None:
        node = self._nodes.get(change.id)
        if node is None:
            raise NotFound(f"node {change.id} not found")
        _check(change.expect, node, f"node {change.id}")
        self._nodes = _without(self._nodes, change.id)
        if change.timestamp:
            self._keep_out(change.id, change.timestamp)
        for task in [t for t in self._tasks.values() if t.node == change.id]:
            if task.status.state < TaskState.ORPHANED:
                status = replace(
                    task.status, state=TaskState.ORPHANED, error="the node was removed"
                )
                self._set_task(replace(task, status=status, meta=self._stamp(task.meta)))

    def _keep_out(self, node_id: NodeId, now: float) -> None:
        """Remember a node that was removed, and forget some whose certificates have expired."""
        longest_s, keys = NODE_CERTIFICATE_VALIDITY_S, tuple[GossipKey, ...]()
        if self._cluster is not None:
            longest_s = max(longest_s, _validity_s(self._cluster))
            keys = self._cluster.gossip_keys
        until = now + longest_s + CERTIFICATE_MARGIN_S
        kept = [r for r in self._removed.values() if r.until > now][1 - REMOVED_NODES_MAX :]
        fresh = RemovedNode(node_id, until, key=keys[-1].id if keys else 0)
        self._removed = {removed.id: removed for removed in [*kept, fresh]}

    def _put_network(self, change: c.PutNetwork) -> None:
        network = change.network
        _check(change.expect, self._networks.get(network.id), f"network {network.id}")
        for other in self._networks.values():
            if other.id != network.id and is_same_name(other.spec.name, network.spec.name):
                raise Conflict(f"network with name {other.spec.name} already exists")
            if other.id != network.id and other.spec.ingress and network.spec.ingress:
                raise Conflict(f"ingress network ({other.id}) is already present")
        stamped = replace(network, meta=self._stamp(network.meta))
        self._networks = {**self._networks, network.id: stamped}

    def _delete_network(self, network_id: NetworkId) -> None:
        network = self._networks.get(network_id)
        if network is None:
            raise NotFound(f"network {network_id} not found")
        for service in self._services.values():
            if any(a.target == network_id for a in service.spec.task.networks):
                raise FailedPrecondition(f"network {network_id} is in use by service {service.id}")
            if network.spec.ingress and _publishes(service):
                raise FailedPrecondition(
                    f"ingress network cannot be removed because service {service.id} depends on it"
                )
        for task in self._tasks.values():
            attached = any(a.network == network_id for a in task.attachments)
            if attached and task.status.state <= TaskState.RUNNING:
                raise FailedPrecondition(f"network {network_id} is in use by task {task.id}")
        self._networks = _without(self._networks, network_id)

    def _put_service(self, change: c.PutService) -> None:
        service = change.service
        old = self._services.get(service.id)
        _check(change.expect, old, f"service {service.id}")
        for other in self._services.values():
            if other.id != service.id and is_same_name(other.spec.name, service.spec.name):
                raise Conflict(
                    "rpc error: code = AlreadyExists desc = name conflicts with an existing "
                    f"object: service {other.spec.name} already exists"
                )
        clash = clashing_port(self.snapshot(), service.id, service.spec.ports)
        if clash is not None:
            port, holder = clash
            raise FailedPrecondition(
                f"port '{port.published_port}' is already in use by service "
                f"'{holder.spec.name}' ({holder.id}) as an ingress port"
            )
        for attachment in service.spec.task.networks:
            if attachment.target not in self._networks:
                raise NotFound(f"network {attachment.target} not found")
        self._services = {
            **self._services,
            service.id: replace(
                service,
                meta=self._stamp(service.meta),
                spec_version=(
                    old.spec_version
                    if old is not None and old.spec.task == service.spec.task
                    else self._index
                ),
                endpoint=old.endpoint if old is not None else None,
            ),
        }

    def _allocate_network(self, change: c.AllocateNetwork) -> None:
        network = self._networks.get(change.id)
        if network is not None and not network.vni:
            self._networks = {
                **self._networks,
                change.id: replace(
                    network,
                    vni=change.vni,
                    subnet=change.subnet,
                    gateway=change.gateway,
                    meta=self._stamp(network.meta),
                ),
            }

    def _allocate_service(self, change: c.AllocateService) -> None:
        service = self._services.get(change.id)
        if service is not None and service.meta.version == change.version:
            endpoint = replace(change.endpoint, allocation=self._index)
            self._services = {
                **self._services,
                change.id: replace(service, endpoint=endpoint, meta=self._stamp(service.meta)),
            }

    def _merge_task(
        self, change: c.AllocateTask | c.AssignTask | c.SetDesiredState | c.ReportStatus
    ) -> None:
        task = self._tasks.get(change.id)
        if task is None:
            return
        merged = _merged_task(task, change, self._stamp(task.meta))
        if merged is task:
            return
        if isinstance(change, c.AllocateTask):
            service = self._services.get(task.service)
            endpoint = service.endpoint if service else None
            merged = replace(merged, host_ports=host_ports(endpoint.ports) if endpoint else ())
        self._set_task(merged)

    def _merge_node(self, change: c.SetNodeState | c.DescribeNode) -> None:
        node = self._nodes.get(change.id)
        if node is None:
            return
        match change:
            case c.SetNodeState():
                merged = replace(node, state=change.state, message=change.message)
                if merged != node and change.timestamp:
                    merged = replace(merged, meta=replace(node.meta, updated_at=change.timestamp))
            case c.DescribeNode():
                merged = replace(
                    node,
                    description=change.description,
                    address=change.address,
                    gossip_port=change.gossip_port,
                    data_address=change.data_address,
                    manager_address=change.manager_address,
                )
            case _:
                assert_never(change)
        if merged != node:
            stamped: Node = replace(merged, meta=self._stamp(merged.meta))
            self._nodes = {**self._nodes, change.id: stamped}


def _merged_task(
    task: Task,
    change: c.AllocateTask | c.AssignTask | c.SetDesiredState | c.ReportStatus,
    meta: Meta,
) -> Task:
    """Return the task after `change`, with `meta`; the very same task when nothing changes.

    The hottest path of every manager: statuses are most of what a busy cluster commits.
    """
    state = task.status.state
    match change:
        case c.ReportStatus():
            is_news = change.status.state >= state and change.status != task.status
            if change.node == task.node and is_news:
                return replace(task, status=change.status, meta=meta)
        case c.SetDesiredState():
            if change.state > task.desired_state:
                return replace(task, desired_state=change.state, meta=meta)
        case c.AllocateTask() if state is TaskState.NEW:
            pending = TaskStatus(TaskState.PENDING, change.timestamp, "pending task scheduling")
            return replace(
                task,
                attachments=change.attachments,
                allocation=meta.version,
                status=pending,
                meta=meta,
            )
        case c.AssignTask() if state is TaskState.PENDING and task.node in (None, change.node):
            assigned = TaskStatus(
                TaskState.ASSIGNED, change.timestamp, "scheduler assigned task to node"
            )
            return replace(
                task,
                node=change.node,
                gateway_host=change.gateway_host,
                status=assigned,
                meta=meta,
            )
        case _:
            pass
    return task


def _validity_s(cluster: Cluster) -> float:
    """Return the longest that any certificate of the cluster has been valid, seconds."""
    return max(cluster.spec.node_certificate_validity_s, cluster.past_validity_s)


def _publishes(service: Service) -> bool:
    return any(p.mode is PublishMode.INGRESS for p in service.spec.ports)


def _without(table: dict[_Id, _Object], key: _Id) -> dict[_Id, _Object]:
    return {k: v for k, v in table.items() if k != key}


def _check(expect: int | None, current: _Versioned | None, what: str) -> None:
    if expect is None:
        return
    if expect == c.ABSENT:
        if current is not None:
            raise Conflict(f"{what} already exists")
    elif current is None:
        raise NotFound(f"{what} not found")
    elif current.meta.version != expect:
        raise OutOfSequence
