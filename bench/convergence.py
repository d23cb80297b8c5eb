"""How long until all nodes have one change, beside Docker's NetworkDB (virtual time).

The scenario of moby's `networkdb/convergence_test.go`, rebuilt in our simulator: see
`gossip.simulation.convergence`. 25 runs each, p50/p90/max in milliseconds. NetworkDB's figures are
from its own test on its own simulated network (moby HEAD, 25 runs; churn 10).

What the numbers are not: wall-clock time. Links take 0.3 to 2 ms and a packet 50 us of a node's
time here; NetworkDB's network takes none. Neither counts system calls or encryption.
"""

from __future__ import annotations

from bench.report import say, value
from bench.virtual import simulate
from gossip.simulation.convergence import Change, converge_s, converge_under_churn_s
from gossip.simulation.figures import figures

_RUNS = 25
_CHURN_RUNS = 10
_LOSS = 0.25
_SIZES = (2, 3, 5, 10, 25)
_PEER = {
    (Change.CREATE, 2): "200/200/200",
    (Change.CREATE, 3): "200",
    (Change.CREATE, 5): "400/400/400",
    (Change.CREATE, 10): "600/600/800",
    (Change.CREATE, 25): "600/800/1000",
    (Change.DELETE, 25): "800/800/1000",
    (Change.JOIN_NETWORK, 25): "600/800/800",
    (Change.WRITE_AFTER_JOIN, 25): "1000/1000/1200",
}
_PEER_CHURN = {5: "190/400/400", 10: "581/1400/1400", 25: "981/11981/11981"}


def main() -> None:
    """Measure and print."""
    cells = [
        (change, nodes) for change in Change for nodes in _SIZES if _is_possible(change, nodes)
    ]
    jobs = [(change, nodes, seed, 0.0) for change, nodes in cells for seed in range(_RUNS)]
    times = dict(zip(jobs, simulate(_run, jobs), strict=True))
    for change, nodes in cells:
        found = figures(times[change, nodes, seed, 0.0] for seed in range(_RUNS))
        peer = _PEER.get((change, nodes), "not measured")
        say(f"{change.value:17} N={nodes:<3} {found.text(1000):14} NetworkDB {peer}")
    lossy = figures(simulate(_run, [(Change.CREATE, 25, s, _LOSS) for s in range(_RUNS)]))
    say(f"create, 25 % lost N=25  {lossy.text(1000)}")
    for nodes, peer in _PEER_CHURN.items():
        busy = figures(simulate(_churn, [(nodes, seed) for seed in range(_CHURN_RUNS)]))
        say(f"create in churn   N={nodes:<3} {busy.text(1000):14} NetworkDB {peer}")
        if nodes == max(_PEER_CHURN):
            value("convergence_churn_p90_ms", 1000 * busy.at(0.9))
    quiet = figures(times[Change.CREATE, 25, seed, 0.0] for seed in range(_RUNS))
    value("convergence_lossy_max_ms", 1000 * lossy.worst)
    value("convergence_p50_ms", 1000 * quiet.p50)
    value("convergence_max_ms", 1000 * quiet.worst)


def _is_possible(change: Change, nodes: int) -> bool:
    """Tell whether anyone is there before the one who joins."""
    return nodes > 2 or change in {Change.CREATE, Change.DELETE}  # noqa: PLR2004 - a pair


def _run(job: tuple[Change, int, int, float]) -> float:
    change, nodes, seed, loss = job
    return converge_s(change, nodes, seed=seed, loss=loss)


def _churn(job: tuple[int, int]) -> float:
    nodes, seed = job
    return converge_under_churn_s(nodes, seed=seed)
