"""Making, joining, leaving and changing the cluster."""

from __future__ import annotations

import pytest

from cluster.api.backend import LocalState, Membership, RaftView, Reachability
from cluster.api.swarm import leave_warning
from cluster.model.ids import NodeId
from tests.unit.api.caller import Caller
from tests.unit.api.memory_backend import MemoryBackend


async def test_init_as_the_docker_cli_sends_it(outside: Caller, backend: MemoryBackend) -> None:
    node_id = await outside.post(
        "/v1.51/swarm/init",
        {
            "ListenAddr": "0.0.0.0:2377",
            "AdvertiseAddr": "10.9.0.1",
            "DataPathAddr": "",
            "DataPathPort": 4790,
            "ForceNewCluster": False,
            "Spec": {
                "Labels": None,
                "Orchestration": {"TaskHistoryRetentionLimit": 3},
                "Raft": {"ElectionTick": 0, "HeartbeatTick": 0},
                "Dispatcher": {},
                "CAConfig": {},
                "TaskDefaults": {},
                "EncryptionConfig": {"AutoLockManagers": False},
            },
            "AutoLockManagers": False,
            "Availability": "",
            "DefaultAddrPool": ["10.20.0.0/16"],
            "SubnetSize": 26,
        },
    )
    assert list(backend.snapshot().nodes) == [node_id]
    swarm = await outside.get("/swarm")
    assert swarm["JoinTokens"] == {"Worker": "SWMTKN-1-w", "Manager": "SWMTKN-1-m"}
    assert swarm["DefaultAddrPool"] == ["10.20.0.0/16"]
    assert (swarm["SubnetSize"], swarm["DataPathPort"]) == (26, 4790)
    assert swarm["Spec"]["Name"] == "default"
    assert swarm["Spec"]["Labels"] == {}
    assert swarm["Spec"]["Orchestration"] == {"TaskHistoryRetentionLimit": 3}
    assert swarm["Spec"]["Dispatcher"] == {"HeartbeatPeriod": 5_000_000_000}
    assert swarm["Spec"]["Raft"]["ElectionTick"] == 10
    assert "already part of a swarm" in await outside.refused("POST", "/swarm/init", 503, {})


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"DataPathPort": 80}, 400, "1024..49151"),
        ({"DefaultAddrPool": ["ten"]}, 400, "invalid address pool"),
        ({"DefaultAddrPool": ["10.0.0.0/25"]}, 400, "smaller than one /24"),
        ({"DefaultAddrPool": ["10.0.0.0/8", "10.1.0.0/16"]}, 400, "overlaps"),
        ({"DefaultAddrPool": ["100.64.0.0/16"]}, 400, "overlaps 100.64.0.0/10"),
        ({"SubnetSize": 30}, 400, "at most 29"),
        ({"Availability": "sometimes"}, 400, "invalid Availability"),
        ({"AutoLockManagers": True}, 501, "autolock"),
        ({"Spec": {"EncryptionConfig": {"AutoLockManagers": True}}}, 501, "autolock"),
        ({"Spec": {"Name": "other"}}, 400, 'swarm must be named "default"'),
        ({"Spec": {"CAConfig": {"NodeCertExpiry": 60_000_000_000}}}, 400, "1h0m0s"),
        ({"Spec": {"CAConfig": {"ExternalCAs": [{"URL": "https://x"}]}}}, 501, "ExternalCAs"),
        ({"Spec": {"Dispatcher": {"HeartbeatPeriod": 1}}}, 400, "heartbeat"),
        ({"Spec": {"GossipKeys": {"RotationPeriod": 60_000_000_000}}}, 400, "1h0m0s"),
        ({"ListenAddr": 5}, 400, "ListenAddr must be a string, not a number"),
    ],
)
async def test_init_refuses(
    outside: Caller, backend: MemoryBackend, body: object, status: int, words: str
) -> None:
    assert words in await outside.refused("POST", "/swarm/init", status, body)
    assert backend.snapshot().cluster is None


async def test_join(outside: Caller, backend: MemoryBackend) -> None:
    for body, words in (
        ({"JoinToken": "t"}, "at least 1 RemoteAddr"),
        ({"RemoteAddrs": ["10.9.0.1:2377"]}, "A valid join token is necessary"),
    ):
        assert words in await outside.refused("POST", "/swarm/join", 400, body)
    await outside.post(
        "/swarm/join",
        {"RemoteAddrs": ["10.9.0.1:2377"], "JoinToken": "SWMTKN-1-x", "Availability": "drain"},
    )
    assert backend.joined[0].remote_addresses == ("10.9.0.1:2377",)
    assert "SWMTKN" not in repr(backend.joined[0])
    text = await outside.refused(
        "POST", "/swarm/join", 503, {"RemoteAddrs": ["a"], "JoinToken": "t"}
    )
    assert "already part of a swarm" in text


async def test_leave(outside: Caller, backend: MemoryBackend) -> None:
    text = await outside.refused("POST", "/swarm/leave", 503)
    assert text == "This node is not part of a swarm"
    await outside.post("/swarm/init", {})
    text = await outside.refused("POST", "/swarm/leave", 503)
    assert "Removing the last manager erases all current state" in text
    await outside.post("/swarm/leave", force="1")
    assert backend.membership().state is LocalState.INACTIVE
    backend.set_membership(Membership(LocalState.ACTIVE, NodeId("n2"), False))
    await outside.post("/swarm/leave")


def test_leave_warning_counts_managers() -> None:
    ids = [NodeId(text) for text in ("a", "b", "c")]
    three = RaftView(ids[0], dict.fromkeys(ids, Reachability.REACHABLE))
    assert "Removing this node leaves" not in leave_warning(three)
    broken = RaftView(ids[0], {**three.reachability, ids[2]: Reachability.UNREACHABLE})
    assert "leaves 1 managers out of 3" in leave_warning(broken)


async def test_update_settings(api: Caller) -> None:
    swarm = await api.get("/swarm")
    spec = {**swarm["Spec"], "Orchestration": {"TaskHistoryRetentionLimit": 9},
            "Labels": {"a": "b"}}  # fmt: skip
    version = str(swarm["Version"]["Index"])
    await api.post("/swarm/update", spec, version=version)
    changed = await api.get("/swarm")
    assert changed["Spec"]["Orchestration"] == {"TaskHistoryRetentionLimit": 9}
    assert changed["Spec"]["Labels"] == {"a": "b"}
    assert changed["JoinTokens"] == swarm["JoinTokens"]
    text = await api.refused("POST", "/swarm/update", 500, spec, version=version)
    assert text.endswith("update out of sequence")
    for bad in ("", "x", "-1", "9" * 40):
        text = await api.refused("POST", "/swarm/update", 400, spec, version=bad)
        assert text.startswith("invalid swarm version")


@pytest.mark.parametrize(("flag", "kind"), [("rotateWorkerToken", "Worker"),
                                            ("rotateManagerToken", "Manager")])  # fmt: skip
async def test_rotate_tokens(api: Caller, flag: str, kind: str) -> None:
    swarm = await api.get("/swarm")
    version = str(swarm["Version"]["Index"])
    await api.call("POST", "/swarm/update", 200, swarm["Spec"], {"version": version, flag: "true"})
    tokens = (await api.get("/swarm"))["JoinTokens"]
    other = "Manager" if kind == "Worker" else "Worker"
    assert tokens[kind] != swarm["JoinTokens"][kind]
    assert tokens[other] == swarm["JoinTokens"][other]


async def test_there_is_no_autolock(api: Caller) -> None:
    assert await api.get("/swarm/unlockkey") == {"UnlockKey": ""}
    assert await api.refused("POST", "/swarm/unlock", 409, {}) == "swarm is not locked"
    swarm = await api.get("/swarm")
    await api.refused("POST", "/swarm/update", 501, swarm["Spec"], version="1",
                      rotateManagerUnlockKey="true")  # fmt: skip
