"""Keys as Docker spells them, and no nulls (pure).

Go's decoder takes keys in any case, and docker-py uses that (`replicated`). Only known keys are
respelled: keys under `_USER_KEYS` are the user's own (labels, options), unknown ones stay as they
are, so that a newer client reads back what it wrote; the answer warns of them.
"""

from __future__ import annotations

from cluster.api.docker_json.fields import Json, as_list, as_object

_USER_KEYS = frozenset({"Labels", "Options", "DriverOpts", "Sysctls", "AuxiliaryAddresses"})
"""Objects whose keys are the user's."""

_KNOWN = (
    # requests and their parts, in Docker's spelling (swagger v1.51)
    "Name", "Labels", "TaskTemplate", "Mode", "UpdateConfig", "RollbackConfig", "Networks",
    "EndpointSpec",
    "ContainerSpec", "PluginSpec", "NetworkAttachmentSpec", "Resources", "RestartPolicy",
    "Placement", "ForceUpdate", "Runtime", "LogDriver",
    "Image", "Command", "Args", "Hostname", "Env", "Dir", "User", "Groups", "Privileges", "Init",
    "StopSignal", "TTY", "OpenStdin", "ReadOnly", "Mounts", "StopGracePeriod", "Healthcheck",
    "Hosts", "DNSConfig", "Secrets", "Configs", "Isolation", "Sysctls", "CapabilityAdd",
    "CapabilityDrop", "Ulimits", "OomScoreAdj",
    "Limits", "Reservations", "NanoCPUs", "MemoryBytes", "Pids", "GenericResources",
    "Condition", "Delay", "MaxAttempts", "Window",
    "Constraints", "Preferences", "Spread", "SpreadDescriptor", "MaxReplicas", "Platforms",
    "Architecture", "OS",
    "Target", "Aliases", "DriverOpts",
    "Replicated", "Replicas", "Global", "ReplicatedJob", "MaxConcurrent", "TotalCompletions",
    "GlobalJob",
    "Parallelism", "FailureAction", "Monitor", "MaxFailureRatio", "Order",
    "Ports", "Protocol", "TargetPort", "PublishedPort", "PublishMode",
    "Nameservers", "Search", "Options", "Test", "Interval", "Timeout", "StartPeriod",
    "StartInterval", "Retries",
    "CredentialSpec", "SELinuxContext", "NoNewPrivileges", "Seccomp", "AppArmor",
    "Driver", "Scope", "IPAM", "Config", "Subnet", "IPRange", "Gateway", "AuxiliaryAddresses",
    "Internal", "Attachable", "Ingress", "ConfigOnly", "ConfigFrom", "EnableIPv6", "EnableIPv4",
    "CheckDuplicate", "Network",
    "Role", "Availability",
    "ListenAddr", "AdvertiseAddr", "DataPathAddr", "DataPathPort", "ForceNewCluster", "Spec",
    "AutoLockManagers", "DefaultAddrPool", "SubnetSize", "RemoteAddrs", "JoinToken",
    "Orchestration", "TaskHistoryRetentionLimit", "Raft", "SnapshotInterval", "KeepOldSnapshots",
    "LogEntriesForSlowFollowers", "ElectionTick", "HeartbeatTick", "Dispatcher",
    "HeartbeatPeriod", "CAConfig", "NodeCertExpiry", "ExternalCAs", "SigningCACert",
    "SigningCAKey", "ForceRotate", "TaskDefaults", "EncryptionConfig",
    "GossipKeys", "RotationPeriod",
    "Data", "Templating", "UnlockKey",
)  # fmt: skip

WARNINGS_MAX = 10
_PATH_CHARS_MAX = 200
_SPELLING = {name.lower(): name for name in _KNOWN}


def canonical(value: Json) -> Json:
    """Return the request with known keys respelled and nulls left out."""
    return {
        _spelling(key): _canonical(item, _spelling(key))
        for key, item in value.items()
        if item is not None
    }


def unknown_warnings(value: Json) -> list[str]:
    """Return what the user should know of keys that mean nothing here, at most `WARNINGS_MAX`."""
    paths = _unknown_keys(value, "")[:WARNINGS_MAX]
    return [f"{path[:_PATH_CHARS_MAX]} is not known here and has no effect" for path in paths]


def _unknown_keys(value: Json, path: str) -> list[str]:
    found: list[str] = []
    for key, item in value.items():
        where = f"{path}.{key}" if path else key
        if key.lower() not in _SPELLING:
            found.append(where)
        elif _spelling(key) not in _USER_KEYS:
            for inner in map(as_object, as_list(item) or [item]):
                found += _unknown_keys(inner or {}, where)
    return found


def _canonical(value: object, key: str) -> object:
    inner = as_object(value)
    if inner is not None:
        if key in _USER_KEYS:
            return {k: v for k, v in inner.items() if v is not None}
        return canonical(inner)
    items = as_list(value)
    return value if items is None else [_canonical(item, key) for item in items]


def _spelling(key: str) -> str:
    return _SPELLING.get(key.lower(), key)
