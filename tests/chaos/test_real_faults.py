"""Real daemons under random faults: after each all is right again, and bystanders were not hurt.

`HIVEWIRE_ROUNDS` sets how many rounds there are, `HIVEWIRE_SEED` what befalls the cluster in them,
`HIVEWIRE_MANAGERS` and `HIVEWIRE_WORKERS` how large it is.
A seed does not replay how the daemons race, but what was done to them, and for how long.
"""

from __future__ import annotations

import http.client
import itertools
import json
import logging
import os
import random
import shutil
import sys
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from cluster.local.demo import Api, Load
from cluster.local.layout import Layout, LocalNode
from cluster.model.errors import ClusterError
from cluster.runtime.process import supervisor_pid
from tests.chaos import watch
from tests.chaos.faults import Cut, Fault, Faults, Frozen, Killed, choose
from tests.e2e import lab

logger = logging.getLogger(__name__)

ROUNDS = int(os.environ.get("HIVEWIRE_ROUNDS", "2"))
SEED = int(os.environ.get("HIVEWIRE_SEED", "1"))
MANAGERS = int(os.environ.get("HIVEWIRE_MANAGERS", "3"))
WORKERS = int(os.environ.get("HIVEWIRE_WORKERS", "5"))
REPLICAS = 4
REPLICAS_MAX = watch.ANSWERS_KEPT // 2
WATCHED_PER_S = 80
"""Looks of all tasks of `watch` together: their own work must not overload the machine."""
FAULT_S = (1.0, 25.0)
SETTLED_S_MAX = 30.0 * max(1.0, (MANAGERS + WORKERS) / 8)
"""All nodes share one machine: whatever changes, each has its work of it."""
CALM_S = 2.0
REQUEST_S = 0.5
"""What begins later than so long before the next fault may meet it."""

pytestmark = [
    lab.needs_namespaces,
    pytest.mark.skipif(not shutil.which("nft"), reason="needs nft to cut links"),
    pytest.mark.timeout(120 + 90 * ROUNDS),
]


class Asked(NamedTuple):
    """What a cluster was asked for."""

    replicas: int
    drained: str
    """Host name of the node that is drained, empty for none."""


@dataclass
class World:
    """The cluster, and what was asked of it."""

    layout: Layout
    seen: Path
    """Where the tasks of `watch` write what they see."""
    wanted: set[Asked]
    """What was acknowledged; while something else is asked for, that too."""

    def api(self, node: LocalNode | str) -> Api:
        name = node if isinstance(node, str) else node.name
        return Api(self.layout.socket(self.layout.node(name)))

    @property
    def managers(self) -> list[LocalNode]:
        return [node for node in self.layout.nodes if node.is_manager]

    def tasks(self) -> dict[str, set[str]]:
        """Return the ids of the tasks that run on each node, whatever its daemon thinks."""
        return {
            node.name: {
                path.name for path in self.layout.tasks(node).iterdir() if supervisor_pid(path)
            }
            for node in self.layout.nodes
        }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    directory = lab.short_directory()
    logs = tmp_path_factory.mktemp("logs")
    seen = directory.with_name(directory.name + "-seen")
    seen.mkdir(mode=0o700)
    try:
        with lab.local_cluster(directory, MANAGERS, WORKERS) as layout:
            made = World(layout, seen, {Asked(REPLICAS, "")})
            api = made.api("m1")
            lab.create_web(api, replicas=REPLICAS, port=8080)
            pause_s = (MANAGERS + WORKERS) / WATCHED_PER_S
            command = [sys.executable, "-I", "-S", watch.__file__, str(seen), str(pause_s)]
            spec: dict[str, object] = {
                "Name": "watch",
                "TaskTemplate": {
                    "ContainerSpec": {"Image": "host", "Command": command},
                    "Networks": [{"Target": "shop"}],
                },
                "Mode": {"Global": {}},
            }
            api.call("POST", "/services/create", spec)
            lab.wait_until("the cluster is whole", lambda: not trouble(made))
            yield made
            for node in layout.nodes:
                shutil.copy(layout.log(node), logs)
            logger.info("the daemons' logs are in %s", logs)
    finally:
        shutil.rmtree(seen, ignore_errors=True)


def asked(api: Api) -> Asked:
    """Return what the cluster says that it was asked for."""
    service = json.loads(api.call("GET", "/services/web"))
    nodes = json.loads(api.call("GET", "/nodes"))
    drained = (n["Description"]["Hostname"] for n in nodes if n["Spec"]["Availability"] == "drain")
    return Asked(service["Spec"]["Mode"]["Replicated"]["Replicas"], " ".join(drained))


def trouble(world: World) -> str:
    """Return what is not as it should be, empty if all is."""
    if told := next(filter(None, (_trouble_told_by(world, m) for m in world.managers)), ""):
        return told
    replicas, drained = now = asked(world.api("m1"))
    if now not in world.wanted:
        return f"{now} is asked for, acknowledged was {world.wanted}"
    web = {task.id for task in world.api("m1").running("web")}
    watchers = {task.id for task in world.api("m1").running("watch")}
    places = len(world.layout.nodes) - bool(drained)
    if len(web) != replicas or len(watchers) != places:
        return f"{len(web)} of {replicas} replicas, {len(watchers)} watchers"
    present = sorted(itertools.chain(*world.tasks().values()))
    if present != sorted(web | watchers):
        return f"tasks {present}, wanted {sorted(web | watchers)}"
    return next(filter(None, (_trouble_of(world, n, web) for n in world.layout.nodes)), "")


def _trouble_told_by(world: World, manager: LocalNode) -> str:
    nodes = json.loads(world.api(manager).call("GET", "/nodes"))
    states = {n["Description"]["Hostname"]: n["Status"]["State"] for n in nodes}
    if states != dict.fromkeys((n.name for n in world.layout.nodes), "ready"):
        return f"{manager.name} has nodes {states}"
    standing = [n["ManagerStatus"] for n in nodes if "ManagerStatus" in n]
    leaders = sum(status.get("Leader", False) for status in standing)
    if leaders != 1 or any(status["Reachability"] != "reachable" for status in standing):
        return f"{manager.name} has managers {standing}"
    return ""


def _trouble_of(world: World, node: LocalNode, web: set[str]) -> str:
    members = json.loads(world.api(node).call("GET", "/hivewire/gossip/members"))
    alive = {m["Name"] for m in members if m["State"] == "alive"}
    if alive != {n.name for n in world.layout.nodes}:
        return f"{node.name} believes {sorted(alive)} alive"
    answered = {lab.answer_at(world.layout, node) for _ in range(2 * len(web))}
    if answered != web:
        return f"{sorted(answered)} answer at {node.name}, wanted {sorted(web)}"
    for task in world.tasks()[node.name] - web:
        seen = json.loads((world.seen / task).read_text())
        behind = {name.rpartition(".")[2] for name in seen["answers"]}
        if len(seen["addresses"]) != len(web) or behind != web:
            return f"a task of {node.name} sees {seen}, wanted {sorted(web)}"
    return ""


def bystanders(world: World, faults: list[Fault]) -> set[str]:
    """Return the nodes whose tasks these faults are no reason to touch.

    They run, and have ways to all managers of every majority that all have ways to each other; or,
    where there is no such majority and so nobody to decide anything, no fault concerns them.
    """
    stopped = {fault.node for fault in faults if isinstance(fault, Killed | Frozen)}
    cuts = [fault for fault in faults if isinstance(fault, Cut)]

    def joined(one: str, other: str) -> bool:
        return not any(
            (one in cut.sources and other in cut.targets)
            or (other in cut.sources and one in cut.targets)
            for cut in cuts
        )

    running = [node.name for node in world.layout.nodes if node.name not in stopped]
    managers = [name for name in running if name.startswith("m")]
    leading = {
        manager
        for majority in itertools.combinations(managers, MANAGERS // 2 + 1)
        if all(joined(*pair) for pair in itertools.combinations(majority, 2))
        for manager in majority
    }
    if leading:
        return {name for name in running if all(joined(name, m) for m in leading)}
    return {name for name in running if not any(name in (*c.sources, *c.targets) for c in cuts)}


def act(world: World, rng: random.Random) -> str:
    """Ask the cluster for something and return what; a cluster without a leader may refuse it.

    What is acknowledged has to be so from then on; what is not may be so or not.
    """
    (now,) = world.wanted
    replicas, node = rng.randint(1, REPLICAS_MAX), rng.choice(world.layout.nodes).name
    number = rng.getrandbits(32)
    drain = Asked(now.replicas, "" if now.drained else node)
    wishes = {"scale": Asked(replicas, now.drained), "update": now, "rotate": now, "drain": drain}
    kind = rng.choice(("nothing",) * len(wishes) + tuple(wishes))
    if kind == "nothing":
        return ""
    wanted = wishes[kind]
    world.wanted = {now, wanted}
    for manager in rng.sample(world.managers, MANAGERS):
        api = world.api(manager)
        try:
            match kind:
                case "scale":
                    api.scale("web", wanted.replicas)
                case "update":
                    force(api, number)
                case "rotate":
                    api.call("POST", "/swarm/keys/rotate")
                case _:
                    availability = "drain" if wanted.drained else "active"
                    name = wanted.drained or now.drained
                    api.update("nodes", name, Availability=availability)
        except (ClusterError, OSError):
            continue
        world.wanted = {wanted}
        return f"{kind}: {wanted}"
    return f"{kind}: {wanted}, refused"


def force(api: Api, number: int) -> None:
    """Let all tasks of `web` be replaced, as `service update --force` does."""
    template = json.loads(api.call("GET", "/services/web"))["Spec"]["TaskTemplate"]
    api.update("services", "web", TaskTemplate={**template, "ForceUpdate": number})


def test_everything_is_right_after_random_faults(world: World) -> None:
    rng = random.Random(SEED)
    faults = Faults(world.layout)
    managers = [node.name for node in world.managers]
    workers = [node.name for node in world.layout.nodes if not node.is_manager]
    load = Load(world.layout)
    calms: list[tuple[float, float]] = []
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(load.run)
        try:
            for number in range(ROUNDS):
                chosen = choose(rng, managers, workers)
                logger.info("round %d: %s", number, chosen)
                one_round(world, faults, chosen, rng)
                since = time.monotonic()
                time.sleep(CALM_S)  # what is measured here is time
                calms.append((since, time.monotonic()))
                assert not failed_in_calm(load, calms)
        finally:
            load.stopping.set()
            faults.end()
        running.result()
    assert not failed_in_calm(load, calms)
    logger.info("%d of %d requests failed, none in calm", len(load.failures), load.count)
    for node in world.layout.nodes:
        assert "Traceback" not in world.layout.log(node).read_text(), node.name


def one_round(world: World, faults: Faults, chosen: list[Fault], rng: random.Random) -> None:
    """Bring faults about, end them, and check that all is right again and bystanders unharmed."""
    before = world.tasks()
    faults.begin(chosen)
    begun = time.monotonic()
    wish = act(world, rng)
    duration = rng.uniform(*FAULT_S)
    logger.info("for %.1f s; asked: %s", duration, wish or "nothing")
    time.sleep(max(0.0, begun + duration - time.monotonic()))
    faults.end()
    healed = time.monotonic()
    last = ""
    while last := trouble_or_error(world):
        assert time.monotonic() < healed + SETTLED_S_MAX, last
        time.sleep(0.05)
    logger.info("settled after %.1f s", time.monotonic() - healed)
    world.wanted = {asked(world.api("m1"))}
    if not wish:
        after = world.tasks()
        lost = {n: before[n] - after[n] for n in bystanders(world, chosen)}
        assert not any(lost.values()), lost


def trouble_or_error(world: World) -> str:
    """Return `trouble`, or why it cannot be told."""
    try:
        return trouble(world)
    except (ClusterError, OSError, ValueError, http.client.HTTPException) as error:
        return repr(error)


def failed_in_calm(load: Load, calms: list[tuple[float, float]]) -> list[str]:
    """Return the requests that failed though they had begun while nothing befell the cluster."""
    return [
        f"{begun - since:+.1f} s, {error}"
        for begun, error in load.failures
        for since, until in calms
        if since <= begun < until - REQUEST_S
    ]
