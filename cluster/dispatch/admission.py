"""Joins and renewals: who is let in, with which certificate; and what nodes say of themselves.

A manager proposes the node object before it hands out the certificate, so a certificate is never
without a node. Whoever has a node's certificate is that node while its object exists; deleting the
object shuts it out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from random import Random

from cluster.ca.authority import Authority, authority_of, node_id_of_request_untrusted
from cluster.ca.certificates import PeerIdentity
from cluster.dispatch.messages import Registration
from cluster.dispatch.requests import JoinRequest, JoinResponse
from cluster.dispatch.session import managers_in, view_of
from cluster.model.errors import Conflict, FailedPrecondition, Forbidden, Unavailable
from cluster.model.ids import NodeId
from cluster.model.meta import Meta
from cluster.model.node import Node, NodeSpec, Role
from cluster.state.changes import ABSENT, Change, DescribeNode, PutNode
from cluster.state.snapshot import Snapshot
from cluster.store.replica import Replica

logger = logging.getLogger(__name__)

INDEX_MAX = 4094
"""Largest node index (see `dataplane.addressing`)."""
ATTEMPTS_MAX = 10
"""Other managers may take the same index at the same time."""
INDEX_SPREAD = 32
"""From how many free indexes the second and later attempts choose."""
CATCH_UP_S = 2.0
"""How long a manager waits to see a node that another has just let in."""


def new_node(
    snapshot: Snapshot,
    request: JoinRequest,
    *,
    node: NodeId,
    role: Role,
    seen_address: str,
    now: float,
    choose: Callable[[Sequence[int]], int],
) -> Node:
    """Return the node object of a node that may join (pure).

    choose: picks one of some free indexes (never empty, ascending).

    Raises:
        FailedPrecondition: the cluster is full.
    """
    taken = {n.index for n in snapshot.nodes.values()}
    free = [i for i in range(1, INDEX_MAX + 1) if i not in taken][:INDEX_SPREAD]
    if not free:
        raise FailedPrecondition(f"the cluster is full: it has {INDEX_MAX} nodes")
    registration = request.registration
    address = registration.address or seen_address
    return Node(
        id=node,
        spec=NodeSpec(role=role, availability=request.availability),
        description=registration.description,
        index=choose(free),
        address=address,
        gossip_port=registration.gossip_port,
        data_address=registration.data_address or address,
        manager_address=_manager_address(role, address, registration),
        meta=Meta(created_at=now, updated_at=now),
    )


def described(node: Node, registration: Registration, seen_address: str) -> DescribeNode | None:
    """Return the change that makes `node` what it says of itself; None: it is that (pure)."""
    address = registration.address or seen_address
    change = DescribeNode(
        id=node.id,
        description=registration.description,
        address=address,
        gossip_port=registration.gossip_port,
        data_address=registration.data_address or address,
        manager_address=_manager_address(node.spec.role, address, registration),
    )
    is_known = (
        node.description == change.description
        and node.address == change.address
        and node.gossip_port == change.gossip_port
        and node.data_address == change.data_address
        and node.manager_address == change.manager_address
    )
    return None if is_known else change


class Admission:
    """Lets nodes in, on any manager."""

    def __init__(
        self,
        *,
        replica: Replica,
        propose: Callable[[Sequence[Change]], Awaitable[object]],
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        """clock: unix time, seconds."""
        self._replica = replica
        self._propose = propose
        self._clock = clock
        self._rng = rng
        self._one_by_one = asyncio.Lock()

    def authority(self) -> Authority:
        """Return the cluster's certificate authority.

        Raises:
            Unavailable: this manager has not yet learnt the cluster's state.
        """
        cluster = self._replica.snapshot().cluster
        if cluster is None:
            raise Unavailable("this manager has not caught up with the others yet, try again")
        return authority_of(cluster)

    async def join(self, request: JoinRequest, seen_address: str) -> JoinResponse:
        """Let a node in that has a valid token.

        Joining again with the same key leads to the same node, until that is removed.

        Raises:
            Invalid: wrong token, or malformed request.
            Forbidden: the node was removed.
            Conflict, FailedPrecondition, Unavailable: not now, or not like this.
        """
        authority = self.authority()
        role = authority.role_of_token_untrusted(request.token)
        node_id = node_id_of_request_untrusted(request.csr)
        async with self._one_by_one:
            node = await self._put(request, node_id, role, seen_address)
        certificate = authority.issue_untrusted(
            request.csr, node=node_id, role=role, now=self._clock()
        )
        logger.info("node let in: node=%s role=%s address=%s", node_id, role, node.address)
        managers = managers_in(view_of(self._replica.snapshot()).info)
        return JoinResponse(
            node=node_id,
            role=role,
            cluster=authority.cluster,
            certificate=certificate,
            ca=authority.root.certificate,
            address=node.address,
            managers=tuple(m for m in managers if m.node != node_id),
        )

    async def renew(self, identity: PeerIdentity, csr: bytes) -> bytes:
        """Return a certificate (PEM) for a node's new key, with the role that it is to have.

        Raises:
            Forbidden: the node is not a member (any more).
            Invalid: malformed request.
        """
        node = self.member(identity)
        return self.authority().issue_untrusted(
            csr, node=node.id, role=node.spec.role, now=self._clock()
        )

    def member(self, identity: PeerIdentity) -> Node:
        """Return the node object of whoever has this certificate.

        Raises:
            Forbidden: there is none.
            Unavailable: this manager has not yet learnt the cluster's state.
        """
        self.authority()
        snapshot = self._replica.snapshot()
        node = snapshot.nodes.get(identity.node)
        if node is None:
            removed = snapshot.removed.get(identity.node)
            if removed is not None:
                raise Forbidden(removed.refusal)
            raise Forbidden(f"node {identity.node} is not a member of this cluster (any more)")
        return node

    def manager(self, identity: PeerIdentity) -> Node:
        """Return the node object of a manager.

        Raises:
            Forbidden: it is none, by its certificate or by the cluster's wish.
            Unavailable: this manager has not yet learnt the cluster's state.
        """
        node = self.member(identity)
        if identity.role is not Role.MANAGER or node.spec.role is not Role.MANAGER:
            raise Forbidden(f"node {identity.node} is not a manager")
        return node

    async def _put(
        self, request: JoinRequest, node_id: NodeId, role: Role, seen_address: str
    ) -> Node:
        for attempt in range(ATTEMPTS_MAX):
            snapshot = self._replica.snapshot()
            known = snapshot.nodes.get(node_id)
            if known is not None:
                if known.spec.role is not role:
                    raise Conflict(f"node {node_id} has joined already, as {known.spec.role}")
                return known
            node = new_node(
                snapshot,
                request,
                node=node_id,
                role=role,
                seen_address=seen_address,
                now=self._clock(),
                choose=self._rng.choice if attempt else min,
            )
            try:
                await self._propose([PutNode(node, expect=ABSENT)])
            except Conflict as error:
                logger.debug("join conflicts: attempt=%d error=%s", attempt, error)
                continue
            await self._until_seen(node_id)
            return node
        raise Unavailable("many nodes are joining at this moment, try again")

    async def _until_seen(self, node_id: NodeId) -> None:
        """Wait until this manager knows the node: it will come here first with its certificate."""
        with self._replica.watch() as changed:
            try:
                async with asyncio.timeout(CATCH_UP_S):
                    while node_id not in self._replica.snapshot().nodes:
                        changed.clear()
                        await changed.wait()
            except TimeoutError:
                logger.debug("joined node not seen yet: node=%s", node_id)


def host_port(host: str, port: int) -> str:
    """Return `host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _manager_address(role: Role, address: str, registration: Registration) -> str:
    return host_port(address, registration.control_port) if role is Role.MANAGER else ""
