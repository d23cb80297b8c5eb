"""Services: what a user asks to run (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from cluster.model.ids import NetworkId, ServiceId
from cluster.model.meta import Meta


class ServiceMode(StrEnum):
    """How many tasks a service has."""

    REPLICATED = "replicated"
    GLOBAL = "global"


class EndpointMode(StrEnum):
    """What a service's name resolves to."""

    VIP = "vip"
    DNSRR = "dnsrr"


class PublishMode(StrEnum):
    """Where a published port answers: on every node, or only where a task runs."""

    INGRESS = "ingress"
    HOST = "host"


class RestartCondition(StrEnum):
    """When an ended task is replaced."""

    NONE = "none"
    ON_FAILURE = "on-failure"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class PortSpec:
    """A port of the service that the outside may reach."""

    protocol: str
    """`tcp` or `udp`."""
    target_port: int
    published_port: int = 0
    """0: to be allocated from 30000..32767."""
    mode: PublishMode = PublishMode.INGRESS
    name: str = ""


@dataclass(frozen=True, slots=True)
class NetworkAttachmentSpec:
    """A network that the tasks of a service join."""

    target: NetworkId
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Swarm's restart policy."""

    condition: RestartCondition = RestartCondition.ANY
    delay_s: float = 5.0
    attempts_max: int = 0
    """0: no limit."""
    window_s: float = 0.0
    """Attempts are counted within this time; 0: for ever."""


@dataclass(frozen=True, slots=True)
class Resources:
    """An amount of a node's resources; 0: none asked, or no limit."""

    nano_cpus: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Placement:
    """Where tasks may run."""

    constraints: tuple[str, ...] = ()
    """`node.role == manager` and so on."""
    spread_over: tuple[str, ...] = ()
    """Descriptors of spread preferences, outermost first."""
    replicas_max_per_node: int = 0
    """0: no limit."""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """How one task of a service runs. Two equal specs need no replacement of running tasks."""

    image: str
    command: tuple[str, ...] = ()
    """Docker's Command (entry point) followed by its Args."""
    environment: tuple[tuple[str, str], ...] = ()
    working_directory: str = ""
    hostname: str = ""
    user: str = ""
    labels: dict[str, str] = field(default_factory=dict[str, str])
    hosts: tuple[tuple[str, str], ...] = ()
    """Extra (address, name) lines of /etc/hosts."""
    stop_signal: str = "SIGTERM"
    stop_grace_s: float = 10.0
    limits: Resources = Resources()
    reservations: Resources = Resources()
    restart: RestartPolicy = RestartPolicy()
    placement: Placement = Placement()
    networks: tuple[NetworkAttachmentSpec, ...] = ()
    force_update: int = 0


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """What the user wished for a service."""

    name: str
    task: TaskSpec
    labels: dict[str, str] = field(default_factory=dict[str, str])
    mode: ServiceMode = ServiceMode.REPLICATED
    replicas: int = 1
    """Meaningful for replicated services only."""
    endpoint_mode: EndpointMode = EndpointMode.VIP
    ports: tuple[PortSpec, ...] = ()
    docker: str = "{}"
    """The spec as the client sent it, JSON, so that it reads back what it wrote."""


def host_ports(ports: tuple[PortSpec, ...]) -> tuple[PortSpec, ...]:
    """Return those of `ports` that every task answers on its own node."""
    return tuple(port for port in ports if port.mode is PublishMode.HOST)


@dataclass(frozen=True, slots=True)
class VirtualAddress:
    """A service's VIP in one network."""

    network: NetworkId
    address: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What the allocator gave a service."""

    ports: tuple[PortSpec, ...] = ()
    """As asked, with every published port filled in."""
    virtual_addresses: tuple[VirtualAddress, ...] = ()
    allocation: int = 0
    """Raft index of its last change, which tells what had a port, virtual IP or name last; set by
    `state.apply`."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service and what became of it."""

    id: ServiceId
    spec: ServiceSpec
    previous_spec: ServiceSpec | None = None
    spec_version: int = 0
    """Version of the service when its task spec last changed; set by `state.apply`. A task with a
    lower one is out of date."""
    endpoint: Endpoint | None = None
    """None: not allocated yet. Kept when the spec changes: the allocator replaces what no longer
    fits (see `control.allocator`)."""
    meta: Meta = Meta()
