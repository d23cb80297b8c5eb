"""What a task can reach and resolve: its own networks, and nothing of the others'.

Real traffic on a local cluster: a service on each of two networks with the same subnet size, and in
each a probe that tries the names, virtual addresses and task addresses of both.
"""

from __future__ import annotations

import json
import sys
import urllib.parse
from collections.abc import Generator

import pytest

from cluster.local.demo import Api
from cluster.local.layout import Layout
from tests.e2e import lab

pytestmark = [lab.needs_namespaces, pytest.mark.timeout(180)]
NETWORKS = ("red", "blue")
FIRST_NAME_S_MAX = 4.0
"""An unknown name where a node does not know yet that no upstream resolver answers. The C library
asks twice: that takes `dataplane.dns.forwarder.TIMEOUT_S`, then `DOWN_TIMEOUT_S`."""
NAMES_S_MAX = 1.5
"""Those after it; each was 8 s."""

PROBE = """
import json, socket, sys, time
names, addresses = sys.argv[1].split(), sys.argv[2].split()
found, reached, took = {}, {}, {}
for name in names:
    begun = time.monotonic()
    try:
        got = {i[4][0] for i in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)}
        found[name] = sorted(got)
    except socket.gaierror as error:
        found[name] = []
    took[name] = time.monotonic() - begun
until = time.monotonic() + float(sys.argv[3])
for address in addresses:
    while not reached.get(address):
        try:
            socket.create_connection((address, 80), 1.0).close()
            reached[address] = True
        except OSError:
            reached[address] = False
            if time.monotonic() >= until:
                break
            time.sleep(0.05)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(0.3)
        try:
            udp.sendto(b"who?", (address, 80))
            udp.recv(4096)
            reached[address] = True
        except OSError:
            pass
print("SEEN" + json.dumps([found, reached, took]), flush=True)
"""


@pytest.fixture(scope="module")
def layout() -> Generator[Layout]:
    with lab.local_cluster(lab.short_directory(), managers=1, workers=1) as made:
        yield made


@pytest.fixture(scope="module")
def addresses(layout: Layout) -> dict[str, list[str]]:
    """Return every address of the service on each network: virtual, and of its two tasks."""
    api = Api(layout.socket(layout.nodes[0]))
    found: dict[str, list[str]] = {}
    for network in NETWORKS:
        lab.create_web(api, replicas=2, port=0, name=f"web-{network}", network=network)
        service = json.loads(api.call("GET", f"/services/web-{network}"))
        vips = [vip["Addr"] for vip in service["Endpoint"]["VirtualIPs"]]
        filters = urllib.parse.quote(json.dumps({"service": [f"web-{network}"]}))
        tasks = json.loads(api.call("GET", f"/tasks?filters={filters}"))
        own = [a for task in tasks for n in task["NetworksAttachments"] for a in n["Addresses"]]
        found[network] = [address.partition("/")[0] for address in (*vips, *own)]
        # A task runs before it listens: what others are refused later must be there.
        _, reached, _ = probe(layout, f"ready-{network}", (network,), [], found[network], wait_s=20)
        assert all(reached.values()), reached
    return found


def probe(
    layout: Layout,
    name: str,
    networks: tuple[str, ...],
    names: list[str],
    addresses: list[str],
    *,
    wait_s: int = 0,
) -> tuple[dict[str, list[str]], dict[str, bool], dict[str, float]]:
    """Run a task on `networks`; return what it resolved and reached, and seconds for each name."""
    api = Api(layout.socket(layout.nodes[0]))
    arguments = [" ".join(names), " ".join(addresses), str(wait_s)]
    command = [sys.executable, "-I", "-S", "-c", PROBE, *arguments]
    api.call(
        "POST",
        "/services/create",
        {
            "Name": name,
            "TaskTemplate": {
                "ContainerSpec": {"Image": "host", "Command": command},
                "RestartPolicy": {"Condition": "none"},
                "Networks": [{"Target": network} for network in networks],
            },
        },
    )
    path = f"/services/{name}/logs?stdout=1&stderr=1"

    def seen() -> str:
        return api.call("GET", path).decode(errors="replace").partition("SEEN")[2]

    said = json.loads(lab.wait_until("the probe has spoken", seen))
    return said[0], said[1], said[2]


@pytest.mark.parametrize(("own", "other"), [NETWORKS, NETWORKS[::-1]])
def test_networks_do_not_reach_each_other(
    layout: Layout, addresses: dict[str, list[str]], own: str, other: str
) -> None:
    names = [f"{prefix}web-{network}{suffix}"
             for network in NETWORKS for prefix in ("", "tasks.")
             for suffix in ("", f".{network}")]  # fmt: skip
    everything = addresses["red"] + addresses["blue"]
    found, reached, _ = probe(layout, f"probe-{own}", (own,), names, everything)

    assert {a for a, is_reached in reached.items() if is_reached} == set(addresses[own])
    vip, *tasks = addresses[own]
    for name in names:
        wanted = [] if other in name else sorted(tasks) if name.startswith("tasks") else [vip]
        assert found[name] == wanted, name


def test_a_task_on_both_networks_reaches_both(
    layout: Layout, addresses: dict[str, list[str]]
) -> None:
    everything = addresses["red"] + addresses["blue"]
    names = ["web-red", "web-blue"]
    found, reached, _ = probe(layout, "probe-both", NETWORKS, names, everything, wait_s=5)
    assert all(reached.values())
    assert found == {f"web-{network}": [addresses[network][0]] for network in NETWORKS}


def test_unknown_names_are_answered_soon(layout: Layout, addresses: dict[str, list[str]]) -> None:
    del addresses
    names = ["nowhere", "nowhere.example.com", "a.b.c.example.org"]
    found, _, took = probe(layout, "probe-names", ("red",), names, [])
    assert found == {name: [] for name in names}
    first, *later = (took[name] for name in names)
    assert first < FIRST_NAME_S_MAX, took
    assert max(later) < NAMES_S_MAX, took
    logs = "".join(layout.log(node).read_text() for node in layout.nodes)
    assert "Traceback" not in logs
