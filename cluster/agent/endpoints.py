"""What this node's own tasks offer to the others, as records (pure).

Invariants: no record is longer than gossip carries; a record says nothing that depends on time or
on anyone else's records.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from cluster.agent.execution import hostname
from cluster.agent.records import (
    ALIASES_MAX,
    INGRESS_SCOPE,
    PORTS_MAX,
    RECORD_BYTES_MAX,
    EndpointRecord,
    Phase,
    RecordPort,
    encode,
)
from cluster.model.assignment import Assignment, ServiceInfo
from cluster.model.ids import NetworkId, TaskId
from cluster.model.network import Network
from cluster.model.service import EndpointMode, PublishMode
from cluster.model.task import Attachment, Task, task_name
from dataplane.addressing import endpoint_mac, gateway_subnet
from dataplane.plan import Protocol

_PROTOCOLS = frozenset(Protocol)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a record is published."""

    scope: str
    key: str


def gateway_address(
    task: Task, networks: Mapping[NetworkId, Network], node_index: int
) -> IPv4Address | None:
    """Return the task's address in its node's gateway subnet.

    None: it has none, or all its networks are internal.
    """
    if not task.gateway_host:
        return None
    attached = [networks[a.network] for a in task.attachments if a.network in networks]
    if attached and all(network.spec.internal for network in attached):
        return None
    return gateway_subnet(node_index).network_address + task.gateway_host


def published_ports(service: ServiceInfo | None, mode: PublishMode) -> tuple[RecordPort, ...]:
    """Return the ports that `service` publishes in `mode`, sorted, without duplicates."""
    ports = () if service is None else service.endpoint.ports
    return tuple(
        sorted(
            {
                RecordPort(Protocol(port.protocol), port.published_port, port.target_port)
                for port in ports
                if port.mode is mode and port.published_port and port.protocol in _PROTOCOLS
            }
        )
    )


def endpoint_records(
    assignment: Assignment, phases: Mapping[TaskId, Phase], node_index: int
) -> dict[Place, EndpointRecord]:
    """Return all records of this node's tasks, which are in these phases."""
    return {
        place: record
        for task_id, phase in sorted(phases.items())
        if (task := assignment.tasks.get(task_id)) is not None
        for place, record in _records_of(assignment, task, phase, node_index)
    }


def _records_of(
    assignment: Assignment, task: Task, phase: Phase, node_index: int
) -> Iterator[tuple[Place, EndpointRecord]]:
    service = assignment.services.get(task.service)
    bare = EndpointRecord(
        task=task.id,
        task_name=task_name(task),
        service=task.service,
        service_name=task.service_name,
        phase=phase,
        created_ms=max(0, round(task.meta.created_at * 1000)),
        mode=EndpointMode.VIP if service is None else service.endpoint_mode,
    )
    for attachment in task.attachments:
        if not attachment.address:
            continue
        record = _in_network(bare, task, service, attachment)
        yield Place(attachment.network, task.id), record
    gateway = gateway_address(task, assignment.networks, node_index)
    if phase is Phase.STARTING or gateway is None:
        return
    ports = published_ports(service, PublishMode.INGRESS)
    for number, start in enumerate(range(0, len(ports), PORTS_MAX)):
        key = f"{task.id}.{number}" if number else task.id
        part = ports[start : start + PORTS_MAX]
        yield Place(INGRESS_SCOPE, key), replace(bare, gateway_address=gateway, ports=part)


def _in_network(
    bare: EndpointRecord, task: Task, service: ServiceInfo | None, attachment: Attachment
) -> EndpointRecord:
    address = IPv4Address(attachment.address)
    virtual = () if service is None else service.endpoint.virtual_addresses
    vips = [IPv4Address(v.address) for v in virtual if v.network == attachment.network]
    record = replace(
        bare,
        address=address,
        mac=endpoint_mac(address),
        vip=vips[0] if vips and bare.mode is EndpointMode.VIP else None,
        hostname=hostname(task),
        aliases=attachment.aliases[:ALIASES_MAX],
    )
    while record.aliases and len(encode(record)) > RECORD_BYTES_MAX:
        record = replace(record, aliases=record.aliases[:-1])
    return record
