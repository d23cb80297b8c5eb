"""A cluster in one value, driven by the commands of the scenario files.

Each command is a line; a word `key=value` sets something. Times are seconds since the start.

    cluster [pool=CIDR,...] [size=24] [history=5] [keys=PRIMARY] [rotation=43200]
    node NAME [role=worker] [state=ready] [availability=active] [cpus=4] [memory=8] [label.K=V]
    network NAME [subnet=CIDR] [gateway=IP] [range=CIDR] [ingress=yes]
    service NAME [replicas=1] [mode=replicated] [networks=A,B] [ports=8080:80/tcp/ingress,...]
        [endpoint=vip] [image=X] [constraints=node.role==manager,...] [spread=node.labels.K,...]
        [max=N] [cpus=1] [memory=1] [restart=any] [delay=5] [attempts=0] [window=0]
    delete service|node|network NAME
    remove NAME                   as a user removes a node: it stays out
    at T                          the time is T now
    decide                        all loops in one batch; then once more, which must say nothing
    orchestrate|allocate|schedule|reap      one loop alone, likewise
    report TASK STATE [at=T]      the node says so; TASK is `web.1#2`: second task made in slot 1
    run                           decide, and every task obeys, until nothing changes
    hold NODE...                  these nodes say that they hold the gossip keys as they are now
    forget                        another manager leads: what nodes said is forgotten
    turn                          the loop of the gossip keys alone, likewise
    rotate                        a user wishes for a new gossip key
    tasks | networks | services | wakeup | keys    show
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from cluster.control import allocator, batch, keys, orchestrator, reaper, scheduler
from cluster.model.cluster import Cluster, ClusterSpec, GossipKey, JoinTokens
from cluster.model.errors import ClusterError, NotFound
from cluster.model.ids import ClusterId, NetworkId, NodeId, ServiceId, TaskId
from cluster.model.network import Network, NetworkSpec, SubnetSpec
from cluster.model.node import Availability, Node, NodeDescription, NodeSpec, NodeState, Role
from cluster.model.service import (
    EndpointMode,
    NetworkAttachmentSpec,
    Placement,
    PortSpec,
    PublishMode,
    Resources,
    RestartCondition,
    RestartPolicy,
    Service,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from cluster.model.task import Task, TaskState, TaskStatus, is_ended
from cluster.state import changes as c
from cluster.state.apply import apply
from cluster.state.snapshot import Snapshot

START = 1_000_000.0
"""Unix time of a scenario's second 0."""
ROUNDS_MAX = 200
"""A scenario that has not settled by then never will."""
Options = dict[str, str]
Decide = Callable[[Snapshot], list[c.Change]]


class World:
    """The state of one scenario."""

    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self.now = START
        self.rng = Random(1)
        self._names: dict[TaskId, str] = {}
        self._made: Counter[str] = Counter()
        self._held: dict[NodeId, bytes] = {}

    # Commands

    def handle(self, text: str) -> str:
        """Run the commands of one case and return what they print."""
        return "\n".join(out for line in text.splitlines() if (out := self._run_line(line)))

    def _run_line(self, line: str) -> str:
        verb, *words = line.split()
        names = [w for w in words if "=" not in w]
        options = dict(w.split("=", 1) for w in words if "=" in w)
        try:
            return self._run(verb, names, options)
        except ClusterError as error:
            return f"{type(error).__name__}: {error}"

    def _run(self, verb: str, names: list[str], options: Options) -> str:
        loops: dict[str, Decide] = {
            "decide": lambda s: batch.decide_all(s, self.now, self.rng),
            "orchestrate": lambda s: orchestrator.decide(s, self.now, self.rng),
            "allocate": lambda s: allocator.decide(s, self.now),
            "schedule": lambda s: scheduler.decide(s, self.now),
            "reap": lambda s: reaper.decide(s, self.now),
            "turn": lambda s: keys.decide(s, self._held, self.now, self.rng.randbytes(32)),
        }
        makers = {
            "cluster": self._cluster,
            "node": self._node,
            "network": self._network,
            "service": self._service,
            "delete": self._delete,
            "remove": self._remove,
            "report": self._report,
            "at": self._at,
            "hold": self._hold,
            "forget": self._forget,
            "rotate": self._rotate,
        }
        shows: dict[str, Callable[[], str]] = {
            "run": self.run,
            "tasks": lambda: "\n".join(map(self._show_task, self.tasks())) or "none",
            "networks": lambda: "\n".join(map(_show_network, self.snapshot.networks.values())),
            "services": lambda: "\n".join(map(_show_service, self.snapshot.services.values())),
            "keys": self._show_keys,
            "wakeup": lambda: str(batch.next_wakeup(self.snapshot, self.now)),
        }
        if verb in loops:
            return "\n".join(map(self.describe, self.decide(loops[verb]))) or "nothing"
        return makers[verb](names, options) if verb in makers else shows[verb]()

    # Doing

    def apply(self, changes: Sequence[c.Change]) -> None:
        """Commit one transaction."""
        self.snapshot = apply(self.snapshot, changes, self.snapshot.index + 1)
        for task in self.snapshot.tasks.values():
            if task.id not in self._names:
                slot = f"{task.service_name}.{task.slot or task.node}"
                self._made[slot] += 1
                self._names[task.id] = f"{slot}#{self._made[slot]}"

    def decide(self, loop: Decide) -> list[c.Change]:
        """Commit what `loop` decides; it must be satisfied with that."""
        changes = loop(self.snapshot)
        if changes:
            self.apply(changes)
        again = loop(self.snapshot)
        assert again == [], f"no fixed point: {[self.describe(x) for x in again]}"
        return changes

    def run(self) -> str:
        """Let every loop and every node do its work until nothing changes; time stands still."""
        for _ in range(ROUNDS_MAX):
            decided = self.decide(lambda s: batch.decide_all(s, self.now, self.rng))
            obeyed = [change for task in self.tasks() if (change := self._obey(task))]
            if not decided and not obeyed:
                return ""
            self.apply(obeyed)
        raise AssertionError("it does not settle")

    def _obey(self, task: Task) -> c.Change | None:
        """Return what the task's node reports when it has done what it was told."""
        node = self.snapshot.nodes.get(task.node) if task.node else None
        state = task.status.state
        if node is None or node.state is not NodeState.READY or is_ended(state):
            return None
        if state < TaskState.ASSIGNED:
            return None
        wish = TaskState.SHUTDOWN if task.desired_state > TaskState.RUNNING else TaskState.RUNNING
        if state is wish:
            return None
        return c.ReportStatus(task.id, node.id, TaskStatus(wish, self.now))

    def tasks(self) -> list[Task]:
        """Return all tasks, by name."""
        return sorted(self.snapshot.tasks.values(), key=lambda t: _natural(self._names[t.id]))

    # Objects

    def _at(self, names: list[str], _: Options) -> str:
        self.now = START + float(names[0])
        return ""

    def _hold(self, names: list[str], _: Options) -> str:
        self._held |= dict.fromkeys(map(NodeId, names), keys.ring_digest(self._ring()))
        return ""

    def _forget(self, _: list[str], __: Options) -> str:
        self._held.clear()
        return ""

    def _rotate(self, _: list[str], __: Options) -> str:
        assert self.snapshot.cluster is not None
        self.apply([keys.rotate(self.snapshot.cluster, self.rng.randbytes(32), self.now)])
        return self._show_keys()

    def _ring(self) -> tuple[GossipKey, ...]:
        assert self.snapshot.cluster is not None
        return self.snapshot.cluster.gossip_keys

    def _show_keys(self) -> str:
        return ", ".join(f"{k.id} {k.state} since {k.since - START:g}" for k in self._ring())

    def _cluster(self, _: list[str], options: Options) -> str:
        ring = keys.first_keys(self.rng.randbytes, self.now)
        cluster = Cluster(
            id=ClusterId("cluster"),
            spec=ClusterSpec(
                task_history_limit=int(options.get("history", "5")),
                key_rotation_s=float(options.get("rotation", "43200")),
            ),
            ca_certificate=b"",
            ca_key=b"",
            join_tokens=JoinTokens("", ""),
            gossip_keys=tuple(replace(k, id=int(options.get("keys", "1"))) for k in ring),
            address_pool=tuple(options.get("pool", "10.0.0.0/8").split(",")),
            subnet_size=int(options.get("size", "24")),
        )
        self.apply([c.PutCluster(cluster)])
        return ""

    def _node(self, names: list[str], options: Options) -> str:
        old = self.snapshot.nodes.get(NodeId(names[0]))
        index = old.index if old else len(self.snapshot.nodes) + 1
        labels = {k[6:]: v for k, v in options.items() if k.startswith("label.")}
        node = Node(
            id=NodeId(names[0]),
            spec=NodeSpec(
                role=Role(options.get("role", "worker")),
                labels=labels,
                availability=Availability(options.get("availability", "active")),
            ),
            description=NodeDescription(
                hostname=names[0],
                nano_cpus=int(float(options.get("cpus", "4")) * 1e9),
                memory_bytes=int(options.get("memory", "8")) << 30,
            ),
            index=index,
            address=f"192.168.0.{index}",
        )
        state = NodeState(options.get("state", "ready"))
        self.apply([c.PutNode(node), c.SetNodeState(node.id, state, "", self.now)])
        return ""

    def _network(self, names: list[str], options: Options) -> str:
        chosen = SubnetSpec(
            options.get("subnet", ""), options.get("gateway", ""), options.get("range", "")
        )
        spec = NetworkSpec(
            names[0], ingress="ingress" in options, subnets=(chosen,) if chosen.subnet else ()
        )
        self.apply([c.PutNetwork(Network(NetworkId(names[0]), spec))])
        return ""

    def _service(self, names: list[str], options: Options) -> str:
        service_id = ServiceId(names[0])
        old = self.snapshot.services.get(service_id)
        service = Service(service_id, _service_spec(names[0], options))
        if old is not None:
            service = replace(old, spec=service.spec)
        self.apply([c.PutService(service)])
        return ""

    def _delete(self, names: list[str], _: Options) -> str:
        kind, name = names
        match kind:
            case "service":
                self.apply([c.DeleteService(ServiceId(name))])
            case "network":
                self.apply([c.DeleteNetwork(NetworkId(name))])
            case _:
                self.apply([c.DeleteNode(NodeId(name))])
        return ""

    def _remove(self, names: list[str], _: Options) -> str:
        self.apply([c.DeleteNode(NodeId(names[0]), timestamp=self.now)])
        return ""

    def _report(self, names: list[str], options: Options) -> str:
        name, state = names
        ids = {self._names[task_id]: task_id for task_id in self.snapshot.tasks}
        if name not in ids:
            raise NotFound(f"task {name}")
        task = self.snapshot.tasks[ids[name]]
        at = START + float(options["at"]) if "at" in options else self.now
        status = TaskStatus(TaskState[state.upper()], at)
        self.apply([c.ReportStatus(task.id, task.node, status)])
        return ""

    # Showing

    def describe(self, change: c.Change) -> str:
        """Return one change as a line."""
        match change:
            case c.PutTask(task=task):
                image = "" if task.spec.image == "x" else f" {task.spec.image}"
                text = f"create {self._name(task.id)}{image}"
            case c.SetDesiredState(id=task_id, state=state):
                text = f"desire {self._name(task_id)} {state.name}"
            case c.ReportStatus(id=task_id, status=status):
                error = f" ({status.error})" if status.error else ""
                text = f"status {self._name(task_id)} {status.state.name}{error}"
            case c.AllocateTask(id=task_id, attachments=attachments):
                got = " ".join(f"{a.network}={a.address}" for a in attachments)
                text = f"allocate {self._name(task_id)} {got}".rstrip()
            case c.AssignTask(id=task_id, node=node, gateway_host=host):
                text = f"assign {self._name(task_id)} {node} host={host}"
            case c.DeleteTask(id=task_id):
                text = f"delete {self._name(task_id)}"
            case c.PutCluster(cluster=cluster):
                text = f"keys {keys.ring_text(cluster.gossip_keys)}"
            case c.AllocateNetwork():
                text = f"network {change.id} vni={change.vni} {change.subnet} {change.gateway}"
            case c.AllocateService():
                service = self.snapshot.services[change.id]
                text = f"service {_show_service(replace(service, endpoint=change.endpoint))}"
            case _:
                text = repr(change)
        return text

    def _name(self, task_id: TaskId) -> str:
        return self._names.get(task_id, "a task not made yet")

    def _show_task(self, task: Task) -> str:
        words = [self._names[task.id], task.status.state.name]
        if task.desired_state is not TaskState.RUNNING:
            words.append(f"desired={task.desired_state.name}")
        if task.node:
            words.append(f"node={task.node}")
        words += [f"{a.network}={a.address}" for a in task.attachments]
        if task.spec.image != "x":
            words.append(task.spec.image)
        if task.status.error:
            words.append(f"({task.status.error})")
        return " ".join(words)


def _show_network(network: Network) -> str:
    return f"{network.spec.name} vni={network.vni} {network.subnet} {network.gateway}".rstrip()


def _show_service(service: Service) -> str:
    if service.endpoint is None:
        return f"{service.spec.name} not allocated"
    vips = [f"{v.network}={v.address}" for v in service.endpoint.virtual_addresses]
    ports = [
        f"{p.published_port}:{p.target_port}/{p.protocol}/{p.mode}" for p in service.endpoint.ports
    ]
    return " ".join([service.spec.name, *vips, *ports])


def _service_spec(name: str, options: Options) -> ServiceSpec:
    def several(key: str) -> tuple[str, ...]:
        return tuple(options[key].split(",")) if options.get(key) else ()

    task = TaskSpec(
        image=options.get("image", "x"),
        reservations=Resources(
            int(float(options.get("cpus", "0")) * 1e9), int(options.get("memory", "0")) << 30
        ),
        restart=RestartPolicy(
            RestartCondition(options.get("restart", "any")),
            float(options.get("delay", "5")),
            int(options.get("attempts", "0")),
            float(options.get("window", "0")),
        ),
        placement=Placement(
            several("constraints"), several("spread"), int(options.get("max", "0"))
        ),
        networks=tuple(NetworkAttachmentSpec(NetworkId(n)) for n in several("networks")),
    )
    return ServiceSpec(
        name,
        task,
        mode=ServiceMode(options.get("mode", "replicated")),
        replicas=int(options.get("replicas", "1")),
        endpoint_mode=EndpointMode(options.get("endpoint", "vip")),
        ports=tuple(map(_port, several("ports"))),
    )


def _port(text: str) -> PortSpec:
    """Read `published:target/protocol/mode`."""
    published, _, rest = text.partition(":")
    target, *others = rest.split("/")
    protocol, mode = [*others, *("tcp", "ingress")[len(others) :]]
    return PortSpec(protocol, int(target), int(published), PublishMode(mode))


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort `web.10#2` after `web.9#2`."""
    parts = name.replace("#", ".").split(".")
    return [(int(p), "") if p.isdigit() else (0, p) for p in parts]
