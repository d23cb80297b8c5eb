"""Services over HTTP: what reads back, what is refused, what an update changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.model.ids import NodeId, ServiceId
from cluster.model.node import Role
from cluster.model.service import EndpointMode, PublishMode, RestartCondition, ServiceMode
from cluster.state.changes import PutNode
from tests.unit.api.caller import Caller, container, filters, service_spec
from tests.unit.api.memory_backend import MemoryBackend, make_node


async def create(api: Caller, spec: object) -> ServiceId:
    answer = await api.post("/services/create", spec, 201)
    return ServiceId(answer["ID"])


async def test_what_the_docker_cli_sends_is_understood(api: Caller, backend: MemoryBackend) -> None:
    network = (await api.post("/networks/create", {"Name": "ov0"}, 201))["Id"]
    service_id = await create(api, {
        "Name": "full", "Labels": {"svc": "l"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "host:latest", "Labels": {"cl": "v"}, "Command": ["/bin/sh"],
                "Args": ["-c", "true"], "Hostname": "h", "Env": ["A=1", "B=two=2", "C"],
                "Dir": "/srv", "User": "0", "Init": False, "StopSignal": "int",
                "StopGracePeriod": 3_000_000_000, "Hosts": ["10.9.9.9 extra"], "DNSConfig": {},
                "Privileges": {"CredentialSpec": None, "NoNewPrivileges": False},
                "Healthcheck": {"Test": ["NONE"]},
            },
            "Resources": {
                "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 67_108_864},
                "Reservations": {"NanoCPUs": 100_000_000},
            },
            "RestartPolicy": {"Condition": "on-failure", "Delay": 2_000_000_000, "MaxAttempts": 3,
                              "Window": 60_000_000_000},
            "Placement": {
                "Constraints": ["node.role==manager"],
                "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}],
                "MaxReplicas": 2, "Platforms": [{"Architecture": "amd64", "OS": "linux"}],
            },
            "Networks": [{"Target": "ov0", "Aliases": ["fulla"]}],
            "ForceUpdate": 0,
        },
        "Mode": {"Replicated": {"Replicas": 2}},
        "UpdateConfig": {"Parallelism": 2, "Order": "start-first"},
        "EndpointSpec": {"Mode": "vip", "Ports": [
            {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8081, "PublishMode": "host"},
            {"Protocol": "udp", "TargetPort": 53, "PublishedPort": 8082}]},
    })  # fmt: skip
    spec = backend.snapshot().services[service_id].spec
    task = spec.task
    assert (spec.name, spec.replicas, spec.labels) == ("full", 2, {"svc": "l"})
    assert (task.image, task.command) == ("host", ("/bin/sh", "-c", "true"))
    assert task.environment == (("A", "1"), ("B", "two=2"), ("C", ""))
    assert (task.hostname, task.working_directory, task.user) == ("h", "/srv", "0")
    assert (task.stop_signal, task.stop_grace_s) == ("SIGINT", 3.0)
    assert task.hosts == (("10.9.9.9", "extra"),)
    assert (task.limits.nano_cpus, task.limits.memory_bytes) == (500_000_000, 67_108_864)
    assert task.reservations.nano_cpus == 100_000_000
    assert task.restart.condition is RestartCondition.ON_FAILURE
    assert (task.restart.delay_s, task.restart.attempts_max, task.restart.window_s) == (2, 3, 60)
    assert task.placement.constraints == ("node.role==manager",)
    assert task.placement.spread_over == ("node.labels.zone",)
    assert task.placement.replicas_max_per_node == 2
    assert [(a.target, a.aliases) for a in task.networks] == [(network, ("fulla",))]
    assert [(p.protocol, p.target_port, p.published_port, p.mode) for p in spec.ports] == [
        ("tcp", 80, 8081, PublishMode.HOST),
        ("udp", 53, 8082, PublishMode.INGRESS),
    ]
    view = await api.get("/services/full")
    assert view["Spec"]["TaskTemplate"]["Networks"] == [{"Target": network, "Aliases": ["fulla"]}]
    assert view["Spec"]["UpdateConfig"] == {"Parallelism": 2, "Order": "start-first"}
    assert view["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] == "host:latest"


async def test_docker_py_sends_keys_in_other_case(api: Caller, backend: MemoryBackend) -> None:
    service_id = await create(api, {
        "name": "py", "taskTemplate": {"containerspec": {"image": "host", "args": ["x"],
                                                         "LABELS": {"Image": "kept"}}},
        "Mode": {"replicated": {"replicas": 3}}, "EndpointSpec": None, "Labels": None,
        "Custom": {"replicas": None, "deep": [1]},
    })  # fmt: skip
    spec = backend.snapshot().services[service_id].spec
    assert (spec.name, spec.replicas, spec.task.labels) == ("py", 3, {"Image": "kept"})
    view = (await api.get("/services/py"))["Spec"]
    assert view["Mode"] == {"Replicated": {"Replicas": 3}}
    assert view["TaskTemplate"]["ContainerSpec"]["Labels"] == {"Image": "kept"}
    assert view["Custom"] == {"deep": [1]}
    assert "EndpointSpec" not in view
    assert view["Labels"] == {}


async def test_defaults(api: Caller, backend: MemoryBackend) -> None:
    service_id = await create(api, service_spec("web", Mode={"Replicated": {}}))
    spec = backend.snapshot().services[service_id].spec
    assert (spec.mode, spec.replicas) == (ServiceMode.REPLICATED, 1)
    assert spec.endpoint_mode is EndpointMode.VIP
    assert spec.task.restart.delay_s == 5.0
    view = (await api.get("/services/web"))["Spec"]
    assert view["Mode"] == {"Replicated": {"Replicas": 1}}
    assert "RollbackConfig" not in view
    full = (await api.get("/services/web", insertDefaults="true"))["Spec"]
    assert full["RollbackConfig"]["Parallelism"] == 1
    assert full["TaskTemplate"]["RestartPolicy"]["Condition"] == "any"
    assert full["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"] == 10_000_000_000


async def test_a_service_without_name_gets_one(api: Caller) -> None:
    service_id = await create(api, service_spec(""))
    assert (await api.get(f"/services/{service_id}"))["Spec"]["Name"] == f"service-{service_id[:8]}"


@pytest.mark.parametrize(
    ("image", "typed"),
    [("host", "host"), ("host:latest", "host"), ("host@sha256:" + "a" * 64, "host"),
     ("/srv/rootfs", "/srv/rootfs")],
)  # fmt: skip
async def test_images(api: Caller, backend: MemoryBackend, image: str, typed: str) -> None:
    service_id = await create(api, container(Image=image))
    assert backend.snapshot().services[service_id].spec.task.image == typed


def _ports(*ports: object, mode: str = "vip") -> dict[str, object]:
    return service_spec(EndpointSpec={"Mode": mode, "Ports": list(ports)})


def _task(**keys: object) -> dict[str, object]:
    return service_spec(
        TaskTemplate={"ContainerSpec": {"Image": "host", "Args": ["sleep"]}, **keys}
    )


REFUSED = [
    (service_spec("a b"), 400, "DNS name component"),
    (service_spec("-a"), 400, "DNS name component"),
    (service_spec("a\n"), 400, "DNS name component"),
    (service_spec("a" * 64), 400, "63 characters or fewer"),
    (service_spec("a" * 62 + "!"), 400, "DNS name component"),
    (service_spec(Mode={"Replicated": {"Replicas": -1}}), 400, "Replicas must be between"),
    (service_spec(Mode={"Replicated": {"Replicas": 1.5}}), 400, "a whole number"),
    (service_spec(Mode={"Replicated": {"Replicas": 10_001}}), 400, "at most 10000"),
    (service_spec(Mode={"Replicated": {}, "Global": {}}), 400, "only one service mode"),
    (service_spec(Mode={"Sometimes": {}}), 400, "unknown service mode"),
    (service_spec(Mode={"ReplicatedJob": {}}), 501, "jobs"),
    (service_spec(Mode=5), 400, "Mode must be an object"),
    (service_spec(Labels={"a": None, "b": 1}), 400, "Labels.b must be a string"),
    (service_spec(TaskTemplate={}), 400, "image reference must be provided"),
    (service_spec(TaskTemplate=[1]), 400, "TaskTemplate must be an object"),
    (service_spec(TaskTemplate={"ContainerSpec": {"Image": "host"}}), 400, "command is required"),
    (container(Image="alpine:3"), 400, "must be 'host'"),
    (container(Image="hostile"), 400, "must be 'host'"),
    (container(Args=["sleep", 5]), 400, "Args[1] must be a string"),
    (container(Args=["a\0b"]), 400, "NUL"),
    (container(Env=["=x"]), 400, "no variable name"),
    (container(Env=["A={{.Node.ID}}"]), 501, "templates"),
    (container(Hostname="h-{{.Task.Slot}}"), 501, "templates"),
    (container(Hostname="a b"), 400, "no host name"),
    (_task(Networks=[{"Target": "shop", "Aliases": ["a b"]}]), 400, "no host name"),
    (container(Dir="tmp"), 400, "absolute path"),
    (container(Hosts=["extra 10.0.0.1"]), 400, "no IP address"),
    (container(StopSignal="SIGNOPE"), 400, "invalid stop signal"),
    (container(StopGracePeriod=-1), 400, "StopGracePeriod must be between"),
    (container(Mounts=[{"Type": "bind", "Source": "/", "Target": "/x"}]), 501, "Mounts"),
    (container(Secrets=[{"SecretID": "x"}]), 501, "Secrets"),
    (container(Healthcheck={"Test": ["CMD", "true"]}), 501, "Healthcheck"),
    (container(ReadOnly=True), 501, "ReadOnly"),
    (container(CapabilityDrop=["ALL"]), 501, "CapabilityDrop"),
    (container(DNSConfig={"Nameservers": ["10.0.0.53"]}), 501, "DNSConfig"),
    (_task(Resources={"Limits": {"NanoCPUs": 5}}), 400, "Must be at least 0.001"),
    (_task(Resources={"Limits": {"MemoryBytes": 5}}), 400, "Must be at least 4MiB"),
    (_task(Resources={"Limits": {"Pids": 5}}), 501, "Pids"),
    (_task(RestartPolicy={"Condition": "perhaps"}), 400, "invalid RestartCondition"),
    (_task(RestartPolicy={"Delay": -5}), 400, "Delay must be between"),
    (_task(Placement={"Constraints": ["node.role"]}), 400, "constraint"),
    (_task(Networks=[{"Target": "nope"}]), 404, "network nope not found"),
    (_task(Networks=[{"Target": "ingress"}]), 400, "ingress network"),
    (_task(Networks=[{"Target": "shop"}, {"Target": "shop"}]), 400, "more than once"),
    (_task(Networks=[{"Target": "shop", "DriverOpts": {"x": "y"}}]), 501, "DriverOpts"),
    (_task(Runtime="plugin"), 501, "plugin"),
    (_ports({"TargetPort": 0}), 400, "TargetPort must be between 1 and 65535"),
    (_ports({"PublishedPort": 80}), 400, "needs a target port"),
    (_ports({"TargetPort": 80, "PublishedPort": 70_000}), 400, "PublishedPort must be between"),
    (_ports({"TargetPort": 80, "Protocol": "sctp"}), 501, "sctp"),
    (_ports({"TargetPort": 80, "Protocol": "icmp"}), 400, "protocol"),
    (_ports({"TargetPort": 80, "PublishMode": "all"}), 400, "invalid PublishMode"),
    (_ports({"TargetPort": 80}, mode="dnsrr"), 400, "dnsrr mode"),
    (_ports({"TargetPort": 80}, mode="ip"), 400, "invalid EndpointMode"),
    (_ports({"TargetPort": 80, "PublishedPort": 8}, {"TargetPort": 81, "PublishedPort": 8}), 400,
     "duplicate published ports"),
    (_ports({"TargetPort": 80, "PublishedPort": 9999}), 400,
     "rpc error: code = InvalidArgument desc = port '9999' is already in use by service 'first'"),
    (service_spec("first"), 409, "service first already exists"),
    (service_spec("FIRST"), 409, "service first already exists"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "status", "words"), REFUSED)
async def test_create_refuses(
    api: Caller, backend: MemoryBackend, spec: object, status: int, words: str
) -> None:
    await api.post("/networks/create", {"Name": "shop"}, 201)
    ports = [{"TargetPort": 80, "PublishedPort": 9999}]
    await create(api, service_spec("first", EndpointSpec={"Ports": ports}))
    before = backend.snapshot()
    assert words in await api.refused("POST", "/services/create", status, spec)
    assert backend.snapshot() is before


async def test_update_replaces_the_spec_and_keeps_the_one_before(api: Caller) -> None:
    await create(api, service_spec())
    old = await api.get("/services/web")
    assert "PreviousSpec" not in old
    version = str(old["Version"]["Index"])
    spec = {**old["Spec"], "Mode": {"Replicated": {"Replicas": 3}}, "Labels": {"a": "b"}}
    assert await api.post("/services/web/update", spec, version=version) == {"Warnings": None}
    new = await api.get("/services/web")
    assert new["Spec"] == spec
    assert new["PreviousSpec"] == old["Spec"]
    assert (await api.get("/services", status="true"))[0]["ServiceStatus"] == {
        "RunningTasks": 3,
        "DesiredTasks": 3,
        "CompletedTasks": 0,
    }
    for stale in (version, "1", "999999"):
        text = await api.refused("POST", "/services/web/update", 500, spec, version=stale)
        assert text.endswith("update out of sequence")


async def test_rollback(api: Caller) -> None:
    await create(api, service_spec())
    old = await api.get("/services/web")
    version = str(old["Version"]["Index"])
    text = await api.refused("POST", "/services/web/update", 400, old["Spec"], version=version,
                             rollback="previous")  # fmt: skip
    assert "does not have a previous spec" in text
    spec = {**old["Spec"], "Labels": {"a": "b"}}
    await api.post("/services/web/update", spec, version=version)
    version = str((await api.get("/services/web"))["Version"]["Index"])
    await api.post("/services/web/update", spec, version=version, rollback="previous")
    new = await api.get("/services/web")
    assert (new["Spec"], new["PreviousSpec"]) == (old["Spec"], spec)
    await api.refused("POST", "/services/web/update", 400, spec, version="1", rollback="all")


@pytest.mark.parametrize(
    ("change", "status"),
    [({"Name": "other"}, 501), ({"Mode": {"Global": {}}}, 501), ({"Name": ""}, 400)],
)
async def test_update_refuses(api: Caller, change: dict[str, object], status: int) -> None:
    await create(api, service_spec())
    view = await api.get("/services/web")
    spec = {**view["Spec"], **change}
    version = str(view["Version"]["Index"])
    await api.refused("POST", "/services/web/update", status, spec, version=version)
    await api.refused("POST", "/services/web/update", 400, spec)
    await api.refused("POST", "/services/nope/update", 404, service_spec(), version=version)


async def test_list_filters(api: Caller) -> None:
    first = await create(api, service_spec("web", Labels={"a": "b"}))
    await create(api, service_spec("webshop", Mode={"Global": {}}))
    for wanted, count in (
        ({"name": ["web"]}, 2), ({"name": ["webs"]}, 1), ({"id": [first[:9]]}, 1),
        ({"mode": ["global"]}, 1), ({"label": ["a"]}, 1), ({"runtime": ["container"]}, 2),
        ({"runtime": ["plugin"]}, 0), ({"name": ["x"], "mode": ["global"]}, 0),
    ):  # fmt: skip
        assert len(await api.get("/services", filters=filters(**wanted))) == count, wanted
    assert len(await api.get("/services", filters='{"name":["webs"]}')) == 1
    await api.refused("GET", "/services", 400, filters='{"nome":["webs"]}')


async def test_wishes_without_effect_are_told(api: Caller) -> None:
    answer = await api.post("/services/create", service_spec(UpdateConfig={"Delay": 1}), 201)
    assert answer["Warnings"] == ["UpdateConfig is kept, but has no effect yet"]


async def test_unknown_fields_are_told(api: Caller) -> None:
    ports = [{"TargetPort": 80, "targetport ": 81}]
    spec = service_spec(
        Replicas_=2, Labels={"any": "key"}, EndpointSpec={"Ports": ports}, endpointspecs={}
    )
    answer = await api.post("/services/create", spec, 201)
    assert answer["Warnings"] == [
        "Replicas_ is not known here and has no effect",
        "EndpointSpec.Ports.targetport  is not known here and has no effect",
        "endpointspecs is not known here and has no effect",
    ]
    many = service_spec("other", **{f"x{n}": "y" for n in range(100)})
    assert len((await api.post("/services/create", many, 201))["Warnings"]) == 10


async def test_delete(api: Caller) -> None:
    await create(api, service_spec())
    await api.delete("/services/web")
    assert await api.refused("DELETE", "/services/web", 404) == "service web not found"
    assert await api.get("/tasks") == []


async def test_endpoint_shows_what_was_allocated(api: Caller) -> None:
    await api.post("/networks/create", {"Name": "shop"}, 201)
    await create(api, service_spec(Networks=[{"Target": "shop"}],
                                   EndpointSpec={"Ports": [{"TargetPort": 80}]}))  # fmt: skip
    endpoint = (await api.get("/services/web"))["Endpoint"]
    assert endpoint["Spec"]["Mode"] == "vip"
    assert endpoint["Ports"] == [
        {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 30000, "PublishMode": "ingress"}
    ]
    assert endpoint["VirtualIPs"][0]["Addr"] == "10.0.0.2/24"


async def test_limits_that_a_node_cannot_keep_are_warned_of(
    api: Caller, backend: MemoryBackend
) -> None:
    def without(name: str, index: int) -> PutNode:
        node = make_node(NodeId(name * 12 + "0"), name, Role.WORKER, index)
        return PutNode(replace(node, description=replace(node.description, has_limits=False)))

    await backend.propose([without("w1", 5), without("w2", 6)])
    limited = _task(Resources={"Limits": {"MemoryBytes": 1 << 26}})
    answer = await api.post("/services/create", limited, 201)
    (warning,) = answer["Warnings"]
    assert "no effect on w1, w2: no control groups" in warning
    service = await api.get(f"/services/{answer['ID']}")
    path, version = f"/services/{answer['ID']}/update", str(service["Version"]["Index"])
    assert await api.post(path, limited, version=version) == {"Warnings": [warning]}
    elsewhere = _task(
        Resources={"Limits": {"MemoryBytes": 1 << 26}},
        Placement={"Constraints": ["node.role==manager"]},
    )
    for spec in ({**elsewhere, "Name": "a"}, {**_task(), "Name": "b"}):
        assert (await api.post("/services/create", spec, 201))["Warnings"] is None


async def test_ports_that_do_not_answer_on_the_host_are_warned_of(
    api: Caller, backend: MemoryBackend
) -> None:
    backend.published_port_min = 1024
    low = {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 80}
    ports = [low, {**low, "PublishedPort": 8080}, {**low, "PublishedPort": 0},
             {**low, "PublishedPort": 81, "PublishMode": "host"}]  # fmt: skip
    (warning,) = (await api.post("/services/create", _ports(*ports), 201))["Warnings"]
    assert warning.startswith("port 80/tcp does not answer at this machine's 127.0.x.y addresses")
    assert "ports below 1024 need root" in warning
