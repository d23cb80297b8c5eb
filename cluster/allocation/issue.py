"""The managers' side of allocations: signs them, once for as long as nothing changes (pure).

Invariant: the same replicated state gives the same allocations, byte for byte, on every manager.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cluster.allocation.compose import compose
from cluster.allocation.records import encode_body
from cluster.allocation.tokens import Signer
from cluster.model.assignment import Allocation, ServiceInfo
from cluster.model.cluster import AllocationKey, Cluster
from cluster.model.ids import ClusterId, NetworkId, TaskId
from cluster.model.meta import Meta
from cluster.model.network import Network
from cluster.model.node import Node
from cluster.model.task import Task, TaskState, TaskStatus

ISSUED_MAX = 50_000
"""Tasks whose allocations are remembered; beyond that, the oldest are signed again."""
_NO_STATUS = TaskStatus()
_NO_META = Meta()


@dataclass(frozen=True, slots=True)
class _Basis:
    """Everything that a task's allocations follow from."""

    cluster: ClusterId
    key: AllocationKey
    node_index: int
    task: Task
    service: ServiceInfo
    internal: tuple[bool, ...]
    """Of the task's networks."""


class Issuer:
    """Makes allocations; remembers what it made."""

    def __init__(self) -> None:
        self._signer: tuple[ClusterId, AllocationKey, Signer] | None = None
        self._issued: dict[TaskId, tuple[_Basis, tuple[Allocation, ...]]] = {}

    def issue(
        self,
        cluster: Cluster,
        node: Node,
        task: Task,
        service: ServiceInfo,
        networks: Mapping[NetworkId, Network],
    ) -> tuple[Allocation, ...]:
        """Return what `node` may publish of its `task`; nothing while the cluster has no key."""
        if not cluster.allocation_keys:
            return ()
        attached = (networks.get(a.network) for a in task.attachments)
        basis = _Basis(
            cluster.id,
            cluster.allocation_keys[0],
            node.index,
            replace(task, status=_NO_STATUS, meta=_NO_META, desired_state=TaskState.RUNNING),
            service,
            tuple(network is not None and network.spec.internal for network in attached),
        )
        known = self._issued.get(task.id)
        if known is not None and known[0] == basis:
            return known[1]
        signer = self._signer_of(basis)
        made = tuple(
            signer.allocate(node.id, place.scope, place.key, encode_body(record))
            for place, record in compose(task, service, networks, node.index)
        )
        self._remember(basis, made)
        return made

    def _signer_of(self, basis: _Basis) -> Signer:
        if self._signer is None or self._signer[:2] != (basis.cluster, basis.key):
            signer = Signer(basis.cluster, basis.key)
            self._signer = (basis.cluster, basis.key, signer)
            return signer
        return self._signer[2]

    def _remember(self, basis: _Basis, made: tuple[Allocation, ...]) -> None:
        self._issued.pop(basis.task.id, None)
        if len(self._issued) >= ISSUED_MAX:
            del self._issued[next(iter(self._issued))]
        self._issued[basis.task.id] = (basis, made)
