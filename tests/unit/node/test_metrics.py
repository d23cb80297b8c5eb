"""What a daemon tells Prometheus: all that its parts count, documented, in a form that parses."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, get_type_hints

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text

from cluster.agent.plan_loop import PlanStats
from cluster.agent.worker import WorkerStats
from cluster.api.exposition import Family, Kind, render
from cluster.api.metrics import API
from cluster.consensus.core import CoreStats
from cluster.consensus.node import NodeStats
from cluster.consensus.transport import MeshStats
from cluster.dispatch.client import ClientStats
from cluster.dispatch.port import PortStats
from cluster.dispatch.server import ServerStats
from cluster.dispatch.statuses import StatusStats
from cluster.model.ids import NodeId
from cluster.model.task import TaskState
from cluster.node.agent import AgentStats
from cluster.node.manager import ManagerStats
from cluster.node.metrics.catalogue import CATALOGUE, families
from cluster.node.metrics.process import ProcessStats, read_process
from cluster.state.snapshot import Snapshot
from dataplane.dns.server import DnsStats
from dataplane.kernel.driver import KernelStats
from gossip.keyring import KeyState, KeyView
from gossip.peer import PeerStats
from gossip.stats import Counters, GossipStats, ShellCounters

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"
SUBJECTS = (*CATALOGUE, ("API", API))
NOT_TOLD = {"ticks"}
"""Counts that tell an operator nothing."""


class Filler:
    """Makes statistics in which every number is another one."""

    def __init__(self) -> None:
        self.numbers: dict[int, str] = {}
        self._next = count(1001)

    def fill(self, kind: type[Any], **given: object) -> Any:  # noqa: ANN401
        """Return a value of a dataclass, its plain numbers filled in."""
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if field.name not in given and hints[field.name] in (int, float):
                number = next(self._next)
                given[field.name] = number
                if field.name not in NOT_TOLD:
                    self.numbers[number] = f"{kind.__name__}.{field.name}"
        return kind(**given)


def everything(fill: Filler) -> list[Family]:
    agent = AgentStats(
        session=fill.fill(ClientStats, manager=NodeId("m"), last_error=""),
        driver=fill.fill(KernelStats),
        dns=fill.fill(DnsStats),
        gossip=PeerStats(
            fill.fill(GossipStats, counters=fill.fill(Counters)),
            fill.fill(ShellCounters),
            (KeyView(3, KeyState.RETIRED, 7), KeyView(4, KeyState.PRIMARY, 9)),
        ),
        worker=fill.fill(WorkerStats, tasks={TaskState.RUNNING: 5}, plan=fill.fill(PlanStats)),
    )
    mesh = fill.fill(MeshStats, sessions_out=("a", "b"), sessions_in=(), refused={"FULL": 2})
    raft = fill.fill(
        NodeStats,
        is_leader=True,
        leader_id="m",
        disk_id="d",
        core=fill.fill(CoreStats),
        mesh=mesh,
    )
    sessions = fill.fill(ServerStats, statuses=fill.fill(StatusStats))
    manager = ManagerStats(raft, fill.fill(PortStats), sessions, Snapshot(index=12))
    return families(fill.fill(ProcessStats), agent, manager)


def values(found: list[Family]) -> Mapping[str, float]:
    return {
        f"{s.name}{sorted(s.labels.items()) or ''}": s.value
        for family in parse_text(render(found))
        for s in family.samples
    }


def test_everything_that_is_counted_is_told() -> None:
    fill = Filler()
    told = {round(value) for value in values(everything(fill)).values()}
    in_ms = {number for number, name in fill.numbers.items() if name.endswith("_ms")}
    untold = {fill.numbers[n] for n in fill.numbers.keys() - told - in_ms}
    assert not untold, "add them to cluster/node/metrics"


def test_both_formats_parse_and_agree() -> None:
    found = everything(Filler())
    text = {s.name: s.value for f in parse_text(render(found)) for s in f.samples}
    opened = {s.name: s.value for f in parse_open(render(found, is_open=True)) for s in f.samples}
    assert text == opened


def test_values() -> None:
    told = values(everything(Filler()))
    assert told["hivewire_gossip_keys[('state', 'retired')]"] == 1
    assert told["hivewire_gossip_keys[('state', 'accept')]"] == 0
    assert told["hivewire_gossip_primary_key_id"] == 4
    assert told["hivewire_gossip_packets_opened_total[('key', '3')]"] == 7
    assert told["hivewire_worker_tasks[('state', 'running')]"] == 5
    assert told["hivewire_worker_tasks[('state', 'failed')]"] == 0
    assert told["hivewire_raft_sessions[('direction', 'out')]"] == 2
    assert told["hivewire_raft_refused_total[('reason', 'full')]"] == 2
    assert told["hivewire_session_connected"] == 1
    assert told["hivewire_cluster_state_index"] == 12


def test_outside_a_cluster_the_process_is_told() -> None:
    told = values(families(read_process(), None, None))
    assert told["process_resident_memory_bytes"] > 1 << 20
    assert 0 < told["process_open_fds"] < 10_000
    assert told["process_cpu_seconds_total"] > 0
    assert told["process_start_time_seconds"] > 1e9
    assert not any(name.startswith("hivewire_gossip") for name in told)


def test_names_are_unique_and_units_are_base_units() -> None:
    names = [metric.name for _, metrics in SUBJECTS for metric in metrics]
    assert len(set(names)) == len(names)
    assert not [n for n in names if n.endswith(("_ms", "_milliseconds", "_kb", "_count", "_sum"))]
    kinds = {metric.kind for _, metrics in SUBJECTS for metric in metrics}
    assert kinds == set(Kind)


def test_documentation_lists_every_metric() -> None:
    text = DOCUMENT.read_text()
    expected = text.partition("\n## ")[0] + "".join(_tables())
    if os.environ.get("REWRITE"):
        DOCUMENT.write_text(expected)
    assert text == expected, "run this test with REWRITE=1 and read the difference"


def _tables() -> Iterator[str]:
    for subject, metrics in SUBJECTS:
        yield f"\n## {subject}\n| metric | type | labels | meaning |\n|---|---|---|---|\n"
        for metric in metrics:
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            yield f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |\n"
