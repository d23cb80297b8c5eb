"""What a node asks of managers outside its session: certificates, Raft membership, logs.

And what a manager tells the leader: which nodes it sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from cluster.ca.tls import TlsContexts
from cluster.dispatch.calls import HttpSession, call, connect
from cluster.dispatch.channel import Channel, ChannelClosed, CloseCode
from cluster.dispatch.logs import LogPages
from cluster.dispatch.messages import (
    MANAGER_MESSAGE_BYTES_MAX,
    NODE_MESSAGE_BYTES_MAX,
    MalformedMessage,
    ManagerAddress,
)
from cluster.dispatch.requests import (
    LOGS_PATH,
    RAFT_JOIN_PATH,
    RENEW_PATH,
    SESSION_PATH,
    SIGHTINGS_PATH,
    LogPage,
    LogQuery,
    RaftJoinRequest,
    RaftJoinResponse,
    RenewRequest,
    RenewResponse,
    SightingReport,
    decode_untrusted,
    encode_body,
)
from cluster.model.errors import Unavailable

_Answer = TypeVar("_Answer", RenewResponse, RaftJoinResponse)
SIGHTINGS_S = 2.0
REPORTS_PER_CONNECTION = 100
"""Every second one: a handshake for each would be most of what an idle manager does."""
RAFT_JOIN_S = 30.0
"""A new manager is told the log before it is a member."""


class Peers:
    """Asks managers over mutual TLS."""

    def __init__(self, session: HttpSession, contexts: TlsContexts) -> None:
        """session: from `calls.http_session`."""
        self._session = session
        self._contexts = contexts
        self._reports = 0

    async def renew(self, managers: Sequence[ManagerAddress], csr: bytes) -> bytes:
        """Return a certificate (PEM) for the request, from the first manager that answers.

        Raises:
            Forbidden: this node is not a member any more.
            ClusterError: none answered, or refused.
        """
        unanswered: list[str] = []
        for manager in managers:
            try:
                answer = await call(
                    self._session,
                    manager.address,
                    RENEW_PATH,
                    context=self._contexts.http,
                    node=manager.node,
                    body=RenewRequest(csr),
                )
            except Unavailable as error:
                unanswered.append(str(error))
                continue
            return _decoded(manager, answer, RenewResponse).certificate
        raise Unavailable("; ".join(unanswered) or "no manager is known")

    async def raft_join(
        self, manager: ManagerAddress, own_address: str
    ) -> tuple[ManagerAddress, ...]:
        """Ask to be added to Raft at `own_address` (`host:port`), and return all members.

        Raises:
            ClusterError: not answered, or refused.
        """
        answer = await call(
            self._session,
            manager.address,
            RAFT_JOIN_PATH,
            context=self._contexts.http,
            node=manager.node,
            body=RaftJoinRequest(own_address),
            timeout_s=RAFT_JOIN_S,
        )
        return _decoded(manager, answer, RaftJoinResponse).members

    async def open_session(self, manager: ManagerAddress) -> Channel:
        """Return the channel of a new session with the manager (see `client.Connect`).

        Raises:
            ClusterError: not answered, or refused.
        """
        return await connect(
            self._session,
            manager.address,
            SESSION_PATH,
            context=self._contexts.http,
            node=manager.node,
            message_bytes_max=MANAGER_MESSAGE_BYTES_MAX,
        )

    async def report_sightings(self, leader: ManagerAddress, report: SightingReport) -> None:
        """Tell the leader which nodes were seen.

        Raises:
            ClusterError: not answered, or refused.
        """
        self._reports += 1
        await call(
            self._session,
            leader.address,
            SIGHTINGS_PATH,
            context=self._contexts.http,
            node=leader.node,
            body=report,
            timeout_s=SIGHTINGS_S,
            keep=self._reports % REPORTS_PER_CONNECTION != 0,
        )

    async def logs(self, manager: ManagerAddress, query: LogQuery) -> LogPages:
        """Yield what another manager can reach of the logs.

        Raises:
            ClusterError: not answered, or refused.
            MalformedMessage: what came is no log.
        """
        channel = await connect(
            self._session,
            manager.address,
            LOGS_PATH,
            context=self._contexts.http,
            node=manager.node,
            message_bytes_max=2 * NODE_MESSAGE_BYTES_MAX,
        )
        try:
            await channel.send(encode_body(query))
            while True:
                yield decode_untrusted(await channel.receive(), LogPage).records
        except ChannelClosed:
            return
        finally:
            await channel.close(CloseCode.NORMAL, "")


def _decoded(manager: ManagerAddress, answer: bytes, kind: type[_Answer]) -> _Answer:
    try:
        return decode_untrusted(answer, kind)
    except MalformedMessage as error:
        raise Unavailable(f"manager {manager.node} answered with something else") from error
