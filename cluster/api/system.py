"""`_ping`, `version`, `info`, and the answers of an engine without images and containers."""

from __future__ import annotations

from aiohttp import web

from cluster.api.backend import Backend, LocalState
from cluster.api.docker_json.cluster import cluster_view, membership_view
from cluster.api.docker_json.fields import Json
from cluster.api.docker_json.text import timestamp
from cluster.api.exchange import Route, answer
from cluster.api.tls_info import tls_info
from cluster.model.node import Role

API_VERSION = "1.51"
API_VERSION_MIN = "1.24"
OS_TYPE = "linux"
_GO_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}


class System:
    """What a client asks first."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[Route]:
        """Return the calls that this object answers."""
        return [
            Route("GET", "/_ping", self.ping),
            Route("HEAD", "/_ping", self.ping),
            Route("GET", "/version", self.version),
            Route("GET", "/info", self.info),
        ]

    async def ping(self, request: web.Request) -> web.Response:
        """Answer OK, with this node's standing in a header."""
        return web.Response(
            text="" if request.method == "HEAD" else "OK",
            headers={
                "Cache-Control": "no-cache, no-store, must-revalidate",
                "Pragma": "no-cache",
                "Builder-Version": "1",
                "Swarm": self._swarm_header(),
            },
        )

    def _swarm_header(self) -> str:
        membership = self._backend.membership()
        if membership.state is LocalState.ACTIVE:
            return f"active/{'manager' if membership.is_manager else 'worker'}"
        return membership.state.value

    async def version(self, _request: web.Request) -> web.Response:
        """Tell the versions, in Docker's form."""
        facts = self._backend.facts()
        architecture = _GO_ARCHITECTURE.get(facts.architecture, facts.architecture)
        details: Json = {
            "ApiVersion": API_VERSION,
            "MinAPIVersion": API_VERSION_MIN,
            "Os": OS_TYPE,
            "Arch": architecture,
            "KernelVersion": facts.kernel_version,
            "Experimental": "false",
        }
        return answer(
            {
                "Platform": {"Name": "hivewire"},
                "Components": [{"Name": "Engine", "Version": facts.version, "Details": details}],
                "Version": facts.version,
                "ApiVersion": API_VERSION,
                "MinAPIVersion": API_VERSION_MIN,
                "Os": OS_TYPE,
                "Arch": architecture,
                "KernelVersion": facts.kernel_version,
            }
        )

    async def info(self, _request: web.Request) -> web.Response:
        """Tell what this node is; never waits for a quorum."""
        facts = self._backend.facts()
        labels = [f"{name}={value}" for name, value in facts.labels.items()]
        return answer(
            {
                **_no_containers(),
                "MemoryLimit": facts.has_limits,
                "CpuCfsPeriod": facts.has_limits,
                "CpuCfsQuota": facts.has_limits,
                "ID": facts.engine_id,
                "Name": facts.hostname,
                "ServerVersion": facts.version,
                "OperatingSystem": facts.operating_system,
                "OSType": OS_TYPE,
                "Architecture": facts.architecture,
                "KernelVersion": facts.kernel_version,
                "NCPU": facts.cpus,
                "MemTotal": facts.memory_bytes,
                "DockerRootDir": facts.data_root,
                "Labels": labels,
                "SystemTime": timestamp(self._backend.now()),
                "Swarm": self._swarm(),
            }
        )

    def _swarm(self) -> Json:
        membership = self._backend.membership()
        view = membership_view(membership)
        if not membership.is_manager:
            return view
        snapshot = self._backend.snapshot()
        roles = [node.spec.role for node in snapshot.nodes.values()]
        view |= {"Nodes": len(roles), "Managers": sum(r is Role.MANAGER for r in roles)}
        if snapshot.cluster is not None:
            tls = tls_info(snapshot.cluster.ca_certificate)
            view["Cluster"] = cluster_view(snapshot.cluster, tls)
        return view


def _no_containers() -> Json:
    """Return what an engine says that keeps no containers and no images."""
    return {
        "Containers": 0,
        "ContainersRunning": 0,
        "ContainersPaused": 0,
        "ContainersStopped": 0,
        "Images": 0,
        "Driver": "process",
        "DriverStatus": [],
        "Plugins": {"Volume": [], "Network": ["overlay"], "Authorization": None, "Log": []},
        "SwapLimit": False,
        "CPUShares": True,
        "CPUSet": True,
        "PidsLimit": False,
        "IPv4Forwarding": True,
        "Debug": False,
        "NFd": 0,
        "OomKillDisable": False,
        "NGoroutines": 0,
        "LoggingDriver": "file",
        "CgroupDriver": "none",
        "NEventsListener": 0,
        "RegistryConfig": None,
        "GenericResources": None,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "ExperimentalBuild": False,
        "Runtimes": {"process": {"path": ""}},
        "DefaultRuntime": "process",
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": "",
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": ""},
        "InitCommit": {"ID": ""},
        "SecurityOptions": [],
        "Warnings": None,
    }
