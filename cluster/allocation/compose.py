"""What a node may publish of one task: its record in every scope (pure).

Invariants: no record is longer than gossip carries; a record says nothing that depends on time or
on anyone else's records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address

from cluster.allocation.records import (
    ALIASES_MAX,
    BODY_BYTES_MAX,
    INGRESS_SCOPE,
    PORTS_MAX,
    EndpointRecord,
    Place,
    RecordPort,
    encode_body,
)
from cluster.model.assignment import ServiceInfo
from cluster.model.ids import NetworkId
from cluster.model.network import Network
from cluster.model.service import EndpointMode, PortSpec, PublishMode
from cluster.model.task import Attachment, Task, hostname, task_name
from dataplane.addressing import gateway_subnet
from dataplane.plan import Protocol

_PROTOCOLS = frozenset(Protocol)


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


def published_ports(ports: Iterable[PortSpec], mode: PublishMode) -> tuple[RecordPort, ...]:
    """Return those of `ports` that are published in `mode`, sorted, without duplicates."""
    return tuple(
        sorted(
            {
                RecordPort(Protocol(port.protocol), port.published_port, port.target_port)
                for port in ports
                if port.mode is mode and port.published_port and port.protocol in _PROTOCOLS
            }
        )
    )


def compose(
    task: Task, service: ServiceInfo, networks: Mapping[NetworkId, Network], node_index: int
) -> Iterator[tuple[Place, EndpointRecord]]:
    """Yield the records of `task` on the node with this index, and where they belong."""
    bare = EndpointRecord(
        task=task.id,
        task_name=task_name(task),
        service=task.service,
        service_name=task.service_name,
        allocation=task.allocation,
        service_allocation=service.endpoint.allocation,
        mode=service.endpoint_mode,
    )
    for attachment in task.attachments:
        if attachment.address:
            record = _in_network(bare, task, service, attachment)
            yield Place(attachment.network, task.id), record
    gateway = gateway_address(task, networks, node_index)
    if gateway is None:
        return
    ports = published_ports(service.endpoint.ports, PublishMode.INGRESS)
    for number, start in enumerate(range(0, len(ports), PORTS_MAX)):
        key = f"{task.id}.{number}" if number else task.id
        part = ports[start : start + PORTS_MAX]
        yield Place(INGRESS_SCOPE, key), replace(bare, gateway_address=gateway, ports=part)


def _in_network(
    bare: EndpointRecord, task: Task, service: ServiceInfo, attachment: Attachment
) -> EndpointRecord:
    virtual = service.endpoint.virtual_addresses
    vips = [IPv4Address(v.address) for v in virtual if v.network == attachment.network]
    record = replace(
        bare,
        address=IPv4Address(attachment.address),
        vip=vips[0] if vips and bare.mode is EndpointMode.VIP else None,
        hostname=hostname(task),
        aliases=attachment.aliases[:ALIASES_MAX],
    )
    while record.aliases and len(encode_body(record)) > BODY_BYTES_MAX:
        record = replace(record, aliases=record.aliases[:-1])
    return record
