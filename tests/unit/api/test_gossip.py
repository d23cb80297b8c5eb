"""`/hivewire/gossip`: on any node, and a clear word where there is none."""

from __future__ import annotations

import pytest

from cluster.api.backend import LocalState, Membership
from cluster.model.ids import NodeId
from tests.unit.api.caller import Caller
from tests.unit.api.fixed_gossip import LOCAL
from tests.unit.api.memory_backend import MemoryBackend

WORKER = Membership(LocalState.ACTIVE, NodeId("a"), is_manager=False)


@pytest.fixture
def worker(backend: MemoryBackend, outside: Caller) -> Caller:
    """Return a worker: no manager, no replicated state."""
    backend.set_membership(WORKER)
    backend.local_gossip = LOCAL
    return outside


async def test_members(worker: Caller) -> None:
    members = await worker.get("/hivewire/gossip/members")
    assert [m["ID"] for m in members] == ["a", "b", "c", "d", "e"]
    assert members[0] == {
        "ID": "a", "Name": "m1", "Self": True, "State": "alive",
        "Since": "2023-11-14T22:15:00.000000Z", "From": "a", "FromName": "m1",
        "SuspicionEnds": None, "Address": "10.9.0.1:7946", "DataAddress": "10.9.0.1",
        "Epoch": 7, "Incarnation": 2, "RoundTripSeconds": None, "RelayOnly": False,
    }  # fmt: skip
    suspect = members[2]
    assert (suspect["State"], suspect["From"], suspect["FromName"]) == ("suspect", "b", "w1")
    assert suspect["SuspicionEnds"] == "2023-11-14T22:16:43.250000Z"
    assert suspect["Name"] == ""
    assert (members[4]["State"], members[4]["From"]) == ("left", "")
    assert (members[1]["RoundTripSeconds"], members[3]["RelayOnly"]) == (0.00123, True)


async def test_tables(worker: Caller) -> None:
    logs = await worker.get("/hivewire/gossip/tables")
    assert logs[1] == {
        "Scope": "net1", "ScopeName": "shop", "Owner": "b", "OwnerName": "w1", "Epoch": 8,
        "Attachment": 1, "Version": 4, "CollectedVersion": 2, "Records": 2, "Tombstones": 1,
        "SizeBytes": 321, "Visible": True, "Written": "2023-11-14T22:13:25.000000Z",
    }  # fmt: skip
    assert logs[2]["Visible"] is False
    assert logs[2]["Written"].startswith("0001-")


@pytest.mark.parametrize("table", ["net1", "shop"])
async def test_records_of_a_table(worker: Caller, table: str) -> None:
    records = await worker.get(f"/hivewire/gossip/tables/{table}")
    assert [(r["Key"], r["Visible"], r["Deleted"]) for r in records] == [
        ("t1", True, False), ("t2", False, True), ("t3", False, False),
    ]  # fmt: skip
    assert records[0] == {
        "Owner": "b", "OwnerName": "w1", "Key": "t1", "Version": 3, "SizeBytes": 140,
        "Deleted": False, "Visible": True, "Written": "2023-11-14T22:13:25.000000Z",
    }  # fmt: skip


async def test_unknown_table(worker: Caller) -> None:
    text = await worker.refused("GET", "/hivewire/gossip/tables/none", 404)
    assert text == "this node holds no table 'none'"


async def test_keys_have_no_secrets(worker: Caller) -> None:
    assert await worker.get("/hivewire/gossip/keys") == [
        {"ID": 1, "State": "retired", "Since": "2023-11-14T22:14:10.000000Z", "Opened": 12},
        {"ID": 2, "State": "primary", "Since": "2023-11-14T22:14:20.000000Z", "Opened": 3456},
    ]


@pytest.mark.parametrize("what", ["members", "tables", "tables/x", "keys"])
async def test_in_no_cluster(outside: Caller, backend: MemoryBackend, what: str) -> None:
    text = await outside.refused("GET", f"/hivewire/gossip/{what}", 503)
    assert text.startswith("This node is not part of a swarm: use ")
    backend.set_membership(Membership(LocalState.PENDING))
    text = await outside.refused("GET", f"/hivewire/gossip/{what}", 503)
    assert "try again" in text
