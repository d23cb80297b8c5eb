"""PySyncObj's private methods are what they were when they were overridden.

If this fails after an upgrade: read what changed in each method named, and what `raft` makes of it,
run the simulator over thousands of seeds, and only then write the new digest here.
"""

from __future__ import annotations

import hashlib
import inspect

import pysyncobj.config
import pysyncobj.fast_queue
import pysyncobj.node
import pysyncobj.syncobj
import pysyncobj.version
import pytest

from cluster.consensus.errors import SafetyViolation
from cluster.consensus.raft import Engine

DIGESTS = {
    "SyncObj._SyncObj__applyLogEntries": "073db677773b5a2d",
    "SyncObj._SyncObj__callErrCallback": "6037c14ef64c2763",
    "SyncObj._SyncObj__changeCluster": "66b42884f9d2dbd1",
    "SyncObj._SyncObj__connectedToAnyone": "acd40e9e3ac6c4cc",
    "SyncObj._SyncObj__deleteEntriesFrom": "3b23c411bb903d36",
    "SyncObj._SyncObj__doApplyCommand": "1ea7aa506e950d0a",
    "SyncObj._SyncObj__doChangeCluster": "247d4d4101b8cd3c",
    "SyncObj._SyncObj__generateRaftTimeout": "92ed37d3620e781a",
    "SyncObj._SyncObj__getCurrentLogIndex": "e5af22ca246686bd",
    "SyncObj._SyncObj__getCurrentLogTerm": "1cb8867e6a13d397",
    "SyncObj._SyncObj__getEntries": "e29c4b33293b2101",
    "SyncObj._SyncObj__getPrevLogIndexTerm": "6766914806ae2311",
    "SyncObj._SyncObj__loadDumpFile": "ec66e83905de703b",
    "SyncObj._SyncObj__onBecomeLeader": "5a3fd97bc17dc1cf",
    "SyncObj._SyncObj__onLeaderChanged": "53b7685e1d897887",
    "SyncObj._SyncObj__onMessageReceived": "ddfe34b6c0282179",
    "SyncObj._SyncObj__onSetCodeVersion": "17b050edb193c853",
    "SyncObj._SyncObj__parseChangeClusterRequest": "b2d5d695b12e592f",
    "SyncObj._SyncObj__sendAppendEntries": "9cb9073128c392fa",
    "SyncObj._SyncObj__sendNextNodeIdx": "68aaeefc267b8896",
    "SyncObj._SyncObj__setCurrentTerm": "0ad5bf456ac06bd3",
    "SyncObj._SyncObj__setState": "2c1f239f7bd79b39",
    "SyncObj._SyncObj__tryLogCompaction": "c2f8a0ec14cc7312",
    "SyncObj._SyncObj__updateClusterConfiguration": "e2de42f3d1a46c96",
    "SyncObj.__init__": "09df12cd7fd7d727",
    "SyncObj._applyCommand": "827f207d515b2d64",
    "SyncObj._checkCommandsToApply": "a386a8079361d204",
    "SyncObj._getLeader": "90e3b8391a79e851",
    "SyncObj._isLeader": "56c32c31db26cdc0",
    "SyncObj._onTick": "cc9eb08232d005ba",
    "SyncObj.setCodeVersion": "a157058e46debd78",
    "SyncObj.transferLeadership": "c3ac67963962d9aa",
    "Node": "08d57d1bfde2aca1",
    "FastQueue": "0206b57b148b047d",
    "SyncObjConf.validate": "229843a2e9a3a0fe",
}
"""First 16 hex digits of the SHA-256 of each method's source, version 0.3.17."""


@pytest.mark.parametrize("name", DIGESTS)
def test_source_is_known(name: str) -> None:
    scope: object = pysyncobj.syncobj
    for module in (pysyncobj.node, pysyncobj.fast_queue, pysyncobj.config):
        if hasattr(module, name.split(".", maxsplit=1)[0]) and not name.startswith("SyncObj."):
            scope = module
    for part in name.split("."):
        scope = getattr(scope, part)

    source = inspect.getsource(scope)  # type: ignore[arg-type]

    assert hashlib.sha256(source.encode()).hexdigest()[:16] == DIGESTS[name]


def test_version_is_known() -> None:
    assert pysyncobj.version.VERSION == "0.3.17"


def test_every_override_is_covered() -> None:
    overridden = {
        name
        for name, value in vars(Engine).items()
        if inspect.isfunction(value) and hasattr(pysyncobj.syncobj.SyncObj, name)
    }

    assert {f"SyncObj.{name}" for name in overridden} <= DIGESTS.keys()


def test_pickle_is_out_of_reach() -> None:
    with pytest.raises(SafetyViolation):
        pysyncobj.syncobj.pickle.loads(b"")
